"""What the loss over all pairs adds to a training step, beside the embedding network itself; a batch of 48."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

from wsolnb.models.backbones import backbone
from wsolnb.papers.kou2021.coaug import CoAug, Parts, coaug_loss
from wsolnb.papers.kou2021.losses import CSoALoss
from wsolnb.papers.kou2021.network import csoa, embedder

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
LIMIT = 0.05  # of a training step


def seconds(work: Callable[[], object], device: str, times: int = 3) -> float:
    """Median time, after one run to warm up."""
    measured = []
    for _ in range(times + 1):
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        measured.append(time.perf_counter() - started)
    return statistics.median(measured[1:])


@pytest.mark.bench
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scale", ["drawn", "photos"])
def test_all_pairs_cost_at_most_a_twentieth_of_a_step(
    device: str, scale: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if scale == "drawn":
        start, side = backbone("tiny"), 64
        net, embed = csoa(start, 12, inner="block2", pool=2, width=64), embedder(start)
    else:  # AlexNet as in the paper; mobilenet_v2, since VGG16 would hide any cost
        side = 224
        net = csoa(backbone("mobilenet_v2", stride=16), 200, inner="block4", width=256)
        embed = embedder(torchvision.models.alexnet())
    net, loss = net.to(device).train(), CSoALoss(alpha=1, coaug=CoAug(embed)).to(device)
    images, labels = torch.rand(48, 3, side, side, device=device), torch.arange(48, device=device) % 12
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        loss(net(images), labels).backward()
        optimizer.step()

    maps = torch.rand(48, 8, 8, device=device, requires_grad=True)
    masking = CoAug(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))  # all but the embedding
    with torch.no_grad():
        found = CoAug(embed).parts(maps, images)
    leaves = [each.clone().requires_grad_() for each in found]

    def pairs() -> None:
        torch.autograd.grad(coaug_loss(Parts(*leaves), labels), leaves)

    def masks() -> None:
        torch.autograd.grad(masking(maps, images, labels), maps)

    whole = seconds(step, device, times=3 if scale == "drawn" or device == "cuda" else 1)
    extra, shown = seconds(pairs, device, times=9), seconds(masks, device, times=5)
    with capsys.disabled():
        print(
            f"\n{scale} on {device}: a step takes {1000 * whole:.0f} ms; all pairs of 48 {extra / whole:.2%} of it, "
            f"masks and pairs without the embedding {shown / whole:.2%}"
        )
    assert extra < LIMIT * whole
    assert shown < LIMIT * whole
