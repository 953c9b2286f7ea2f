"""Backbones split into named stages: from an image to the feature map that a localization method reads.

The networks are torchvision's or timm's without their pooling and classifier, some with the tails that papers give them
for larger maps, and a tiny one for the drawn world:

    image (B, 3, H, W) in [0, 1] -> stage 1 -> ... -> stage n -> features (B, D, h, w)

Normalisation is part of the backbone, because it belongs to the weights. A paper that reads or changes an inner stage
does so by name: `net.stages["layer3"]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
import torchvision
from torch import Tensor, nn

from wsolnb.models.checkpoint_file import SUFFIXES
from wsolnb.models.weights import load_into

Convention = Literal["torchvision", "tensorflow", "caffe"]
Stages = dict[str, nn.Sequential]

# Mean and deviation of an RGB image in [0, 1], and whether the network was trained on BGR.
_INPUTS: dict[str, tuple[tuple[float, ...], tuple[float, ...], bool]] = {
    "torchvision": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), False),
    "tensorflow": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), False),
    "caffe": ((104 / 255, 117 / 255, 123 / 255), (1 / 255, 1 / 255, 1 / 255), True),
}


class Backbone(nn.Module):
    """A fully convolutional network as a chain of named stages.

    Each stage takes the output of the one before; `channels` and `strides` hold the channels `D` and the image pixels
    per cell of their outputs. Images in [0, 1] are normalised by the `mean` and `std` of their channels, reversed first
    if `bgr`. With `freeze_norm`, batch normalisation keeps its running statistics also in training mode.

    Example:
        >>> net = backbone("tiny")
        >>> net.channels, net.strides
        ({'block1': 24, 'block2': 48, 'block3': 96}, {'block1': 2, 'block2': 4, 'block3': 8})
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        stages: Stages,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        bgr: bool = False,
        freeze_norm: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.bgr, self.freeze_norm = name, bgr, freeze_norm
        self.stages = nn.ModuleDict(stages)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.channels, self.strides = self._probe()

    @property
    def new_stages(self) -> tuple[str, ...]:
        """Stages that a paper put in the place of pretrained ones; weights from elsewhere leave them as they are."""
        return _NEW_STAGES.get(self.name, ())

    @property
    def out_channels(self) -> int:
        """Channels `D` of the feature map."""
        return list(self.channels.values())[-1]

    @property
    def stride(self) -> int:
        """Image pixels per cell of the feature map."""
        return list(self.strides.values())[-1]

    def normalise(self, images: Tensor) -> Tensor:
        """RGB images in [0, 1], `(B, 3, H, W)`, normalised as those that the weights were trained on."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            given = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(f"{self.name} takes float images (B, 3, H, W) in [0, 1], got {given}")
        return ((images.flip(1) if self.bgr else images) - self.mean) / self.std

    def stage_features(self, images: Tensor, *names: str) -> dict[str, Tensor]:
        """Feature maps after the named stages (by default all), in the network's order; later ones are not computed.

        A name that is no stage raises ValueError.
        """
        if unknown := [n for n in names if n not in self.stages]:
            raise ValueError(f"{self.name} has no stage {unknown[0]!r}; its stages are {', '.join(self.stages)}")
        requested = set(names or self.stages)
        features = self.normalise(images)
        result: dict[str, Tensor] = {}
        for name, stage in self.stages.items():
            if requested == result.keys():
                break
            features = stage(features)
            if name in requested:
                result[name] = features
        return result

    def forward(self, images: Tensor) -> Tensor:
        """Features `(B, D, h, w)` of RGB images in [0, 1], `(B, 3, H, W)`."""
        features = self.normalise(images)
        for stage in self.stages.values():
            features = stage(features)
        return features

    def train(self, mode: bool = True) -> Backbone:
        """Set training mode; frozen batch normalisation stays in evaluation mode."""
        super().train(mode)
        if self.freeze_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    @torch.no_grad()
    def _probe(self) -> tuple[dict[str, int], dict[str, int]]:
        was_training, side = self.training, 128
        self.eval()
        features = self.stage_features(torch.zeros(1, 3, side, side))
        self.train(was_training)
        strides = {n: 2 ** round(math.log2(side / f.shape[2])) for n, f in features.items()}
        return {n: f.shape[1] for n, f in features.items()}, strides


def backbone(
    name: str,
    *,
    weights: str | None = None,
    stride: int | None = None,
    convention: Convention = "torchvision",
    freeze_norm: bool = False,
) -> Backbone:
    """Build a backbone, cut before its pooling, with features at the requested stride.

    Half the network's native stride is reached as in the field's evaluation code: the last down-sampling convolutions
    get stride 1, the last pooling is left out (VGG16 without `pool5`).

    Args:
        name: One of `BACKBONES`.
        weights: None (random), a name that torchvision (`IMAGENET1K_V1`, `DEFAULT`) or timm has for its network's
            weights, or the path of a `.safetensors`, `.pth` or `.pt` file with that library's keys.
        stride: Image pixels per cell: native (None), 32 or 16 (tiny: 8 or 16).
        convention: Input that the weights expect. `torchvision`: ImageNet mean and deviation. `tensorflow`: RGB in
            [-1, 1], stride-2 3x3 convolutions padded right and below only ("SAME"). `caffe`: BGR, 0 to 255, minus
            (104, 117, 123).
        freeze_norm: Keep the running statistics of batch normalisation, for weights with folded statistics and
            for small training sets.

    Raises:
        ValueError: For an unknown name, stride or convention, or weights that do not fit (the keys are named).
        FileNotFoundError: If `weights` is a path without a file.

    Example:
        >>> net = backbone("resnet18", stride=16)
        >>> net(torch.rand(2, 3, 64, 96)).shape
        torch.Size([2, 512, 4, 6])
        >>> list(net.stages)
        ['stem', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    if name not in _BUILDERS:
        close = get_close_matches(name, _BUILDERS, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"unknown backbone {name!r}{hint}; known: {', '.join(_BUILDERS)}")
    if convention not in _INPUTS:
        raise ValueError(f"unknown convention {convention!r}; known: {', '.join(_INPUTS)}")
    mean, std, bgr = _INPUTS[convention]
    if name.startswith(("googlenet", "inception")):  # torchvision's own undo ImageNet's mean and deviation
        mean, std, bgr = _INPUTS["tensorflow"]
    native, build = _BUILDERS[name]
    allowed = (native, native // 2) if native == 32 else (native, native * 2)
    if stride not in (None, *allowed):
        raise ValueError(f"{name} comes at stride {allowed[0]} or {allowed[1]}, not {stride}")
    stages = build(weights)
    if stride == native // 2:
        _undo_last_stride(stages)
    elif stride == native * 2:
        last = next(reversed(stages))
        stages[last].append(nn.MaxPool2d(3, 2, padding=1))
    if convention == "tensorflow":
        _pad_like_tensorflow(stages)
    return Backbone(name, stages, mean=mean, std=std, bgr=bgr, freeze_norm=freeze_norm)


def _undo_last_stride(stages: Stages) -> None:
    for stage in reversed(stages.values()):
        strided = False
        for parent in list(stage.modules()):
            for key, child in parent.named_children():
                if isinstance(child, nn.Conv2d) and child.stride == (2, 2):
                    child.stride, strided = (1, 1), True
                elif isinstance(child, nn.MaxPool2d) and child.stride == 2:
                    setattr(parent, key, nn.Identity())
                    strided = True
        if strided:
            return


def _pad_like_tensorflow(stages: Stages) -> None:
    for stage in stages.values():
        for parent in list(stage.modules()):
            for key, child in parent.named_children():
                if isinstance(child, nn.Conv2d) and child.kernel_size == (3, 3) and child.stride == (2, 2):
                    child.padding = (0, 0)
                    setattr(parent, key, nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), child))


