"""The key of cached weights: every argument of what makes a training changes it, and nothing is answered by another."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import TensorDataset

from wsolnb._utils.cache import cached, fingerprint
from wsolnb.losses import CrossEntropy, MultiLabelCrossEntropy
from wsolnb.models.backbones import backbone
from wsolnb.models.cam import GlobalMaxPooling, classifier, new_head
from wsolnb.papers.barz2022.losses import CosineLoss
from wsolnb.papers.kou2021.coaug import CoAug
from wsolnb.papers.kou2021.losses import CSoALoss
from wsolnb.papers.xie2021.erasing import Erasing
from wsolnb.papers.xie2021.losses import AreaLoss, EntropyLoss, RefinementLoss
from wsolnb.papers.xie2021.network import StageTwo, frozen, stage_one
from wsolnb.train import AdamPlan, Plan, StepPlan, train

DATA = TensorDataset(torch.rand(16, 3, 16, 16), torch.arange(16) % 2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of other weights for the backbone `tiny`."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(body(7).stages.state_dict(), path)
    return str(path)


def first() -> Any:
    torch.manual_seed(1)
    return stage_one("tiny", 3, stage="block2", width=4)


def evaluator(seed: int = 0) -> nn.Module:
    return frozen(classifier("tiny", 3, seed=seed))


def body(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return backbone("tiny")


EMBED = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
CASES: list[tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]] = [
    (
        classifier,
        {"name": "tiny", "outputs": 3},
        {"name": "tiny_gap", "outputs": 4, "seed": 1, "pool": GlobalMaxPooling(), "stride": 16, "freeze_norm": True,
         "convention": "caffe"},
    ),
    (
        new_head,
        {"backbone": body(), "outputs": 3},
        {"backbone": body(1), "outputs": 4, "seed": 1, "pool": GlobalMaxPooling(), "freeze": True},
    ),
    (
        StageTwo,
        {"first": first(), "evaluator": evaluator()},
        {"first": stage_one("tiny", 3, stage="block2", width=4, seed=5), "evaluator": evaluator(1),
         "erasing": Erasing("attentive"), "trainable": ("generator",)},
    ),
    (Erasing, {"strategy": "attentive"}, {"strategy": "random", "rate": 0.3, "threshold": (0.5, 0.6)}),
    (MultiLabelCrossEntropy, {}, {"output": "sigmoid"}),
    (CosineLoss, {"embeddings": torch.eye(3)}, {"embeddings": torch.eye(3)[[1, 0, 2]]}),
    (EntropyLoss, {}, {"weighted": False, "mean": 0.4, "deviation": 0.2}),
    (AreaLoss, {}, {"ranks": (2, 3)}),
    (RefinementLoss, {}, {"alpha": 1, "beta": 0.1, "entropy": EntropyLoss(mean=0.4), "area": AreaLoss((2, 3))}),
    (CoAug, {"embed": EMBED}, {"embed": nn.Sequential(*EMBED, nn.Tanh()), "gamma": 2.0, "delta": 2.0,
                               "pairs": "swapped", "squash": "sigmoid", "size": 8}),
    (
        CSoALoss,
        {"alpha": 0.5, "coaug": CoAug(EMBED)},
        {"alpha": 0.6, "ramp": "constant", "over": "sum", "fixed": (0.1, 0.7), "coaug": CoAug(EMBED, gamma=2),
         "coaug_weight": 0.5},
    ),
    (Plan, {"epochs": 3}, {"epochs": 4, "batch_size": 8, "lr": 0.2, "cycle": 3, "momentum": 0.8, "weight_decay": 0.1,
                           "clip": 1.0, "head_rate": 2.0, "seed": 1}),
    (StepPlan, {"epochs": 3, "every": 2}, {"epochs": 4, "batch_size": 8, "lr": 0.2, "momentum": 0.8,
                                           "weight_decay": 0.1, "clip": 1.0, "head_rate": 2.0, "seed": 1, "every": 1,
                                           "factor": 0.5, "nesterov": True}),
    (AdamPlan, {"epochs": 3}, {"epochs": 4, "batch_size": 8, "lr": 0.2, "cycle": 3, "momentum": 0.8,
                               "weight_decay": 0.1, "clip": 1.0, "head_rate": 2.0, "seed": 1, "beta2": 0.9}),
]  # fmt: skip


def key_of(make: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    made = make(**arguments)
    return fingerprint(dataclasses.asdict(made) if dataclasses.is_dataclass(made) else made)


@pytest.mark.parametrize(
    ("make", "base", "name", "value"),
    [(make, base, name, value) for make, base, changes in CASES for name, value in changes.items()],
    ids=lambda part: part if isinstance(part, str) else getattr(part, "__name__", ""),
)
def test_every_argument_changes_the_key(make: Callable[..., Any], base: dict[str, Any], name: str, value: Any) -> None:
    assert key_of(make, base) == key_of(make, base)
    assert key_of(make, base) != key_of(make, base | {name: value}), name


@pytest.mark.parametrize(("make", "changes"), [(make, changes) for make, _, changes in CASES])
def test_no_argument_is_forgotten(make: Callable[..., Any], changes: dict[str, Any]) -> None:
    names = set(inspect.signature(make).parameters) - {"options"} - ({"cycle"} if make is StepPlan else set())
    if make is classifier:  # weights have a test of their own
        names |= set(inspect.signature(backbone).parameters) - {"name", "weights"}
    assert names == set(changes), make.__name__


def test_first_weights_change_the_key(weights: str) -> None:
    assert fingerprint(classifier("tiny", 3)) != fingerprint(classifier("tiny", 3, weights=weights))


def run(net: nn.Module, objective: Any = None, plan: Plan | None = None, **options: Any) -> Any:
    options = {"device": "cpu", "precision": "32-true"} | options
    return train(net, DATA, objective or CrossEntropy(), plan or Plan(1, 8), **options)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path))


@pytest.mark.usefixtures("empty")
def test_a_frozen_backbone_does_not_answer_for_one_that_learns() -> None:
    start = body()
    assert not run(new_head(start, 2, freeze=True)).cached
    learning = new_head(start, 2)
    assert not run(learning).cached
    moved = [not torch.equal(a, b) for a, b in zip(learning.backbone.parameters(), start.parameters(), strict=True)]
    assert any(moved)
    assert run(new_head(start, 2)).cached


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(
    "options", [{"accumulate": 2}, {"precision": "bf16-mixed"}], ids=lambda options: next(iter(options))
)
def test_how_it_is_trained_changes_the_key(options: dict[str, Any]) -> None:
    start = body()
    assert not run(new_head(start, 2)).cached
    assert not run(new_head(start, 2), **options).cached
    assert run(new_head(start, 2), **options).cached


@pytest.mark.usefixtures("empty")
def test_workers_do_not_change_the_key() -> None:
    start = body()
    assert not run(new_head(start, 2)).cached
    assert run(new_head(start, 2), workers=1).cached


@pytest.mark.usefixtures("empty")
def test_threads_change_the_key() -> None:
    before, start = torch.get_num_threads(), body()
    try:
        cached_runs = []
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            cached_runs.append(run(new_head(start, 2)).cached)
    finally:
        torch.set_num_threads(before)
    assert cached_runs == [False, False, True]


@pytest.mark.usefixtures("empty")
def test_plans_of_two_kinds_are_two_plans() -> None:
    @dataclasses.dataclass(frozen=True)
    class Other(Plan):
        """The same fields, perhaps another optimizer."""

    start = body()
    assert not run(new_head(start, 2)).cached
    assert not run(new_head(start, 2), plan=Other(1, 8)).cached


@pytest.mark.usefixtures("empty")
def test_an_objective_that_has_trained_is_the_same_as_a_new_one() -> None:
    class Rising(CrossEntropy):
        epoch_state = ("now",)

        def begin_epoch(self, epoch: int, epochs: int) -> None:
            self.now = epoch / epochs

    start, objective = body(), Rising()
    assert not run(new_head(start, 2), objective, Plan(2, 8)).cached
    assert run(new_head(start, 2), objective, Plan(2, 8)).cached
    assert run(new_head(start, 2), Rising(), Plan(2, 8)).cached


def test_one_flipped_byte_of_a_cached_result_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path))

    def compute() -> dict[str, torch.Tensor]:
        return {"numbers": torch.arange(1000.0)}

    assert float(cached("kind", ["x"], compute)["numbers"].sum()) == 499500
    (path,) = tmp_path.rglob("*.safetensors")
    good = path.read_bytes()
    assert float(cached("kind", ["x"], compute)["numbers"].sum()) == 499500
    for place in (len(good) - 1, len(good) - 6, len(good) // 2, 20):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        with pytest.raises(ValueError, match=rf"{path.name} is .*damaged.*delete it"):
            cached("kind", ["x"], compute)
