"""`localize` against a bare forward pass, GradCAM of pytorch-grad-cam and CAM of torchcam: ResNet-50, batches of 8."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from other_maps import bare, grad_cam_maps, random_network, smooth_images, torchcam_boxes, torchcam_maps
from scipy.stats import binomtest
from torch import Tensor
from turns import ratio, rounds

from wsolnb.boxes.quantise import minmax_normalise
from wsolnb.inference.localize import localize

pytestmark = pytest.mark.bench
SIDE, BATCH, TOP = 224, 8, 5


@pytest.fixture(scope="module")
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def net(device: str) -> torch.nn.Module:
    return random_network("resnet50", device)


@pytest.fixture(scope="module")
def images(device: str) -> Tensor:
    return smooth_images(BATCH, SIDE, device)


def test_maps_are_those_of_torchcam(net: torch.nn.Module, images: Tensor) -> None:
    methods = pytest.importorskip("torchcam.methods", reason="pip install torchcam")
    with methods.CAM(net, "layer4", "fc") as extractor:
        theirs, labels = torchcam_maps(extractor, net, images, TOP)
    found = localize(net, images, classes=TOP)
    ours = torch.stack([each["maps"] for each in found])
    assert torch.equal(torch.stack([each["labels"] for each in found]), labels)
    ours = minmax_normalise(ours.flatten(0, 1)).unflatten(0, (BATCH, TOP))
    print(f"largest difference of normalised maps: {float((ours - theirs).abs().max()):.1e}")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_five_classes_cost_little_more_than_the_forward_pass(
    net: torch.nn.Module, images: Tensor, device: str, record_property: Callable[[str, object], None]
) -> None:
    times = rounds(12, device, bare=lambda: bare(net, images), ours=lambda: localize(net, images, classes=TOP))
    cost = ratio(times, "ours", "bare")
    record_property("ratio", round(cost, 3))
    print(f"{device}: maps and boxes of {TOP} classes {cost:.3f} forward passes")
    assert cost <= 1.15


class Given(torch.nn.Module):
    """ResNet-50 from its last features on, which are made from the images by next to nothing."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.layer4 = torch.nn.Conv2d(3, 2048, 1)
        self.avgpool, self.fc = net.avgpool, net.fc

    def forward(self, images: Tensor) -> Tensor:
        features = self.layer4(torch.nn.functional.adaptive_avg_pool2d(images, 7))
        scores: Tensor = self.fc(self.avgpool(features).flatten(1))
        return scores


@pytest.mark.parametrize("whole", [False, True], ids=["given the features", "with the forward pass"])
def test_never_slower_than_torchcam_with_the_same_boxes(
    whole: bool, net: torch.nn.Module, images: Tensor, device: str, record_property: Callable[[str, object], None]
) -> None:
    """What is done beside the forward pass takes less time; with it, the difference is small beside the noise.

    So given the features the ratio counts; with the forward pass, whether ours takes longer in more turns than chance
    allows for two equal ways (one in a hundred times).
    """
    methods = pytest.importorskip("torchcam.methods", reason="pip install torchcam")
    read, turns = (net, 24) if whole else (Given(net).eval().to(device), 60)
    with methods.CAM(read, "layer4", "fc") as extractor:
        times = rounds(
            turns,
            device,
            ours=lambda: localize(read, images, classes=TOP),
            theirs=lambda: torchcam_boxes(extractor, read, images, TOP),
        )
    cost = ratio(times, "ours", "theirs")
    slower = sum(a > b for a, b in zip(times["ours"], times["theirs"], strict=True))
    record_property("ratio", round(cost, 3))
    print(f"{device}: {cost:.3f} of torchcam's CAM with the same boxes, longer in {slower} of {turns} turns")
    assert binomtest(slower, turns, alternative="greater").pvalue > 0.01 if whole else cost <= 1


def test_many_times_faster_than_grad_cam(
    net: torch.nn.Module, images: Tensor, device: str, record_property: Callable[[str, object], None]
) -> None:
    package = pytest.importorskip("pytorch_grad_cam", reason="pip install grad-cam")
    labels = bare(net, images).topk(TOP, dim=1).indices
    with package.GradCAM(net, [net.layer4]) as extractor:
        times = rounds(
            3,
            device,
            bare=lambda: bare(net, images),
            ours=lambda: localize(net, images, classes=TOP),
            theirs=lambda: grad_cam_maps(extractor, images, labels),
        )
    net.zero_grad()
    gain = ratio(times, "theirs", "ours")
    record_property("ratio", round(gain, 1))
    print(
        f"{device}: GradCAM {ratio(times, 'theirs', 'bare'):.1f} forward passes, {gain:.1f} of ours, boxes not counted"
    )
    assert gain >= 8
