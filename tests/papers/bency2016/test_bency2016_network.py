"""The grid classifier: shapes, its own layers of AlexNet and VGG16, frozen parts, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from wsolnb._utils.cache import fingerprint
from wsolnb.papers.bency2016.network import GridClassifier, MaxPooled, grid_classifier


def small(**options: object) -> GridClassifier:
    return grid_classifier("tiny", 5, **{"grid": 4, "hidden": (16,), "adapt": 8, **options})  # type: ignore[arg-type]


def test_any_image_comes_to_the_grid() -> None:
    net = small()
    assert (net.grid, net.side) == (4, 32)
    for height, width in ((32, 32), (40, 72)):
        images = torch.rand(2, 3, height, width)
        assert net.features(images).shape == (2, 96, 4, 4)
        assert net(images).shape == (2, 5)


def test_forward_is_dense_layers_on_the_flat_grid() -> None:
    net, images = small().eval(), torch.rand(2, 3, 32, 32)
    hidden = torch.relu(net.features(images).flatten(1) @ net.dense[0].weight.T + net.dense[0].bias)
    adapted = torch.relu(hidden @ net.head[0].weight.T + net.head[0].bias)
    assert torch.allclose(net(images), adapted @ net.head[2].weight.T + net.head[2].bias, atol=1e-5)


def test_without_hidden_layers_the_adaptation_reads_the_grid() -> None:
    assert grid_classifier("tiny", 3, grid=2, hidden=(), adapt=8).head[0].in_features == 96 * 4


def test_a_larger_input_is_averaged_to_the_grid() -> None:
    net = small(grid=6, side=64).eval()
    images = torch.rand(1, 3, 64, 64)
    assert torch.allclose(net.features(images), nn.functional.adaptive_avg_pool2d(net.backbone(images), 6))


def test_the_same_seed_gives_the_same_weights_and_leaves_the_random_state() -> None:
    state = torch.get_rng_state()
    first, second, other = small(seed=3), small(seed=3), small(seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert fingerprint(first) == fingerprint(second) != fingerprint(other)


def test_frozen_parts_keep_weights_and_statistics() -> None:
    net = small(dropout=0.5).freeze("backbone").train()
    assert {name.split(".")[0] for name, p in net.named_parameters() if p.requires_grad} == {"dense", "head"}
    norm = next(m for m in net.backbone.modules() if isinstance(m, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    net(torch.rand(4, 3, 32, 32)).sum().backward()
    assert torch.equal(norm.running_mean, before)
    assert net.dense.training
    assert not net.backbone.training
    assert all(p.grad is None for p in net.backbone.parameters())
    assert net.freeze().train().backbone.training
    assert all(p.requires_grad for p in net.parameters())


def test_what_is_frozen_is_part_of_the_key_of_cached_weights() -> None:
    assert fingerprint(small()) != fingerprint(small().freeze("backbone"))


def test_alexnet_keeps_its_own_layers_and_weights(tmp_path: Path) -> None:
    net = torchvision.models.alexnet(weights=None).eval()
    save_file(net.state_dict(), tmp_path / "alexnet.safetensors")
    found = grid_classifier("alexnet", 7, weights=str(tmp_path / "alexnet.safetensors"), adapt=16).eval()
    assert (found.grid, found.side) == (6, 224)
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        wanted = net.classifier[:6](net.features(found.backbone.normalise(images)).flatten(1))
        assert torch.allclose(found.dense(found.features(images).flatten(1)), wanted, atol=1e-5)
        assert found(images).shape == (1, 7)


def test_vgg16_has_a_grid_of_seven(monkeypatch: pytest.MonkeyPatch) -> None:
    layers: list[tuple[str, str | None]] = []

    def own(name: str, weights: str | None) -> nn.Sequential:
        layers.append((name, weights))
        return nn.Sequential(nn.Linear(512 * 49, 4096))

    monkeypatch.setattr("wsolnb.papers.bency2016.network._own_dense", own)  # 120 million weights less
    net = grid_classifier("vgg16", 20, adapt=4)
    assert layers == [("vgg16", None)]
    assert (net.grid, net.side, net.head[0].in_features) == (7, 224, 4096)
    assert grid_classifier("vgg16", 2, grid=3, hidden=(4,)).side == 96


def test_refused() -> None:
    with pytest.raises(ValueError, match="grid of 1 x 1 cells"):
        small(grid=1)
    with pytest.raises(ValueError, match="at least one output, got 0"):
        grid_classifier("tiny", 0, grid=4)
    with pytest.raises(ValueError, match=r"\['head'\]: parts are backbone and dense"):
        small().freeze("head")
    with pytest.raises(ValueError, match=r"grids \(B, T, 4, 4\), got \(1, 96, 4, 5\)"):
        small().classify(torch.zeros(1, 96, 4, 5))


def test_max_pooling_learns_from_the_best_window_of_one_size_at_a_time() -> None:
    net, images = MaxPooled(small(), [1, 3]).eval(), torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        maps = {size: net.score_map(images, size) for size in (1, 3)}
        assert {size: tuple(found.shape) for size, found in maps.items()} == {1: (2, 5, 1, 1), 3: (2, 5, 3, 3)}
        window = net.net.backbone(images)[:, :, 1:5, 2:6]  # 48 px are 6 x 6 cells: windows of 4 x 4
        assert torch.allclose(maps[3][:, :, 1, 2], net.net.classify(window), atol=1e-5)
        every = torch.stack([found.amax(dim=(2, 3)) for found in maps.values()])
        assert torch.allclose(net(images), every.amax(dim=0), atol=1e-5)
        net.net.freeze("backbone", "dense")
        net.train()
        seen = {bool(torch.allclose(net(images), every[0], atol=1e-5)) for _ in range(20)}
    assert seen == {True, False}


def test_only_the_best_window_gets_a_gradient() -> None:
    net = MaxPooled(small().freeze("backbone"), [3]).train()
    grids = torch.rand(1, 96, 6, 6, requires_grad=True)
    net.net.backbone.forward = lambda images: grids  # type: ignore[method-assign]
    net(torch.rand(1, 3, 48, 48))[0, 2].backward()
    assert grids.grad is not None
    touched = grids.grad[0].abs().sum(dim=0).nonzero()
    assert bool((touched.amax(dim=0) - touched.amin(dim=0) <= 3).all())  # within one window of 4 x 4 cells


def test_sizes_of_windows_are_refused() -> None:
    for wrong in ([], [3, 0]):
        with pytest.raises(ValueError, match="give the number of windows along a side"):
            MaxPooled(small(), wrong)
