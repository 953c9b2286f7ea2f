"""Two processes share the batches of one, train like it, and report results of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import trained_together

from wsolnb._utils.cache import fingerprint
from wsolnb.losses import CrossEntropy
from wsolnb.papers.kou2021.sampler import ClassBalanced
from wsolnb.train import Plan, train
from wsolnb.train.batches import ResumableSampler, SeededDataset, ShuffledBatchSampler

TOGETHER = {
    "plain": {"batch_size": 4},
    "accumulated": {"batch_size": 4, "accumulate": 2},
    "in single images": {"batch_size": 4, "accumulate": 3, "normalised": True},
    "balanced": {"batch_size": 2, "balanced": True},
    "normalised": {"batch_size": 4, "normalised": True},
    "again": {"batch_size": 4},
    "torn": {"batch_size": 4, "torn": True},
    "drawn": {"batch_size": 4, "drawn": True},
    "drawn in parts": {"batch_size": 4, "drawn": True, "accumulate": 2, "stop": True},
    "pairs": {"batch_size": 3, "balanced": True, "pairs": True},
    "a pair without an image": {"batch_size": 11, "pairs": True},
    "unknown labels": {"batch_size": 4, "unknown": True},
    "compiled": {"batch_size": 4, "accumulate": 2, "drawn": True, "normalised": True, "compiled": True},
    "stopped": {"batch_size": 4, "accumulate": 2, "stop": True},
}


def train_together(out: Path, settings: dict[str, Any], processes: int) -> dict[str, list[dict[str, Any]]]:
    """Results of all processes under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    process = subprocess.run(
        [*command, trained_together.__file__, str(out), json.dumps(settings)],
        env={**os.environ, "WSOLNB_CACHE": str(out), "OMP_NUM_THREADS": "1", "WSOLNB_HEADLESS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    cached = "again" in settings
    assert process.stdout.count("epoch   3/3") == len(settings) - cached  # only the first process prints
    ranks = range(processes)
    return {name: [json.loads((out / f"{name}-{rank}.json").read_text()) for rank in ranks] for name in settings}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Results of two processes."""
    return train_together(tmp_path_factory.mktemp("together"), TOGETHER, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "single"),
    [
        ("plain", {"batch_size": 4}),
        ("plain", {"batch_size": 4, "accumulate": 2}),
        ("accumulated", {"batch_size": 4}),
        ("in single images", {"batch_size": 4, "accumulate": 2, "normalised": True}),
        ("balanced", {"batch_size": 2, "balanced": True}),
        ("normalised", {"batch_size": 4, "normalised": True}),
        ("stopped", {"batch_size": 4}),
        ("drawn", {"batch_size": 4, "drawn": True}),
        ("drawn in parts", {"batch_size": 4, "drawn": True}),
        ("drawn", {"batch_size": 4, "drawn": True, "accumulate": 3}),
        ("pairs", {"batch_size": 3, "balanced": True, "pairs": True}),
        ("a pair without an image", {"batch_size": 11, "pairs": True}),
        ("unknown labels", {"batch_size": 4, "unknown": True}),
        ("compiled", {"batch_size": 4, "accumulate": 1, "drawn": True, "normalised": True}),
    ],
)
def test_two_processes_follow_one(
    together: dict[str, list[dict[str, Any]]],
    name: str,
    single: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path))
    one, two = trained_together.run(**single), together[name]
    assert two[0]["weights"] == two[1]["weights"]
    assert two[0]["weights"] == pytest.approx(one["weights"], abs=1e-5)
    for first, second in zip(two[0]["history"], two[1]["history"], strict=True):
        assert {k: v for k, v in first.items() if k != "images_per_second"} == {
            k: v for k, v in second.items() if k != "images_per_second"
        }
    for key in ("loss", "accuracy", "lr"):
        values = [row[key] for row in one["history"]]
        assert [row[key] for row in two[0]["history"]] == pytest.approx(values, abs=1e-5)
    assert len({row["loss"] for row in one["history"]}) == 3
    assert two[0]["key"] != one["key"]


@pytest.mark.slow
def test_four_processes_follow_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {name: TOGETHER[name] for name in ("plain", "normalised")}
    four = train_together(tmp_path, settings, 4)
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path / "alone"))
    for name, results in four.items():
        one = trained_together.run(**settings[name])
        losses = [row["loss"] for row in one["history"]]
        for result in results:
            assert result["weights"] == pytest.approx(one["weights"], abs=1e-5)
            assert [row["loss"] for row in result["history"]] == pytest.approx(losses, abs=1e-5)


@pytest.mark.slow
def test_both_processes_take_cached_weights(together: dict[str, list[dict[str, Any]]]) -> None:
    assert [run["cached"] for run in together["again"]] == [True, True]
    assert [run["cached"] for run in together["plain"]] == [False, False]
    assert together["again"][0]["weights"] == together["again"][1]["weights"] == together["plain"][0]["weights"]


@pytest.mark.slow
def test_images_found_unreadable_are_counted_over_both_processes(together: dict[str, list[dict[str, Any]]]) -> None:
    assert [[row["unreadable"] for row in run["history"]] for run in together["torn"]] == [[2, 2, 2], [2, 2, 2]]


@pytest.mark.parametrize("strategy", ["zero", "fsdp"])
def test_no_other_strategy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, strategy: str) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path))
    net, data, options = trained_together.Net(), trained_together.Noise(), {"device": "cpu", "strategy": strategy}
    with pytest.raises(ValueError, match=f"strategy='{strategy}': must be ddp"):
        train(net, data, CrossEntropy(), Plan(1), **options)  # type: ignore[arg-type]


def test_processes_share_the_batches_of_one() -> None:
    whole = [sorted(batch) for batch in ShuffledBatchSampler(11, 4)]
    shares = [list(ShuffledBatchSampler(11, 4, rank=rank, replicas=2)) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*shares, strict=True)] == whole
    assert [ShuffledBatchSampler(9, 4, rank=1, replicas=2).share(n) for n in range(3)] == [
        (range(1, 4, 2), 4),
        (range(1, 4, 2), 4),
        (range(1, 1, 2), 1),
    ]
    assert [len(batch) for batch in ShuffledBatchSampler(9, 4, rank=1, replicas=2)] == [2, 2, 1]
    other = ShuffledBatchSampler(11, 4)
    other.seed = 1
    assert [sorted(batch) for batch in other] != whole


def test_the_rest_of_an_epoch_has_seeded_items() -> None:
    sampler = ResumableSampler(ShuffledBatchSampler(5, 2))
    sampler.start, sampler.seed = 1, 7
    assert list(sampler) == [[(7, index) for index in batch] for batch in list(ShuffledBatchSampler(5, 2))[1:]]
    data = SeededDataset(trained_together.Augmented())
    assert len(data) == trained_together.IMAGES
    before = torch.get_rng_state()
    (image, label), again = data.__getitems__([(7, 4), (7, 4)])
    assert image.equal(again[0])
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(int(fingerprint(7, 4), 16) % 2**32)
    assert (image.equal(data.dataset[4][0]), label) == (True, 4 % 3)


def test_a_sampler_that_is_not_distributed_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path))
    monkeypatch.setattr(
        "wsolnb.train.training._fabric", lambda *_: type("Two", (), {"world_size": 2, "device": "cpu"})()
    )
    batches = ClassBalanced(trained_together.Noise.labels, 3, 3)
    with pytest.raises(ValueError, match=r"ClassBalanced.* does not share its batches out to 2 processes"):
        train(trained_together.Net(), trained_together.Noise(), CrossEntropy(), Plan(1), batches=batches, device="cpu")
