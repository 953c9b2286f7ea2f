"""A GPU gives what a processor gives: maps, a training step, quantised maps and sweeps, boxes, beam search.

Every test also runs on the processor, in single precision against double, so that what a GPU runs is known to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from wsolnb.boxes import BoxRule
from wsolnb.boxes.quantise import cubehelix_grey, minmax_normalise, percentile, quantise
from wsolnb.boxes.threshold_sweep import levels, sweep_boxes, sweep_ious
from wsolnb.losses import CrossEntropy
from wsolnb.models.cam import class_activation_maps, classifier
from wsolnb.papers.barz2022.losses import CosineLoss
from wsolnb.papers.barz2022.maps import dense_class_embeddings
from wsolnb.papers.bency2016.network import grid_classifier
from wsolnb.papers.bency2016.search import BeamSearch
from wsolnb.train import Plan, train

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where to run, without the shortened products (TF32) that a GPU takes for single precision."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path))
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield request.param


def same(found: Tensor, expected: Tensor, share: float) -> None:
    """Equal up to a share of the largest value."""
    bound = share * float(expected.abs().max())
    torch.testing.assert_close(found.double().cpu(), expected.double().cpu(), rtol=0, atol=bound)


def side_of(device: str, network: str) -> int:
    return 224 if device == "cuda" and network != "tiny" else 64


def smooth(count: int, side: int) -> Tensor:
    """Maps `(count, side, side)` in [0, 1] as networks give them, enlarged."""
    coarse = torch.rand(count, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    return minmax_normalise(nn.functional.interpolate(coarse, (side, side), mode="bicubic")[:, 0])


@pytest.mark.parametrize("network", ["tiny", "resnet50", "vgg16", "mobilenet_v2"])
@torch.inference_mode()
def test_maps(device: str, network: str) -> None:
    net = classifier(network, 7, seed=1).eval()
    images = torch.rand(2, 3, side_of(device, network), side_of(device, network) + 32)
    reference = net.double()
    features = reference.features(images.double())
    weight, bias = reference.head.weight, reference.head.bias
    expected = class_activation_maps(features, weight, bias), dense_class_embeddings(features, weight, bias)
    net = net.float().to(device, memory_format=torch.channels_last)
    features = net.features(images.to(device))
    weight, bias = net.head.weight, net.head.bias
    same(class_activation_maps(features, weight, bias), expected[0], 1e-3)
    same(dense_class_embeddings(features, weight, bias), expected[1], 1e-3)
    assert features.device.type == device


@pytest.mark.parametrize("objective", [CrossEntropy(), CosineLoss(torch.eye(5))], ids=["cross-entropy", "cosine"])
def test_a_training_step(device: str, objective: Any) -> None:
    images = torch.randint(256, (16, 3, 48, 64), dtype=torch.uint8)
    data, plan = TensorDataset(images, torch.arange(16) % 5), Plan(1, 8, lr=0.1, clip=1.0, weight_decay=0.01)
    nets, runs = {}, {}
    for precision, where in (("64-true", "cpu"), ("32-true", device), ("bf16-mixed", device)):
        net = classifier("tiny", 5, seed=0)
        runs[precision] = train(net, data, objective.cpu(), plan, device=where, precision=precision).history[0]["loss"]
        nets[precision] = torch.cat([p.detach().flatten().double().cpu() for p in net.parameters()])
    start = torch.cat([p.detach().flatten().double() for p in classifier("tiny", 5, seed=0).parameters()])
    assert runs["32-true"] == pytest.approx(runs["64-true"], rel=1e-4)
    assert runs["bf16-mixed"] == pytest.approx(runs["64-true"], rel=0.05)
    moved = nets["64-true"] - start
    assert (nets["32-true"] - nets["64-true"]).norm() < 0.005 * moved.norm()
    assert (nets["bf16-mixed"] - nets["64-true"]).norm() < 0.3 * moved.norm()


def test_quantised_maps_and_sweeps(device: str) -> None:
    maps = smooth(12, 61)
    boxes = [torch.tensor([[5.0, 8.0, 40.0, 50.0]])] * 12
    there = maps.to(device)
    same(minmax_normalise(3 * there + 1), minmax_normalise(3 * maps + 1), 1e-6)
    images = quantise(there)
    assert images.device.type == device
    assert torch.equal(images.cpu(), quantise(maps))
    assert torch.equal(cubehelix_grey(there).cpu(), cubehelix_grey(maps))
    assert torch.equal(percentile(images, 90), percentile(quantise(maps), 90))
    for name in ("wsoleval", "wsoleval_multi"):
        rule = BoxRule.preset(name)
        assert torch.equal(sweep_ious(images, boxes, rule), sweep_ious(quantise(maps), boxes, rule))
        assert torch.equal(levels(images, [0.1, 0.5], rule), levels(quantise(maps), [0.1, 0.5], rule))
    swept = sweep_boxes(images, BoxRule.preset("wsoleval"))
    assert torch.equal(swept, sweep_boxes(quantise(maps), BoxRule.preset("wsoleval")))


@pytest.mark.parametrize("name", ["cam", "dcm", "wsoleval", "rethinking", "ornet", "adl"])
def test_boxes(device: str, name: str) -> None:
    maps = smooth(40, 14).view(20, 2, 14, 14)
    rule, size = BoxRule.preset(name), (96, 128)
    found, expected = rule(maps.to(device), size), rule(maps, size)
    assert found.device.type == device
    off = (found.cpu() - expected).abs().amax(dim=2)
    assert (off <= 1).double().mean() >= 0.95  # a pixel on the threshold can fall to either side


def test_beam_search(device: str) -> None:
    def softmax(outputs: Tensor) -> Tensor:
        return outputs.softmax(dim=1)

    if device == "cuda":
        net, count = grid_classifier("vgg16", 3, seed=0).eval(), 1
    else:
        net, count = grid_classifier("tiny", 3, grid=6, hidden=(32,), adapt=16, seed=0).eval(), 2
    images = torch.rand(count, 3, net.side + 32, net.side + 32)
    search = BeamSearch(width=2, depth=3)
    expected = search(net.double(), images.double(), softmax)
    found = search(net.float().to(device), images.to(device), softmax)
    assert found.pairs.device.type == device
    assert torch.equal(found.pairs.cpu(), expected.pairs)
    assert len(found.levels) == len(expected.levels) == 4
    same(found.scores, expected.scores, 1e-3)
    klass = expected.pairs[:, 1]
    for level in zip(found.levels, expected.levels, strict=True):
        ours, theirs = (each.scores.cpu()[each.kept[:, 0].cpu(), klass] for each in level)
        same(ours, theirs, 1e-2)  # equally good windows can change places, their scores cannot
