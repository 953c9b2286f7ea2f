"""`localize` in single precision against torchcam with the same boxes, and pytorch-grad-cam's GradCAM without boxes."""

from __future__ import annotations

from statistics import median

from gpu_parts import DEVICE, TINY, row
from other_maps import bare, grad_cam_maps, random_network, smooth_images, torchcam_boxes
from turns import ratio, rounds

from wsolnb.inference.localize import localize

NETWORK, BATCH, SIDE, TOP, TURNS = ("resnet18", 2, 64, 2, 1) if TINY else ("resnet50", 64, 224, 5, 24)
net, images = random_network(NETWORK, DEVICE), smooth_images(BATCH, SIDE, DEVICE)


def cells_of(times: dict[str, list[float]]) -> dict[str, float]:
    """Images per second of both ways, and our time as a share of theirs, of neighbouring turns."""
    ours, theirs = (BATCH / median(times[name]) for name in ("ours", "theirs"))
    return {"images/s": ours, "images/s of the other": theirs, "share of its time": ratio(times, "ours", "theirs")}


def ours() -> object:
    return localize(net, images, classes=TOP)


with row("a forward pass alone") as cells:
    cells |= cells_of(rounds(TURNS, DEVICE, ours=ours, theirs=lambda: bare(net, images)))

with row("torchcam, CAM") as cells:
    from torchcam.methods import CAM

    with CAM(net, "layer4", "fc") as extractor:
        theirs = lambda: torchcam_boxes(extractor, net, images, TOP)  # noqa: E731
        cells |= cells_of(rounds(TURNS, DEVICE, ours=ours, theirs=theirs))

with row("grad-cam, GradCAM") as cells:
    from pytorch_grad_cam import GradCAM

    labels = bare(net, images).topk(TOP, dim=1).indices
    with GradCAM(net, [net.layer4]) as extractor:
        theirs = lambda: grad_cam_maps(extractor, images, labels)  # noqa: E731
        cells |= cells_of(rounds(min(TURNS, 5), DEVICE, ours=ours, theirs=theirs))
