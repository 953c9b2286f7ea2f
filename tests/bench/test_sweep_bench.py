"""The sweep against the protocol's own loop: how much faster, and how far its scores are off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter

import cv2
import numpy as np
import protocol_oracle as oracle
import pytest
import torch

from wsolnb.boxes import BoxRule
from wsolnb.boxes.quantise import minmax_normalise, quantise
from wsolnb.boxes.threshold_sweep import levels, sweep_ious

SIDE = 224
ONE = torch.tensor([0, 0, 1, 1])


def blobs(count: int, cells: int, seed: int) -> tuple[torch.Tensor, list[np.ndarray]]:
    """Maps ``(count, 224, 224)`` in [0, 1] with a bright spot near an object, and the object's box (inclusive)."""
    rng = np.random.default_rng(seed)
    half = rng.uniform(0.12, 0.4, (count, 2))
    centre = rng.uniform(half, 1 - half)
    grid = (np.arange(cells) + 0.5) / cells
    spot = centre + rng.normal(0, 0.35, (count, 2)) * half
    spread = half * rng.uniform(0.3, 1, (count, 2))
    across = np.exp(-0.5 * ((grid - spot[:, :1]) / spread[:, :1]) ** 2)
    down = np.exp(-0.5 * ((grid - spot[:, 1:]) / spread[:, 1:]) ** 2)
    noise = rng.random((count, cells, cells)) * rng.uniform(0.2, 1, (count, 1, 1))
    coarse = torch.from_numpy((down[:, :, None] * across[:, None] + noise).astype(np.float32))[:, None]
    maps = minmax_normalise(torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic")[:, 0])
    boxes = np.concatenate([centre - half, centre + half], axis=1) * (SIDE - 1)
    return maps, [box[None].astype(np.int64) for box in boxes]


def noise_maps(count: int, cells: int, seed: int) -> tuple[torch.Tensor, list[np.ndarray]]:
    """Maps of white noise on ``cells`` x ``cells``, enlarged; with the boxes of `blobs`."""
    coarse = torch.rand(count, 1, cells, cells, generator=torch.Generator().manual_seed(seed))
    maps = minmax_normalise(torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic")[:, 0])
    return maps, blobs(count, cells, seed)[1]


@pytest.fixture(autouse=True)
def _same_threads_afterwards() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Shortest time of several runs."""
    times = []
    for _ in range(rounds):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return min(times)


@pytest.mark.bench
@pytest.mark.parametrize("kind", [noise_maps, blobs])
@pytest.mark.parametrize(
    ("preset", "component", "threads", "at_least"),
    [
        ("wsoleval", "largest", 1, 40),
        ("wsoleval", "largest", 2, 75),
        ("wsoleval", "largest_contour", 1, 15),
        ("wsoleval_multi", "all", 1, 25),
        ("wsoleval_multi", "all_contours", 1, 25),
    ],
)
def test_the_sweep_is_faster_than_one_cut_per_threshold(
    kind: Callable[..., tuple[torch.Tensor, list[np.ndarray]]],
    preset: str,
    component: str,
    threads: int,
    at_least: float,
    record_property: Callable[[str, object], None],
) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(threads)
    maps, boxes = kind(64, 14, seed=0)
    scores, grey = maps.numpy(), quantise(maps)
    truth = [torch.from_numpy(box) + ONE for box in boxes]
    rule = BoxRule.preset(preset, component=component)
    every = preset.endswith("multi")
    sweep_ious(grey[:2], truth[:2], rule)  # compiled, or read from the cache
    ours = loop = np.inf
    for _ in range(4):
        ours = min(ours, seconds(lambda: sweep_ious(grey, truth, rule), 5) / len(maps))
        once = seconds(lambda: [oracle.best_ious(scores[i], boxes[i], every=every) for i in range(8)], 1)
        loop = min(loop, once / 8)
    ratio = loop / ours
    record_property("ratio", round(ratio))
    print(f"{kind.__name__} {component}, {threads} threads: {loop * 1e3:.1f} ms / {ours * 1e3:.2f} ms = {ratio:.0f}x")
    assert ratio >= at_least


@pytest.mark.slow
def test_scores_of_500_maps_against_the_protocol() -> None:
    maps, boxes = blobs(500, 14, seed=1)
    grey = quantise(maps)
    truth = [torch.from_numpy(box) + ONE for box in boxes]
    column = levels(grey, oracle.THRESHOLDS, BoxRule.preset("wsoleval"))
    for every, preset, shortcut in ((False, "wsoleval", "largest"), (True, "wsoleval_multi", "all")):
        slow = np.zeros((500, 256))
        for i, image in enumerate(grey.numpy()):
            assert column[i].tolist() == [int(t * image.max()) for t in oracle.THRESHOLDS]
            for level in column[i].unique().tolist():
                slow[i, level] = oracle.inclusive_iou(oracle.boxes_at(image, level, every), boxes[i]).max()
        best = torch.from_numpy(slow).gather(1, column)
        assert torch.equal(sweep_ious(grey, truth, BoxRule.preset(preset)).gather(1, column), best)
        fast = sweep_ious(grey, truth, BoxRule.preset(preset, component=shortcut)).gather(1, column)
        for iou in (0.3, 0.5, 0.7):
            ours, theirs = ((b >= iou).double().mean(dim=0).max().item() for b in (fast, best))
            print(f"{preset} at IoU {iou}: {shortcut} {ours:.4f}, protocol {theirs:.4f}")
            assert 0.05 < theirs < 1  # the maps are neither hopeless nor trivial
            assert abs(ours - theirs) <= 0.001
