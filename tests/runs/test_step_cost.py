"""A step's cost: operations as torch counts them, memory by hand, and steps that are really taken."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from wsolnb.models.backbones import backbone
from wsolnb.models.cam import classifier, new_head
from wsolnb.models.cost import multiply_adds
from wsolnb.papers.kou2021.network import csoa
from wsolnb.papers.xie2021.network import StageTwo, frozen, stage_one
from wsolnb.runs.images_seen import Images
from wsolnb.runs.step_cost import count, measure
from wsolnb.runs.trainings import Training, budget

TINY = Training("x", "tiny", partial(classifier, "tiny", 5), Images(10, 5), 1, batch=4, side=32)


def second_stage() -> nn.Module:
    return StageTwo(stage_one("tiny", 5, width=4), frozen(classifier("tiny", 5)))


NETWORKS = {
    "whole": TINY.network,
    "head only": lambda: new_head(backbone("tiny"), 5, freeze=True),
    "two heads": lambda: csoa(backbone("tiny"), 5, inner="block2", pool=2, width=8),
    "stage two": second_stage,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_operations_are_those_that_torch_counts_there_and_back(name: str) -> None:
    net, images = NETWORKS[name]().train(), torch.rand(2, 3, 64, 64)
    counter = FlopCounterMode(display=False)
    with counter:
        outputs = net(images)
        parts = [outputs] if isinstance(outputs, torch.Tensor) else [each for each in outputs if each is not None]
        sum(part.sum() for part in parts if part.requires_grad).backward()
    counted = count(replace(TINY, network=NETWORKS[name], side=64), 2, mixed=False)
    assert 2 * counted.operations == pytest.approx(counter.get_total_flops(), rel=1e-6)
    assert counted.trained == sum(weight.numel() for weight in net.parameters() if weight.requires_grad)


def test_operations_of_grouped_convolutions_are_three_times_those_of_the_way_there() -> None:
    """Which torch counts as if they were not grouped on the way back."""
    net = partial(classifier, "mobilenet_v2", 5)
    there = 2 * multiply_adds(net().train(), torch.rand(2, 3, 64, 64)) // 2
    first = 2 * 32 * 32 * 32 * 27  # the first layer has no way back to the images
    assert count(replace(TINY, network=net, side=64), 2, mixed=False).operations == 3 * there - first


def test_memory_is_the_state_and_what_is_kept() -> None:
    one, two = (count(TINY, images, mixed=False) for images in (4, 8))
    state = 3 * 4 * one.weights  # weights, gradients and momentum
    assert two.memory - state == pytest.approx(2 * (one.memory - state), rel=0.01)  # but for means and deviations
    images = 4 * 3 * 32 * 32 * 4  # kept by the first convolution
    convolved = 4 * 4 * 2 * sum(24 * 256 // 4**k * 2**k for k in range(3))  # outputs of six, kept to be normalised
    assert one.memory - state > images + convolved
    head = count(replace(TINY, network=NETWORKS["head only"]), 4, mixed=False)
    assert head.memory < 4 * head.weights + one.memory - state
    half = count(TINY, 4, mixed=True)
    assert half.memory == pytest.approx(state + 2 * one.weights + (one.memory - state) / 2)
    adam = count(replace(TINY, adam=True), 4, mixed=False)
    assert (adam.memory, adam.checkpoint) == (one.memory + 4 * one.weights, one.checkpoint + 4 * one.weights)
    assert count(TINY, 4, mixed=False, processes=2).memory == one.memory + 4 * one.weights


def test_fully_connected_layers_on_a_grid_count() -> None:
    plan = budget("bency2016", recipe="voc2012-vgg16")
    windows, cam, pooled = (count(training, 50, mixed=True) for training in plan.trainings)
    dense = 102_764_544 + 16_781_312  # F6 and F7
    assert windows.weights - 14_714_688 - dense == 4097 * 2048 + 2049 * 20
    assert windows.trained == windows.weights - 14_714_688
    assert cam.trained == 513 * 20
    assert pooled.weights == windows.weights
    assert pooled.operations > 4 * windows.operations  # up to 121 windows of an image
    assert pooled.memory > windows.memory


def test_an_evaluator_and_an_embedding_count() -> None:
    evaluator, _, second = (
        count(training, 16, mixed=True) for training in budget("xie2021", recipe="cub-resnet50").trainings
    )
    assert second.weights > evaluator.weights + 8_000_000
    assert second.trained < 2_000_000
    assert 2 / 3 * evaluator.operations < second.operations < evaluator.operations  # there, and back to the map
    kinds = budget("kou2021", recipe="cub-vgg16").trainings
    plain, embedded = (next(kind for kind in kinds if kind.what == what) for what in ("one head", "CoAug"))
    more = count(embedded, 48, mixed=True).operations - count(plain, 48, mixed=True).operations
    alexnet = 2 * 714_188_480 - 2 * 4096 * 1000  # there, of 224 px, without the last layer; and back to the pictures
    assert more == pytest.approx(3 * 2 * alexnet, rel=0.05)


def test_steps_are_really_taken() -> None:
    cost = count(TINY, 4, mixed=False)
    found = measure(TINY, cost, 4, device="cpu")
    assert (found.steps, found.images, found.device, found.memory) == (5, 4, "cpu", None)
    assert measure(TINY, cost, 8, device="cpu", parts=2).images == 4
    assert measure(TINY, replace(cost, operations=10**11), 8, device="cpu").images == 2  # an image takes long
    assert 0 < found.fastest <= found.median <= found.slowest


@pytest.mark.parametrize("key", ["kou2021", "xie2021", "barz2022", "bency2016", "side_by_side"])
def test_a_step_of_every_kind_can_be_taken(key: str) -> None:
    for training in budget(key, recipe="smoke").trainings:
        cost = count(training, 4, mixed=False)
        assert measure(training, cost, 4, device="cpu", precision="32-true").median > 0


def test_a_step_without_its_device_is_refused() -> None:
    with pytest.raises(ValueError, match="device 'cuda:9' is not there"):
        measure(TINY, count(TINY, 4, mixed=False), 4, device="cuda:9")
