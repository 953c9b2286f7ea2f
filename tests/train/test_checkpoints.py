"""Checkpoints: complete or absent, verified when loaded, refused if they belong to another training."""

from __future__ import annotations

import errno
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mean_colour import MeanColour
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

import wsolnb.train.loop
from wsolnb._utils.files import write_atomic
from wsolnb.losses import CrossEntropy
from wsolnb.train import AdamPlan, Plan, train
from wsolnb.train.checkpoint import (
    Checkpoint,
    optimizer_parts,
    random_states,
    restore_module,
    restore_optimizer,
    restore_random_states,
)


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoint:
    checkpoint = Checkpoint(tmp_path / "net.checkpoint", "a1", "wsolnb 1")
    checkpoint.save({"w": torch.arange(6.0).reshape(2, 3)}, {"epoch": 4, "rate": 0.1})
    return checkpoint


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_the_last_one_stays(saved: Checkpoint) -> None:
    saved.save({"w": torch.zeros(2)}, {"epoch": 5})
    assert len(files(saved.folder)) == 2
    loaded = saved.load()
    assert loaded is not None
    assert torch.equal(loaded[0]["w"], torch.zeros(2))
    assert loaded[1] == {"epoch": 5}
    saved.remove()
    assert saved.load() is None
    assert not saved.folder.exists()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: _flip(next(f.glob("*.safetensors"))), r"\.safetensors is missing or damaged \(its SHA-256 is"),
        (lambda f: os.truncate(next(f.glob("*.safetensors")), 20), r"\.safetensors is missing or damaged"),
        (lambda f: next(f.glob("*.safetensors")).unlink(), r"\.safetensors is missing or damaged \(.*No such file"),
        (lambda f: os.truncate(f / "manifest.json", 50), r"manifest\.json is damaged \(JSONDecodeError"),
        (lambda f: (f / "manifest.json").write_text("[]"), r"manifest\.json is damaged"),
        (
            lambda f: (f / "manifest.json").write_text((f / "manifest.json").read_text().replace("0.1", "0.2")),
            "does not have the digest it names",
        ),
    ],
)
def test_a_damaged_one_is_refused_and_not_changed(saved: Checkpoint, damage: Any, message: str) -> None:
    damage(saved.folder)
    before = files(saved.folder)
    with pytest.raises(ValueError, match=message) as refused:
        saved.load()
    assert f"delete {saved.folder} to train from the start" in str(refused.value)
    assert files(saved.folder) == before


def test_one_of_another_model_or_version_is_refused(saved: Checkpoint) -> None:
    with pytest.raises(ValueError, match=r"belongs to another training \(key a1, this one has b2\): another model"):
        Checkpoint(saved.folder, "b2", "wsolnb 1").load()
    with pytest.raises(ValueError, match="was saved by wsolnb 1, this is wsolnb 2: delete"):
        Checkpoint(saved.folder, "a1", "wsolnb 2").load()
    with pytest.raises(ValueError, match=r"here holds the weights of another model: (.|\n)*size mismatch for weight"):
        restore_module(nn.Linear(2, 2), {"weight": torch.zeros(3, 3), "bias": torch.zeros(2)}, Path("here"))


def test_a_full_disk_leaves_what_is_there(saved: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(saved.folder)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"no room for .*safetensors: it takes 0\.0 MB, .* MB are free; what was saved"):
        saved.save({"w": torch.zeros(9)}, {})
    assert files(saved.folder) == before
    with pytest.raises(FileNotFoundError):
        write_atomic(saved.folder / "no" / "such", b"")


@pytest.mark.parametrize("plan", [Plan(1, lr=0.1), AdamPlan(1)], ids=["sgd", "adam"])
def test_an_optimizer_goes_on_bit_for_bit(plan: Plan) -> None:
    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
        images = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()

    whole, resumed = net(), net()
    a, b = plan.optimizer([{"params": whole.parameters()}]), plan.optimizer([{"params": resumed.parameters()}])
    step(whole, a, 0)
    tensors, values = optimizer_parts(a)
    resumed.load_state_dict(whole.state_dict())
    restore_optimizer(b, tensors, json.loads(json.dumps(values)))
    entry = next(t for t in b.state[next(resumed.parameters())].values() if t.ndim == 4)
    assert entry.is_contiguous(memory_format=torch.channels_last)
    for number in (1, 2):
        step(whole, a, number)
        step(resumed, b, number)
    for p, q in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)


def test_random_numbers_go_on() -> None:
    torch.rand(3), np.random.rand(), random.gauss(0, 1)
    states = json.loads(json.dumps(random_states()))
    first = [torch.rand(2).tolist(), np.random.randn(3).tolist(), random.gauss(0, 1), random.random()]
    restore_random_states(states)
    assert [torch.rand(2).tolist(), np.random.randn(3).tolist(), random.gauss(0, 1), random.random()] == first


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TensorDataset:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path / "cache"))
    return TensorDataset(torch.rand(12, 3, 5, 7), torch.arange(12) % 2)


