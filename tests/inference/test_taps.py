"""A classifier's later passes are read where its first one was: the same numbers, and never those of another layer."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolnb.inference import linear_head as heads
from wsolnb.inference.linear_head import LinearReading, read_linear


class Net(nn.Module):
    """A convolution, a global average and a head; counts its passes."""

    def __init__(self, head: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), head or nn.Linear(6, 4)
        self.passes = 0
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        output: Tensor = self.head(self.conv(images).mean((2, 3)))
        return output


class Rectified(Net):
    """Its features are changed in place after the layer that gives them."""

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.head(F.adaptive_avg_pool2d(F.relu(self.conv(images), inplace=True), 1).flatten(1))
        return output


class Cosine(nn.Linear):
    """Not linear in what it is given, whatever its class says."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(F.normalize(input), F.normalize(self.weight))


def photos(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(seed))


def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a pass that is watched is an error."""

    def refuse(*_: object) -> None:
        raise AssertionError("this pass was watched")

    monkeypatch.setattr(heads._Watch, "__enter__", refuse)


def same(one: LinearReading, other: LinearReading) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("features", "weight", "constant", "outputs")]
    scales = one.scale is other.scale if one.scale is None else torch.equal(one.scale, other.scale)  # type: ignore[arg-type]
    return scales and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "net",
    [
        Net,
        Rectified,
        lambda: Net(nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 4))),
        lambda: Net(nn.Sequential(nn.Dropout(), nn.Linear(6, 4, bias=False))),
        lambda: Net(nn.Sequential(nn.Unflatten(1, (6, 1, 1)), nn.Conv2d(6, 4, 1), nn.Flatten())),
    ],
    ids=["mean", "in place", "layer normalisation", "dropout", "convolution"],
)
def test_later_passes_give_what_the_watched_one_gave(net: type[Net], monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    first = read_linear(model, photos())
    unwatched(monkeypatch)
    assert same(read_linear(model, photos()), first)
    other = read_linear(model, photos(1))
    assert not torch.equal(other.features, first.features)
    assert torch.equal(other.outputs, model(photos(1)))


def test_every_named_head_is_read_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(Net):
        def __init__(self) -> None:
            super().__init__()
            self.family = nn.Linear(6, 2)

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            pooled = self.conv(images).mean((2, 3))
            return self.head(pooled), self.family(pooled)

    model = Two()
    first = [read_linear(model, photos(), name) for name in ("head", "family")]
    unwatched(monkeypatch)
    again = [read_linear(model, photos(), name) for name in ("head", "family")]
    assert [each.outputs.shape[1] for each in again] == [4, 2]
    assert all(same(one, other) for one, other in zip(again, first, strict=True))


def test_a_head_that_was_exchanged_is_read_as_it_is_now() -> None:
    model = Net()
    read_linear(model, photos())
    with torch.no_grad():
        model.head.weight.mul_(2)  # type: ignore[operator]
    assert torch.equal(read_linear(model, photos()).weight, model.head.weight)
    model.head = nn.Linear(6, 9)
    reading = read_linear(model, photos())
    assert torch.equal(reading.weight, model.head.weight)
    assert torch.equal(reading.outputs, model(photos()))
    model.head = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(ValueError, match=r"the head 'head\.2' is not linear in the pooled features; .*: linear, relu"):
        read_linear(model, photos())
    model.head = Cosine(6, 4)
    with pytest.raises(ValueError, match="is not linear in the pooled features; between the two: normalize"):
        read_linear(model, photos())
    del model.head
    model.head = nn.Identity()
    with pytest.raises(ValueError, match="no linear layer reads pooled features"):
        read_linear(model, photos())


def test_something_new_between_the_same_layers_is_noticed() -> None:
    class Powered(Net):
        power = 1.0

        def forward(self, images: Tensor) -> Tensor:
            pooled = self.conv(images).mean((2, 3))
            output: Tensor = self.head(pooled if self.power == 1 else pooled.pow(self.power))
            return output

    model = Powered()
    read_linear(model, photos())
    model.power = 2.0
    with pytest.raises(ValueError, match="is not linear in the pooled features; between the two: pow"):
        read_linear(model, photos())
    model.power = 1.0
    assert torch.equal(read_linear(model, photos()).outputs, model(photos()))


def test_weights_that_are_used_without_their_layer_are_watched_every_time() -> None:
    class Functional(Net):
        def forward(self, images: Tensor) -> Tensor:
            self.passes += 1
            return F.linear(self.conv(images).mean((2, 3)), self.head.weight, self.head.bias)  # type: ignore[arg-type]

    model = Functional()
    first = read_linear(model, photos())
    assert all(same(read_linear(model, photos()), first) for _ in range(3))
    assert model.passes == 1 + 2 + 1 + 1  # the second call finds out that hooks see nothing


def test_one_pass_each_time() -> None:
    model = Net()
    for _ in range(4):
        read_linear(model, photos())
    assert model.passes == 4


def test_no_hook_is_left_even_after_an_error() -> None:
    model = Net()
    for images in (photos(), photos(), torch.randn(2, 5, 5, 7)):  # the last has too many channels
        with pytest.raises(RuntimeError, match="channels") if images.shape[1] == 5 else nullcontext():
            read_linear(model, images)
        assert not any(layer._forward_hooks for layer in model.modules())
    with pytest.raises(RuntimeError, match="channels"):
        read_linear(Net(), torch.randn(2, 5, 5, 7))
    assert not torch.nn.modules.module._global_forward_hooks


def test_numbers_that_are_none_are_named_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, broken = Net(), photos()
    read_linear(model, photos())
    broken[1, 0, 2, 2] = torch.nan
    unwatched(monkeypatch)
    with pytest.raises(ValueError, match="image 1 in this batch holds NaN"):
        read_linear(model, broken)
    with pytest.raises(ValueError, match="pools a single cell"):
        read_linear(model, torch.randn(1, 3, 1, 1))
    read_linear(model, photos())


def test_threads_that_share_a_model_do_not_see_each_others_passes() -> None:
    model = Net()
    expected = [read_linear(model, photos(seed)) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: read_linear(model, photos(seed % 8)), range(200)))
    assert all(same(each, expected[seed % 8]) for seed, each in enumerate(found))


def test_a_model_is_not_kept_alive() -> None:
    model = Net()
    read_linear(model, photos())
    read_linear(model, photos())
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
