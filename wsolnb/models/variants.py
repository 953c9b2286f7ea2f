"""Backbones as papers on localization use or change them: other tails for larger maps, and two networks from timm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torchvision
from torch import nn

from wsolnb.models.weights import SUFFIXES, load_into

Stages = dict[str, nn.Sequential]


def _vgg16_gap(weights: str | None) -> Stages:
    """VGG16 without its last pooling and its dense layers, and a convolution 512 -> 1024 instead (bae2020 Sec. 4.1)."""
    net = torchvision.models.vgg16(weights=None)
    load_into(net, "vgg16", weights, ("classifier.",))
    cuts = ((0, 5), (5, 10), (10, 17), (17, 24), (24, 30))
    blocks = {f"block{i}": net.features[a:b] for i, (a, b) in enumerate(cuts, start=1)}
    return blocks | {"conv6": _conv_relu(512, 1024)}


def _alexnet(weights: str | None) -> Stages:
    """AlexNet's convolutions with their poolings: 6x6 cells for an image of 224 px (bency2016 Sec. 3.3)."""
    net = torchvision.models.alexnet(weights=None)
    load_into(net, "alexnet", weights, ("classifier.",))
    cuts = ((0, 3), (3, 6), (6, 8), (8, 10), (10, 13))
    return {f"block{i}": net.features[a:b] for i, (a, b) in enumerate(cuts, start=1)}


def _googlenet_gap(weights: str | None) -> Stages:
    """GoogLeNet with two convolutions for its last inception block and the pooling before it (bae2020 Sec. 4.1)."""
    net = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=weights is None)
    load_into(net, "googlenet", weights, ("fc.", "aux1.", "aux2."))
    return {
        "stem": nn.Sequential(net.conv1, net.maxpool1, net.conv2, net.conv3, net.maxpool2),
        "inception3": nn.Sequential(net.inception3a, net.inception3b),
        "inception4": nn.Sequential(net.maxpool3, *(getattr(net, f"inception4{c}") for c in "abcde")),
        "conv5": nn.Sequential(*_conv_relu(832, 1024), *_conv_relu(1024, 1024)),
    }


def _inception_v3(weights: str | None) -> Stages:
    """Inception v3 up to `Mixed_6e`, cut where kou2021's heads are (Sec. 4.1); maps of 12x12 cells for 224 pixels."""
    net = torchvision.models.inception_v3(weights=None, aux_logits=False, init_weights=weights is None)
    load_into(net, "inception_v3", weights, ("fc.", "AuxLogits."))
    stem = [name for name, _ in net.named_children()][:7]  # up to the second pooling
    stages: dict[str, Sequence[str]] = {"stem": stem, "Mixed_5d": ("Mixed_5b", "Mixed_5c", "Mixed_5d")}
    stages |= {"Mixed_6b": ("Mixed_6a", "Mixed_6b"), "Mixed_6e": ("Mixed_6c", "Mixed_6d", "Mixed_6e")}
    return {name: nn.Sequential(*(getattr(net, part) for part in parts)) for name, parts in stages.items()}


def _resnet50_se(weights: str | None) -> Stages:
    """ResNet-50 with a squeeze-and-excitation block in every residual block: timm's `seresnet50`."""
    net = _timm("seresnet50", weights, ("fc.",))
    stem = nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool)
    return {"stem": stem, **{f"layer{i}": getattr(net, f"layer{i}") for i in (1, 2, 3, 4)}}


def _mobilenet_v1(weights: str | None) -> Stages:
    """MobileNetV1, width 1: timm's `mobilenetv1_100`."""
    net = _timm("mobilenetv1_100", weights, ("classifier.",))
    stem = nn.Sequential(net.conv_stem, net.bn1)
    return {"stem": stem, **{f"block{i}": block for i, block in enumerate(net.blocks, start=1)}}


def _timm(name: str, weights: str | None, heads: tuple[str, ...]) -> Any:
    import timm  # half a second that the other backbones do not need

    net = timm.create_model(name, pretrained=False)
    if weights is None or weights.endswith(SUFFIXES) or "/" in weights:
        load_into(net, name, weights, heads)
        return net
    known = [tagged.partition(".")[2] for tagged in timm.list_pretrained(name)]
    if weights not in known:
        raise ValueError(f"{name} has no weights {weights!r}; known: {', '.join(known)}, or a file")
    return timm.create_model(f"{name}.{weights}", pretrained=True)


def _conv_relu(inputs: int, outputs: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return nn.Sequential(conv, nn.ReLU(inplace=True))


VARIANTS: dict[str, tuple[int, Callable[[str | None], Stages]]] = {
    "alexnet": (32, _alexnet),
    "vgg16_gap": (16, _vgg16_gap),
    "googlenet_gap": (16, _googlenet_gap),
    "inception_v3": (16, _inception_v3),
    "resnet50_se": (32, _resnet50_se),
    "mobilenet_v1": (32, _mobilenet_v1),
}
"""The network's own stride, and what builds its stages from the name or file of its weights."""