def test_damaged_weights_in_the_cache_are_refused(data: TensorDataset) -> None:
    done = train(MeanColour(2), data, CrossEntropy(), Plan(1, 6), device="cpu")
    assert done.weights is not None
    _flip(done.weights)
    with pytest.raises(ValueError, match=r"is missing or damaged .*train again with retrain=True"):
        train(MeanColour(2), data, CrossEntropy(), Plan(1, 6), device="cpu")
    assert not train(MeanColour(2), data, CrossEntropy(), Plan(1, 6), device="cpu", retrain=True).cached
    assert train(MeanColour(2), data, CrossEntropy(), Plan(1, 6), device="cpu").cached


@pytest.mark.parametrize("content", [None, "", "[]", '{"history": []}'])
def test_a_damaged_record_of_cached_weights_is_named(data: TensorDataset, content: str | None) -> None:
    done = train(MeanColour(2), data, CrossEntropy(), Plan(1, 6), device="cpu")
    assert done.weights is not None
    path = done.weights.with_suffix(".json")
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ValueError, match=rf"{path.name} is missing or damaged .*: delete .*{done.weights.name}, or"):
        train(MeanColour(2), data, CrossEntropy(), Plan(1, 6), device="cpu")
    done.weights.unlink()  # as it says
    assert not train(MeanColour(2), data, CrossEntropy(), Plan(1, 6), device="cpu").cached
    assert train(MeanColour(2), data, CrossEntropy(), Plan(1, 6), device="cpu").cached


class _Stopping(CrossEntropy):
    """Stops a training before its third epoch."""

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        if epoch == 2:
            raise InterruptedError("stopped")


def test_a_checkpoint_made_in_another_way_is_passed_over_aloud(
    data: TensorDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(3, 6)
    with pytest.raises(InterruptedError):
        train(MeanColour(2), data, _Stopping(), plan, device="cpu", precision="32-true")
    assert "passed over" not in capsys.readouterr().out
    with pytest.raises(InterruptedError):
        train(MeanColour(2), data, _Stopping(), plan, device="cpu", precision="32-true", accumulate=2)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("passed over")]
    assert len(said) == 1
    assert re.search(r"\.checkpoint, 2 epochs of this training, made with accumulate 1, here 2$", said[0])
    with pytest.raises(InterruptedError):  # it goes on from its own
        train(MeanColour(2), data, _Stopping(), plan, device="cpu", precision="32-true", accumulate=2)
    with pytest.raises(InterruptedError):  # another training
        train(MeanColour(2), data, _Stopping(), Plan(3, 4), device="cpu", precision="32-true")
    assert "passed over" not in capsys.readouterr().out


def test_weights_cached_before_there_were_hashes_are_found(data: TensorDataset) -> None:
    done = train(MeanColour(2), data, CrossEntropy(), Plan(1, 6), device="cpu")
    assert done.weights is not None
    record = json.loads(done.weights.with_suffix(".json").read_text())
    del record["sha256"]
    done.weights.with_suffix(".json").write_text(json.dumps(record))
    assert train(MeanColour(2), data, CrossEntropy(), Plan(1, 6), device="cpu").cached


def test_a_compiled_model_trains_the_same_weights(data: TensorDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, compiler = [], torch.compile

    def eager(model: nn.Module, **options: Any) -> Any:
        compiled.append(model)
        return compiler(model, **(options | {"backend": "eager"}))

    plain, other = MeanColour(2), MeanColour(2)
    a = train(plain, data, CrossEntropy(), Plan(2, 6, lr=0.5), device="cpu", precision="32-true")
    monkeypatch.setattr(wsolnb.train.loop.torch, "compile", eager)
    b = train(other, data, CrossEntropy(), Plan(2, 6, lr=0.5), device="cpu", precision="32-true", compile=True)
    assert set(compiled) == {other}
    assert a.weights != b.weights
    assert torch.allclose(plain.head.weight, other.head.weight, atol=1e-6)
    assert [*other.state_dict()] == ["head.weight", "head.bias"]


def test_workers_do_not_change_what_is_seen(data: TensorDataset) -> None:
    """Neither images nor what is drawn for them, which leaves the numbers that the network draws as they are."""

    class Augmented(Dataset[Any]):
        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return data[index][0] + torch.rand(3, 1, 1) * random.random() * np.random.random(), data[index][1]

    class Drawing(MeanColour):
        def __init__(self) -> None:
            super().__init__(2)
            self.drawn: list[Tensor] = []

        def forward(self, images: Tensor) -> Tensor:
            self.drawn += [torch.rand(())]
            return super().forward(images)

    plan, options = Plan(2, 5, lr=0.5), {"device": "cpu", "precision": "32-true", "retrain": True}
    networks = Drawing(), Drawing(), Drawing()
    for network, seen, workers in zip(networks, (Augmented(), Augmented(), data), (0, 1, 0), strict=True):
        train(network, seen, CrossEntropy(), plan, workers=workers, **options)  # type: ignore[arg-type]
    single, worker, plain = networks
    assert torch.equal(single.head.weight, worker.head.weight)
    assert not torch.allclose(single.head.weight, plain.head.weight, atol=1e-4)
    assert single.drawn == worker.drawn == plain.drawn
