"""CSoA's network (kou2021): two identical fully convolutional classifiers on two stages of one backbone.

    image -> ... -> inner stage -> head W_F -> maps S_F -> mean -> logits y_F
                       -> ... -> last stage -> head W_L -> maps S_L -> mean -> logits y_L

A head's output is its class maps, as in zhang2018 (ACoL), which the network without an inner stage is: the paper's
baseline. At test time the regions of both maps are merged (Eq. 13). Paper: https://arxiv.org/abs/1911.07160
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolnb.models.backbones import Backbone


class TwoMaps(NamedTuple):
    """Output of the network: class maps of both heads, and the images `(B, 3, H, W)` in [0, 1] for CoAug.

    `last` `S_L` is `(B, C, h, w)`; `inner` `S_F` has the same shape, and is None without an inner stage.
    """

    last: Tensor
    inner: Tensor | None
    images: Tensor

    def maps(self) -> list[Tensor]:
        """Class maps of all heads, the last stage's first."""
        return [self.last] if self.inner is None else [self.last, self.inner]

    def logits(self) -> list[Tensor]:
        """Class logits `(B, C)` of every head: the mean of each class's map (kou2021 Eq. 1)."""
        return [maps.mean(dim=(2, 3)) for maps in self.maps()]

    def head_scores(self) -> Tensor:
        """Class probabilities of every head, `(heads, B, C)`: the softmax of its logits."""
        return torch.stack([logits.float().softmax(dim=1) for logits in self.logits()])

    def scores(self) -> Tensor:
        """Class probabilities `(B, C)`, averaged over the heads."""
        return self.head_scores().mean(dim=0)


class CSoA(nn.Module):
    """A backbone with a head on its last stage and, optionally, an identical one on an inner stage.

    The paper's heads are behind blocks 4 and 5 of VGG16 (without its last pooling: `stride=16`) and behind `Mixed_6b`
    and `Mixed_6e` of Inception v3; stages 3 and 4 of a ResNet or 4 and 5 of MobileNetV2 at `stride=16` correspond to
    them. The inner loss compares both maps cell by cell, so they must have one size. Where the inner stage is finer, as
    always in the tiny net, `pool` shrinks its features by max pooling, like that behind VGG16's block.

    Args:
        inner: Name of the inner head's stage, the last stage allowed; None: one head, the baseline.
        pool: Side of the max pooling of the inner features, in cells.
        width: Channels of a head's two 3x3 convolutions; 1024 in the paper.

    Raises:
        ValueError: If the backbone has no such stage, or the maps would differ in size.

    Example:
        >>> from wsolnb.models.backbones import backbone
        >>> net = CSoA(backbone("tiny"), 12, inner="block2", pool=2, width=16)
        >>> [tuple(maps.shape) for maps in net(torch.rand(2, 3, 64, 96)).maps()]
        [(2, 12, 8, 12), (2, 12, 8, 12)]
    """

    def __init__(
        self, backbone: Backbone, classes: int, *, inner: str | None = None, pool: int = 1, width: int = 1024
    ) -> None:
        super().__init__()
        for name, value in (("classes", classes), ("pool", pool), ("width", width)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        self.backbone, self.inner, self.pool = backbone, inner, pool
        self.last = list(backbone.stages)[-1]
        if inner is not None and inner not in backbone.stages:
            raise ValueError(f"{backbone.name} has no stage {inner!r}; its stages are {', '.join(backbone.stages)}")
        if inner is not None and backbone.strides[inner] * pool != backbone.stride:
            raise ValueError(self._unequal(f"{backbone.strides[inner] * pool} pixels", f"{backbone.stride} pixels"))
        self.head = nn.ModuleDict({"last": _head(backbone.out_channels, width, classes)})
        if inner is not None:
            self.head["inner"] = _head(backbone.channels[inner], width, classes)

    def forward(self, images: Tensor) -> TwoMaps:
        """Class maps of RGB images in [0, 1], `(B, 3, H, W)`.

        Raises:
            ValueError: If the two maps differ in size for images of this size.
        """
        features = self.backbone.stage_features(images, self.last, *([] if self.inner is None else [self.inner]))
        last = self.head["last"](features[self.last])
        if self.inner is None:
            return TwoMaps(last, None, images)
        cells = (last.shape[2], last.shape[3])
        inner = features[self.inner]
        inner = F.adaptive_max_pool2d(inner, cells) if self.pool > 1 else inner
        if inner.shape[2:] != cells:
            raise ValueError(self._unequal(*("x".join(map(str, maps.shape[2:])) + " cells" for maps in (inner, last))))
        return TwoMaps(last, self.head["inner"](inner), images)

    def _unequal(self, inner: str, last: str) -> str:
        strides = self.backbone.strides
        equal = [name for name in strides if strides[name] == self.backbone.stride]
        factor, rest = divmod(self.backbone.stride, strides[str(self.inner)])
        hint = f", or pool={factor}" if not rest and factor != self.pool else ""
        what = "maps" if "cells" in inner else "cells"
        return (
            f"{self.backbone.name}: behind stage {self.inner!r} with pool={self.pool} {what} have {inner}, behind "
            f"{self.last!r} {last}, and the inner loss needs maps of one size: take one of the stages "
            f"{', '.join(equal)}, a backbone at another stride{hint}"
        )


def csoa(backbone: Backbone, classes: int, *, seed: int = 0, **options: object) -> CSoA:
    """Build `CSoA` on a copy of a backbone, with the same random weights for the same seed; options as for `CSoA`.

    The last head's weights do not depend on the inner head. The global random state is unchanged.

    Example:
        >>> from wsolnb.models.backbones import backbone
        >>> list(csoa(backbone("resnet18", stride=16), 12, inner="layer3", width=8).head)
        ['last', 'inner']
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CSoA(copy.deepcopy(backbone), classes, **options)  # type: ignore[arg-type]


def embedder(network: nn.Module) -> nn.Module:
    """CoAug's embedding `W_E` (kou2021 Eq. 8) made of a copy of a network: images in [0, 1] to vectors, frozen.

    The features of a `Backbone` are averaged over all cells. A classifier of torchvision loses its last linear layer
    (4096 numbers for AlexNet, the paper's choice) and gets a normalisation as for ImageNet.

    Raises:
        ValueError: If the network has no linear layer to remove.

    Example:
        >>> import torchvision
        >>> embedder(torchvision.models.alexnet())(torch.rand(2, 3, 64, 96)).shape
        torch.Size([2, 4096])
    """
    if isinstance(network, Backbone):
        whole = nn.Sequential(copy.deepcopy(network), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    else:
        network = copy.deepcopy(network)
        linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise ValueError(f"{type(network).__name__} has no linear layer to take off: give a Backbone of it instead")
        parent, _, child = linear[-1].rpartition(".")
        setattr(network.get_submodule(parent), child, nn.Identity())
        whole = nn.Sequential(_ImageNet(), network)
    return whole.requires_grad_(False).eval()


class _ImageNet(nn.Module):
    """Subtract ImageNet's mean colour and divide by its deviation."""

    def forward(self, images: Tensor) -> Tensor:
        mean, std = (images.new_tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        return (images - mean) / std


def _head(channels: int, width: int, classes: int) -> nn.Sequential:
    """Two 3x3 convolutions and one of 1x1 (kou2021 Sec. 4.1)."""
    wide = [nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)]
    for conv in wide:
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return nn.Sequential(wide[0], nn.ReLU(inplace=True), wide[1], nn.ReLU(inplace=True), nn.Conv2d(width, classes, 1))