def _torchvision(name: str, weights: str | None, heads: tuple[str, ...], **options: bool) -> Any:
    net: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    load_into(net, name, weights, heads)
    return net


def _resnet(name: str, weights: str | None) -> Stages:
    net = _torchvision(name, weights, ("fc.",))
    return _with_stem(net, nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool))


def _with_stem(net: Any, stem: nn.Sequential) -> Stages:
    return {"stem": stem, **{f"layer{i}": getattr(net, f"layer{i}") for i in (1, 2, 3, 4)}}


def _features(name: str, ends: tuple[int, ...], weights: str | None) -> Stages:
    """Split a network whose `features` are one chain; block `i` ends before layer `ends[i]`."""
    layers = _torchvision(name, weights, ("classifier.",)).features
    return {f"block{i}": layers[a:b] for i, (a, b) in enumerate(pairwise((0, *ends)), start=1)}


def _googlenet(weights: str | None) -> Stages:
    net = _torchvision("googlenet", weights, ("fc.", "aux1.", "aux2."), aux_logits=False, init_weights=weights is None)
    return {
        "stem": nn.Sequential(net.conv1, net.maxpool1, net.conv2, net.conv3, net.maxpool2),
        "inception3": nn.Sequential(net.inception3a, net.inception3b),
        "inception4": nn.Sequential(net.maxpool3, *(getattr(net, f"inception4{c}") for c in "abcde")),
        "inception5": nn.Sequential(net.maxpool4, net.inception5a, net.inception5b),
    }


def _vgg16_gap(weights: str | None) -> Stages:
    """VGG16 with a convolution 512 -> 1024 in place of its last pooling and dense layers (bae2020 Sec. 4.1)."""
    return _features("vgg16", (5, 10, 17, 24, 30), weights) | {"conv6": _conv_relu(512, 1024)}


def _googlenet_gap(weights: str | None) -> Stages:
    """GoogLeNet with two convolutions in place of its last pooling and inception block (bae2020 Sec. 4.1)."""
    stages = _googlenet(weights)
    del stages["inception5"]
    return stages | {"conv5": nn.Sequential(*_conv_relu(832, 1024), *_conv_relu(1024, 1024))}


