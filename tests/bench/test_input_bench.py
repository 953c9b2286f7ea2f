"""What feeding costs: the loop's rate against the same training steps on data that are in memory already.

Both are measured in turns, an epoch of the loop and as many steps on batches that were collated, scaled and moved to
the device before. The loop's time is all it takes from one epoch to the next: order, collating, scaling, counting hits,
looking at the loss and writing the checkpoint. In its first epoch it draws or decodes the images, too.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import layout_trees as trees
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import to_dtype

from wsolnb.data.critters import World
from wsolnb.data.tasks import single_object
from wsolnb.losses import CrossEntropy
from wsolnb.models.cam import classifier
from wsolnb.train import Plan
from wsolnb.train.batches import collate
from wsolnb.train.checkpoint import Checkpoint
from wsolnb.train.loop import Loop
from wsolnb.train.training import _fabric, bfloat16_is_fast

LEAST = 0.95  # of the rate in memory


class InTurns(CrossEntropy):
    """Before every epoch of the loop but the first, as many steps in memory."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.clock, self.loop, self.memory = clock, [0.0], [0.0]
        self.steps: Callable[[], None] = lambda: None

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        self.loop[-1] += self.clock()
        if epoch:
            self.memory.append(-self.clock())
            self.steps()
            self.memory[-1] += self.clock()
        self.loop.append(-self.clock())

    def ratios(self) -> tuple[float, float]:
        """Rate of the loop over that in memory, before and after: the median of all turns; and of the first epoch."""
        _, first, *loop = self.loop[:-1]
        _, *memory = self.memory
        turns = [(before + after) / 2 / time for (before, after), time in zip(pairwise(memory), loop, strict=True)]
        return statistics.median(turns), statistics.median(memory) / first


def measure(
    network: str, classes: int, data: Dataset[Any], plan: Plan, device: str, folder: Path, precision: str, workers: int
) -> tuple[float, float, float]:
    """Ratios of rates as of `InTurns`, and images per second in memory."""
    where = torch.device(device)

    def clock() -> float:
        if where.type == "cpu":
            return time.process_time()  # whatever else the machine does
        torch.cuda.synchronize(where)
        return time.perf_counter()

    fabric, objective = _fabric(where, precision), InTurns(clock)
    net, checkpoint = classifier(network, classes), Checkpoint(folder / "checkpoint", "bench", "bench")
    loop = Loop(fabric, net, data, objective, plan, checkpoint, workers=workers)
    size, count = plan.batch_size, len(data) // plan.batch_size  # type: ignore[arg-type]

    @cache
    def batches() -> list[tuple[Tensor, Tensor]]:
        numbers = torch.arange(min(count, 20) * size).split(size)
        rows = [collate([data[k] for k in part.tolist()]) for part in numbers]
        return [(to_dtype(images.to(where), torch.float32, scale=True), labels.to(where)) for images, labels in rows]

    def steps() -> None:
        there = batches()
        for number in range(count):
            images, labels = there[number % len(there)]
            loss = objective(loop.model(images), labels)
            loop.optimizer.zero_grad()
            fabric.backward(loss)
            fabric.clip_gradients(loop.model, loop.optimizer, max_norm=plan.clip, error_if_nonfinite=False)
            loop.optimizer.step()

    objective.steps = steps
    loop.run()
    return *objective.ratios(), count * size / statistics.median(objective.memory[1:])


def report(what: str, ratio: float, first: float, rate: float, capsys: pytest.CaptureFixture[str]) -> float:
    with capsys.disabled():
        print(f"\n{what}: {rate:.0f} images/s in memory, the loop {ratio:.1%} of that, its first epoch {first:.1%}")
    return ratio


@pytest.mark.bench
def test_the_drawn_world_feeds_the_tiny_net(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSOLNB_HEADLESS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    task = single_object.from_critters(
        World(size=64, scale=(0.45, 0.8)), train_images=640, held_images=1, test_images=1
    )
    plan = Plan(21, batch_size=32, weight_decay=0.0005, clip=1.0)
    precision = "bf16-mixed" if bfloat16_is_fast(torch.device("cpu")) else "32-true"
    found = measure("tiny", 12, task.train, plan, "cpu", tmp_path, precision, workers=0)
    torch.set_num_threads(threads)
    assert report(f"tiny, 64 px, {precision}, one thread", *found, capsys) >= LEAST


class Again(Dataset[Any]):
    """A data set several times over: few photos, long epochs."""

    def __init__(self, data: Any, times: int) -> None:
        self.data, self.times = data, times

    def __len__(self) -> int:
        return self.times * len(self.data)

    def __getitem__(self, index: int) -> Any:
        return self.data[index % len(self.data)]


def many_photos(root: Path, per_class: int) -> Path:
    """A tree as of CUB, with photos of its size."""
    trees.cub(root, per_class=per_class, segmentations=False)
    for number, path in enumerate(sorted(root.rglob("*.jpg"))):
        noise = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(number))
        pixels = torch.nn.functional.interpolate(noise, (375, 500), mode="bilinear")[0].permute(1, 2, 0)
        Image.fromarray((255 * pixels).byte().numpy()).save(path, quality=92)
    return root


@pytest.mark.bench
@pytest.mark.gpu
@pytest.mark.parametrize("cache_gb", [0.0, 1.0], ids=["decoded every time", "kept on disk"])
def test_photos_feed_a_resnet50(
    cache_gb: float, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setenv("WSOLNB_HEADLESS", "1")
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path / "cache"))
    workers = max(1, min(16, (os.cpu_count() or 2) - 1))
    task = single_object.from_photos("cub", many_photos(tmp_path, 320), cache_gb=cache_gb)
    data, plan = Again(task.train, 40), Plan(6, batch_size=64, lr=0.001)
    found = measure("resnet50", 200, data, plan, "cuda", tmp_path, "bf16-mixed", workers)
    how = f"photos {'kept' if cache_gb else 'decoded every time'}, {workers} workers"
    assert report(f"resnet50, 224 px, bf16-mixed, {how}", *found, capsys) >= LEAST


@pytest.mark.bench
def test_a_kept_photo_takes_a_fraction_of_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root = many_photos(tmp_path, 40)
    parts = [single_object.from_photos("cub", root, cache_gb=gb).train for gb in (0.0, 1.0)]
    spent: list[list[float]] = [[], []]
    for turn in range(6):
        for part, times in zip(parts, spent, strict=True):
            started = time.process_time()
            for index in range(len(part)):  # type: ignore[arg-type]
                part[index]
            if turn:  # the first fills the cache
                times.append(1000 * (time.process_time() - started) / len(part))  # type: ignore[arg-type]
    torch.set_num_threads(threads)
    decoded, kept = (statistics.median(times) for times in spent)
    with capsys.disabled():
        print(f"\na photo of 500 x 375 px for training at 224 px: {decoded:.2f} ms decoded, {kept:.2f} ms kept")
    assert decoded > 3 * kept
