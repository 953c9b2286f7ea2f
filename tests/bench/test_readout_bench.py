"""`localize` against a bare forward pass, GradCAM of pytorch-grad-cam and CAM of torchcam: ResNet-50, batches of 8."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from scipy.stats import binomtest
from torch import Tensor
from turns import ratio, rounds

from wsolnb.boxes.quantise import minmax_normalise
from wsolnb.inference.localize import RULES, localize

pytestmark = pytest.mark.bench
SIDE, BATCH, TOP = 224, 8, 5


@pytest.fixture(scope="module")
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def net(device: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None).eval()
    for each in model.modules():
        if isinstance(each, torch.nn.BatchNorm2d):  # features of random weights stay of order one this way
            each.running_mean.normal_(0, 0.1)
            each.running_var.uniform_(0.5, 2)
    return model.to(device)


@pytest.fixture(scope="module")
def images(device: str) -> Tensor:
    """Smooth images, normalised, which differ from each other."""
    coarse = torch.randn(BATCH, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").to(device)


def bare(net: torch.nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        output: Tensor = net(images)
        return output


def torchcam_maps(extractor: object, net: torch.nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised maps `(B, K, h, w)` of the five best classes, and these, as its documentation says to get them."""
    labels = bare(net, images).topk(TOP, dim=1).indices
    maps = [extractor(rank.tolist(), normalized=True)[0] for rank in labels.T]  # type: ignore[operator]
    return torch.stack(maps, dim=1), labels


def torchcam_boxes(extractor: object, net: torch.nn.Module, images: Tensor) -> Tensor:
    return RULES["cam"](torchcam_maps(extractor, net, images)[0], (SIDE, SIDE))


def test_maps_are_those_of_torchcam(net: torch.nn.Module, images: Tensor) -> None:
    methods = pytest.importorskip("torchcam.methods", reason="pip install torchcam")
    with methods.CAM(net, "layer4", "fc") as extractor:
        theirs, labels = torchcam_maps(extractor, net, images)
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
            theirs=lambda: torchcam_boxes(extractor, read, images),
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
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    labels = bare(net, images).topk(TOP, dim=1).indices
    with package.GradCAM(net, [net.layer4]) as extractor:

        def theirs() -> None:
            for rank in labels.T.tolist():
                extractor(images, [ClassifierOutputTarget(label) for label in rank])

        times = rounds(
            3, device, bare=lambda: bare(net, images), ours=lambda: localize(net, images, classes=TOP), theirs=theirs
        )
    net.zero_grad()
    gain = ratio(times, "theirs", "ours")
    record_property("ratio", round(gain, 1))
    print(
        f"{device}: GradCAM {ratio(times, 'theirs', 'bare'):.1f} forward passes, {gain:.1f} of ours, boxes not counted"
    )
    assert gain >= 8
