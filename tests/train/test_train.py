"""The training loop: it learns, is deterministic, resumes, caches, and stops at a loss that is not finite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from wsolnb.losses import CrossEntropy, MultiLabelCrossEntropy
from wsolnb.models.backbones import backbone
from wsolnb.models.cam import Classifier
from wsolnb.papers.barz2022.losses import CosineLoss
from wsolnb.train import Plan, StepPlan, train
from wsolnb.train.batches import collate
from wsolnb.train.checkpoint import Checkpoint
from wsolnb.train.loop import Loop
from wsolnb.train.training import resolve_device


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def colours() -> TensorDataset:
    """Noise in which the brightest channel is the label."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (96,), generator=generator)
    images = torch.randint(120, (96, 3, 16, 24), generator=generator)
    images[torch.arange(96), labels] += 100
    return TensorDataset(images.to(torch.uint8), labels)


def net() -> Classifier:
    torch.manual_seed(0)
    return Classifier(backbone("tiny"), 3)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("objective", [CrossEntropy(), CosineLoss(torch.eye(3))], ids=["ce", "cosine"])
def test_it_learns(colours: TensorDataset, objective: CrossEntropy | CosineLoss) -> None:
    history = train(net(), colours, objective, Plan(6, 16, lr=0.05), device="cpu").history
    assert [r["epoch"] for r in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1]["accuracy"] > 0.9
    assert history[-1]["loss"] < history[0]["loss"] / 2


def test_a_second_training_comes_from_the_cache(colours: TensorDataset) -> None:
    first, second, other = net(), net(), net()
    a = train(first, colours, CrossEntropy(), Plan(2, 32), device="cpu")
    b = train(second, colours, CrossEntropy(), Plan(2, 32), device="cpu")
    c = train(other, colours, CrossEntropy(), Plan(2, 32, seed=1), device="cpu")
    assert (a.cached, b.cached, c.cached) == (False, True, False)
    assert a.history == b.history
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))
    assert not train(net(), colours, CrossEntropy(), Plan(2, 32), device="cpu", retrain=True).cached


def test_a_training_in_double_precision_leaves_the_network_as_the_cache_does(colours: TensorDataset) -> None:
    trained, cached = net(), net()
    for model in (trained, cached):
        train(model, colours, CrossEntropy(), Plan(1, 8), device="cpu", precision="64-true")
    assert weights(trained).dtype == torch.float32
    assert torch.equal(weights(trained), weights(cached))


def test_other_pixels_or_another_loss_are_another_training(colours: TensorDataset) -> None:
    images, labels = colours.tensors
    changed = images.clone()
    changed[50, 0, 3, 3] += 1
    keys = {
        train(net(), TensorDataset(x, labels), loss, Plan(1, 96), device="cpu").weights
        for x, loss in ((images, CrossEntropy()), (changed, CrossEntropy()), (images, CosineLoss(torch.eye(3))))
    }
    assert len(keys) == 3