def _inception_v3(weights: str | None) -> Stages:
    """Inception v3 up to `Mixed_6e`, split behind `Mixed_6b`: maps of 12x12 cells for 224 pixels."""
    options = {"aux_logits": False, "init_weights": weights is None}
    net = _torchvision("inception_v3", weights, ("fc.", "AuxLogits."), **options)
    stem = [name for name, _ in net.named_children()][:7]  # up to the second pooling
    stages: dict[str, Sequence[str]] = {"stem": stem, "Mixed_5d": ("Mixed_5b", "Mixed_5c", "Mixed_5d")}
    stages |= {"Mixed_6b": ("Mixed_6a", "Mixed_6b"), "Mixed_6e": ("Mixed_6c", "Mixed_6d", "Mixed_6e")}
    return {name: nn.Sequential(*(getattr(net, part) for part in parts)) for name, parts in stages.items()}


def _resnet50_se(weights: str | None) -> Stages:
    """ResNet-50 with a squeeze-and-excitation block in every residual block: timm's `seresnet50`."""
    net = _timm("resnet50_se", "seresnet50", weights, ("fc.",))
    return _with_stem(net, nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool))


def _mobilenet_v1(weights: str | None) -> Stages:
    """MobileNetV1, width 1: timm's `mobilenetv1_100`."""
    net = _timm("mobilenet_v1", "mobilenetv1_100", weights, ("classifier.",))
    stem = nn.Sequential(net.conv_stem, net.bn1)
    return {"stem": stem, **{f"block{i}": block for i, block in enumerate(net.blocks, start=1)}}


def _timm(ours: str, name: str, weights: str | None, heads: tuple[str, ...]) -> Any:
    import timm  # takes half a second, which the other backbones are spared

    net = timm.create_model(name, pretrained=False)
    if weights is None or weights.endswith(SUFFIXES) or "/" in weights:
        load_into(net, name, weights, heads)
        return net
    names = [tagged.partition(".")[2] for tagged in timm.list_pretrained(name)]
    if weights not in names:
        raise ValueError(f"{ours} (timm's {name}) has no weights {weights!r}; known: {', '.join(names)}, or a file")
    return timm.create_model(f"{name}.{weights}", pretrained=True)


def _tiny(weights: str | None) -> Stages:
    """Six 3x3 convolutions in three blocks with 0.2 million weights, enough for the drawn world."""
    stages = {
        f"block{i}": nn.Sequential(*_conv_norm_relu(a, b, stride=2), *_conv_norm_relu(b, b, stride=1))
        for i, (a, b) in enumerate(pairwise((3, 24, 48, 96)), start=1)
    }
    load_into(nn.ModuleDict(stages), "tiny", weights, ())
    return stages


def _tiny_gap(weights: str | None) -> Stages:
    """The tiny network with a last convolution without normalisation, as in bae2020's networks."""
    stages = _tiny(None)
    stages["block3"] = nn.Sequential(*stages["block3"][:3], *_conv_relu(96, 96, "fan_in"))
    load_into(nn.ModuleDict(stages), "tiny_gap", weights, ())
    return stages


def _conv_norm_relu(inputs: int, outputs: int, *, stride: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def _conv_relu(inputs: int, outputs: int, mode: Literal["fan_in", "fan_out"] = "fan_out") -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_normal_(conv.weight, mode=mode, nonlinearity="relu")
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return nn.Sequential(conv, nn.ReLU(inplace=True))


_NEW_STAGES: dict[str, tuple[str, ...]] = {"vgg16_gap": ("conv6",), "googlenet_gap": ("conv5",)}

_BUILDERS: dict[str, tuple[int, Callable[[str | None], Stages]]] = {
    "tiny": (8, _tiny),
    "tiny_gap": (8, _tiny_gap),
    "resnet18": (32, partial(_resnet, "resnet18")),
    "resnet50": (32, partial(_resnet, "resnet50")),
    "mobilenet_v2": (32, partial(_features, "mobilenet_v2", (2, 4, 7, 14, 19))),
    "vgg16": (32, partial(_features, "vgg16", (5, 10, 17, 24, 31))),
    "googlenet": (32, _googlenet),
    "squeezenet1_0": (16, partial(_features, "squeezenet1_0", (2, 6, 11, 13))),
    "alexnet": (32, partial(_features, "alexnet", (3, 6, 8, 10, 13))),  # with its poolings
    "vgg16_gap": (16, _vgg16_gap),
    "googlenet_gap": (16, _googlenet_gap),
    "inception_v3": (16, _inception_v3),
    "resnet50_se": (32, _resnet50_se),
    "mobilenet_v1": (32, _mobilenet_v1),
}
"""The native stride of each network, and the function that builds its stages from the name or file of its weights."""
BACKBONES = tuple(_BUILDERS)
