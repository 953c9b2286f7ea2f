"""ORNet's inference (shallow stages and generator) against what its training runs; prints both."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from wsolnb.models.cam import classifier
from wsolnb.models.cost import multiply_adds
from wsolnb.papers.xie2021.network import StageTwo, frozen, stage_one


def seconds(function: Callable[[], object], rounds: int = 5) -> float:
    function()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


@pytest.fixture
def calls() -> dict[str, Callable[[], object]]:
    first = stage_one("resnet50", 200).eval()
    two = StageTwo(first, frozen(classifier("vgg16", 200)))
    image = torch.rand(1, 3, 224, 224)
    return {
        "map": lambda: two.maps(image),
        "ResNet-50": lambda: first.backbone(image),
        "stage one": lambda: first(image),
        "stage two": lambda: two(image),
    }


@pytest.mark.slow
@torch.inference_mode()
def test_with_200_classes_the_generator_costs_more_than_the_whole_backbone(
    calls: dict[str, Callable[[], object]],
) -> None:
    assert multiply_adds(calls["map"]) > multiply_adds(calls["ResNet-50"])


@pytest.mark.bench
@torch.inference_mode()
def test_a_map_costs_less_than_the_networks_of_training(
    calls: dict[str, Callable[[], object]], capsys: pytest.CaptureFixture[str]
) -> None:
    taken = {name: seconds(call) for name, call in calls.items()}
    counted = {name: multiply_adds(call) / 1e9 for name, call in calls.items()}
    with capsys.disabled():
        for name in calls:
            ratio = taken[name] / taken["map"]
            print(f"\n{name:>9}: {counted[name]:6.2f} G multiply-adds, {ratio:4.2f} times the map's time", end="")
        print()
    assert taken["map"] < taken["stage one"] < 6 * taken["map"]
    assert taken["map"] < taken["stage two"]
