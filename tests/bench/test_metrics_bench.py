"""What the metrics cost, as ratios measured in one run: memory, the sweep they stand on, and the bootstrap."""

from __future__ import annotations

import resource
from collections.abc import Callable
from time import process_time

import numpy as np
import pytest
import torch
from torch.nn import functional

from wsolnb.boxes import BoxRule
from wsolnb.boxes.quantise import quantise
from wsolnb.boxes.threshold_sweep import sweep_ious
from wsolnb.metrics import DetectionAP, MaxBoxAccV2, PxAP, interval


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def smooth(images: int, cells: int = 14) -> torch.Tensor:
    maps = functional.interpolate(torch.rand(images, 1, cells, cells), (224, 224), mode="bicubic")[:, 0]
    maps -= maps.amin(dim=(1, 2), keepdim=True)
    return maps / maps.amax(dim=(1, 2), keepdim=True)


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Processor time of the fastest of some runs, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = process_time()
        work()
        times.append(process_time() - start)
    return min(times)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_maps():
    maps = smooth(64)
    boxes, masks = [torch.tensor([[20, 30, 150, 160]])] * 64, maps > 0.6
    box, pixel = MaxBoxAccV2("inclusive"), PxAP()
    peaks = []
    for _ in range(24):
        box.update(maps, boxes)
        pixel.update(maps, masks)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    states = [each.nbytes for metric in (box, pixel) for each in metric.metric_state.values()]
    print(f"{int(box.seen)} maps: {sum(states) / 1e3:.0f} kB of state; {peaks[3] / 1e3:.0f}, {peaks[-1] / 1e3:.0f} MB")
    assert sum(states) < 100_000
    assert peaks[-1] < 1.02 * peaks[3]


@pytest.mark.bench
def test_a_box_metric_costs_little_more_than_its_sweep():
    maps, boxes = smooth(64), [torch.tensor([[20, 30, 150, 160]])] * 64
    truth, rule = [each + torch.tensor([0, 0, 1, 1]) for each in boxes], BoxRule.preset("wsoleval_multi")
    metric = MaxBoxAccV2("inclusive")
    whole = seconds(lambda: metric.update(maps, boxes))
    sweep = seconds(lambda: sweep_ious(quantise(maps), truth, rule))
    print(f"MaxBoxAccV2 {1000 * whole / 64:.2f} ms a map, of which the sweep {1000 * sweep / 64:.2f} ms")
    assert whole < 1.5 * sweep


@pytest.mark.bench
def test_pxap_is_five_times_faster_than_two_numpy_histograms():
    maps = smooth(64)
    masks, edges = maps > 0.6, np.append(np.arange(0, 1, 0.001), [1, 2, 3])
    metric = PxAP()

    def protocol() -> None:
        for each, mask in zip(maps.double().numpy(), masks.numpy(), strict=True):
            np.histogram(each[mask], bins=edges)
            np.histogram(each[~mask], bins=edges)

    ours, theirs = seconds(lambda: metric.update(maps, masks)), seconds(protocol)
    print(f"PxAP {1000 * ours / 64:.2f} ms a map, two histograms by numpy {1000 * theirs / 64:.2f} ms")
    assert 5 * ours < theirs


@pytest.mark.bench
def test_a_thousand_bootstrap_draws_cost_less_than_scoring_ten_times():
    images, classes = 500, 20
    predictions, targets = [], []
    for _ in range(images):
        near = torch.rand(classes + 3, 2) * 100
        boxes = torch.cat([near, near + 20 + torch.rand(classes + 3, 2) * 100], dim=1)
        labels = torch.arange(classes)
        predictions.append({"boxes": boxes[:classes], "labels": labels, "scores": torch.rand(classes)})
        targets.append({"boxes": boxes[classes:] + 5, "labels": torch.randint(classes, (3,))})
    metric = DetectionAP(classes, (0.25,))
    metric.update(predictions, targets)

    def score() -> None:
        metric._computed = None
        metric.compute()

    once, draws = seconds(score), seconds(lambda: interval(metric.statistic(0.25), images, draws=1000))
    print(f"COCOeval once {once:.2f} s, 1000 draws {draws:.2f} s: {1000 * once / draws:.0f}x")
    assert draws < 10 * once