def test_an_interrupted_training_ends_like_one_that_was_not(
    colours: TensorDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan, whole, resumed = Plan(3, 32, lr=0.05, cycle=1), net(), net()
    a = train(whole, colours, CrossEntropy(), plan, device="cpu")
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path / "other"))
    epoch = Loop._epoch

    def interrupted(self: Loop, number: int) -> dict[str, float]:
        if number == 2:
            raise KeyboardInterrupt
        return epoch(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(resumed, colours, CrossEntropy(), plan, device="cpu")
    monkeypatch.setattr(Loop, "_epoch", lambda s, n: epoch(s, n) | {"resumed": 1.0})
    b = train(net_again := net(), colours, CrossEntropy(), plan, device="cpu")
    assert [r.get("resumed", 0) for r in b.history] == [0, 0, 1]
    assert torch.equal(weights(whole), weights(net_again))
    assert [r["loss"] for r in a.history] == [r["loss"] for r in b.history]
    assert not list((tmp_path / "other").rglob("*.checkpoint"))


class _BreaksLater(CrossEntropy):
    """Is NaN from the fourth step on."""

    steps = 0

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        self.steps += 1
        return super().forward(outputs, labels) * (float("nan") if self.steps > 3 else 1)


def test_a_loss_that_is_not_finite_stops_the_run(colours: TensorDataset, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"became nan in epoch 2.*lower the learning rate.*epoch 1 stays at"):
        train(net(), colours, _BreaksLater(), Plan(4, 32), device="cpu")
    (checkpoint,) = (tmp_path / "cache").rglob("*.checkpoint")
    saved = load_file(next(checkpoint.glob("*.safetensors")))
    assert all(torch.isfinite(v).all() for v in saved.values())
    assert len(json.loads((checkpoint / "manifest.json").read_text())["values"]["history"]) == 1


def test_warm_restarts_follow_the_paper(tmp_path: Path) -> None:
    assert Plan(372, cycle=12).epochs == 12 + 24 + 48 + 96 + 192
    loop = Loop(
        Fabric(accelerator="cpu", devices=1),
        nn.Linear(1, 1),
        TensorDataset(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)),
        CrossEntropy(),
        Plan(36, cycle=12, lr=0.1),
        Checkpoint(tmp_path / "none", "", ""),
    )
    rates = []
    for _ in range(36):
        rates.append(loop.optimizer.param_groups[0]["lr"])
        loop.optimizer.step()
        loop.schedule.step()
    assert rates[0] == rates[12] == 0.1
    assert rates[6] == pytest.approx(0.05, abs=1e-5)
    assert rates[11] < 0.002
    assert rates[24] == pytest.approx(0.05, abs=1e-5)


def test_bad_plans_devices_and_data_are_refused(colours: TensorDataset) -> None:
    with pytest.raises(ValueError, match="epochs=20 ends inside a cycle; with cycle=12 take 12 or 36"):
        Plan(20, cycle=12)
    with pytest.raises(ValueError, match="epochs=0: must be at least 1"):
        Plan(0)
    with pytest.raises(ValueError, match=r"lr=nan: must be above 0"):
        Plan(1, lr=float("nan"))
    with pytest.raises(ValueError, match=r"device 'cuda:77' is not there; this machine has .*cpu"):
        resolve_device("cuda:77")
    with pytest.raises(ValueError, match="training set is empty"):
        train(net(), TensorDataset(torch.zeros(0, 3, 8, 8), torch.zeros(0)), CrossEntropy(), Plan(1))


@pytest.mark.gpu
def test_it_learns_on_the_gpu(colours: TensorDataset) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    history = train(net(), colours, CrossEntropy(), Plan(6, 16, lr=0.05), device="cuda").history
    assert history[-1]["accuracy"] > 0.9


def test_several_labels_per_image(colours: TensorDataset) -> None:
    images, labels = colours.tensors
    multi_hot = torch.nn.functional.one_hot(labels, 3).float()
    multi_hot[::2, 0] = 1.0
    assert [tuple(x.shape) for x in collate([(images[0], multi_hot[0]), (images[1], multi_hot[1])])] == [
        (2, 3, 16, 24),
        (2, 3),
    ]
    loss = MultiLabelCrossEntropy("sigmoid")
    history = train(
        net(), TensorDataset(images, multi_hot), loss, StepPlan(6, 16, lr=0.2, every=4), device="cpu"
    ).history
    assert history[-1]["accuracy"] > 0.9  # the best-scored class is one of those in the image
    assert history[-1]["loss"] < history[0]["loss"]
    assert [r["lr"] for r in history] == pytest.approx([0.2] * 4 + [0.02] * 2)


@pytest.mark.parametrize(
    ("settings", "message"), [({"cycle": 6}, "cycle=6"), ({"every": 0}, "every=0"), ({"factor": 2.0}, "2.0")]
)
def test_a_step_plan_refuses(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StepPlan(6, **settings)  # type: ignore[arg-type]
