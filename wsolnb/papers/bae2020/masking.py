"""Masking while training: hide parts of the image or the features, so that a classifier relies on more of the object.

Both methods are modules without weights, and the identity in evaluation mode. They are inserted between the stages of a
copy of a backbone: `hide_and_seek` before the first stage, `attention_dropout` behind stages or blocks of a stage.

Paper: https://doi.org/10.1007/978-3-030-58555-6_37
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wsolnb._utils.whole_batch import draw, draw_rows
from wsolnb.models.backbones import Backbone

ADL_POSITIONS: dict[str, tuple[str, ...]] = {
    "tiny": ("block2", "block3"),
    "tiny_gap": ("block2", "block3"),
    "vgg16": ("block3", "block4", "block5"),
    "vgg16_gap": ("block3", "block4", "block5"),
    "resnet18": ("layer3.0", "layer4.0", "layer4"),
    "resnet50": ("layer3.0", "layer4.0", "layer4"),
    "resnet50_se": ("layer3.0", "layer4.0", "layer4"),
    "mobilenet_v1": ("block4.0", "block4", "block5"),
    "mobilenet_v2": ("block3", "block4", "block5"),
    "googlenet": ("inception3", "inception4", "inception5"),
    "googlenet_gap": ("inception3", "inception4", "conv5"),
}
"""Default positions of `attention_dropout`: as published for VGG16 and ResNet-50, the corresponding ones elsewhere."""


class HideAndSeek(nn.Module):
    """Hide-and-Seek (singh2017, HaS in bae2020): cells of a grid are hidden at random, drawn for each image.

    Each `patch`, 32 pixels on a side in the HaS-32 of bae2020, is hidden with probability `rate`. Images are normalised
    already: hidden pixels become 0, the mean colour. Patches at the right and lower border are cropped where the
    image's side is no multiple of theirs.

    Raises:
        ValueError: If the patch has no pixel or (in training) exceeds an image, or the rate is outside of [0, 1].

    Example:
        >>> hidden = HideAndSeek(2, rate=1.0)(torch.ones(1, 3, 4, 6))
        >>> hidden.sum()
        tensor(0.)
    """

    def __init__(self, patch: int = 32, rate: float = 0.5) -> None:
        super().__init__()
        if patch < 1:
            raise ValueError(f"a patch needs at least one pixel, got {patch}")
        self.patch, self.rate = patch, _probability("rate", rate)

    def forward(self, images: Tensor) -> Tensor:
        """Hide patches of images `(B, 3, H, W)`; the identity in evaluation mode."""
        if not self.training:
            return images
        height, width = images.shape[-2:]
        if self.patch > min(height, width):
            raise ValueError(f"patches of {self.patch} pixels do not fit into images of {width} x {height} pixels")
        rows, columns = -(-height // self.patch), -(-width // self.patch)
        hidden = draw_rows(len(images), lambda n: torch.rand(n, 1, rows, columns, device=images.device)) < self.rate
        hidden = hidden.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)
        return images.masked_fill(hidden[..., :height, :width], 0)

    def extra_repr(self) -> str:
        """The settings, for `repr`."""
        return f"patch={self.patch}, rate={self.rate}"


class AttentionDropout(nn.Module):
    """Attention-based dropout layer (choe2019, ADL in bae2020) between two parts of a network.

    Attention is the mean over the channels. One draw per batch: with probability `drop_rate`, the cells at or above
    `threshold` times the image's largest attention are set to 0 (drop mask); otherwise all cells are weighted by
    `sigmoid(attention)` (importance map), through which gradients flow.

    Raises:
        ValueError: If either is outside of [0, 1].

    Example:
        >>> features = torch.tensor([[[[1.0, 4.0, 2.0]]]])
        >>> AttentionDropout(drop_rate=1.0, threshold=0.8)(features)
        tensor([[[[1., 0., 2.]]]])
    """

    def __init__(self, drop_rate: float = 0.75, threshold: float = 0.8) -> None:
        super().__init__()
        self.drop_rate, self.threshold = _probability("drop_rate", drop_rate), _probability("threshold", threshold)

    def forward(self, features: Tensor) -> Tensor:
        """Mask features `(B, D, h, w)`; the identity in evaluation mode."""
        if not self.training:
            return features
        attention = features.mean(dim=1, keepdim=True)
        kept = attention < self.threshold * attention.amax(dim=(2, 3), keepdim=True)
        drop = draw(lambda: torch.rand((), device=features.device)) < self.drop_rate
        return features * torch.where(drop, kept.to(features.dtype), attention.sigmoid())

    def extra_repr(self) -> str:
        """The settings, for `repr`."""
        return f"drop_rate={self.drop_rate}, threshold={self.threshold}"


def hide_and_seek(backbone: Backbone, patch: int = 32, rate: float = 0.5) -> Backbone:
    """A copy of a backbone with `HideAndSeek` between the normalisation and the first stage.

    Example:
        >>> from wsolnb.models.backbones import backbone
        >>> net = hide_and_seek(backbone("tiny"), patch=16)
        >>> net.stages["block1"][0]
        HideAndSeek(patch=16, rate=0.5)
    """
    net = copy.deepcopy(backbone)
    _insert(net, next(iter(net.stages)), 0, HideAndSeek(patch, rate))
    return net.train(backbone.training)


def attention_dropout(
    backbone: Backbone, positions: Sequence[str] | None = None, *, drop_rate: float = 0.75, threshold: float = 0.8
) -> Backbone:
    """A copy of a backbone with `AttentionDropout` at some positions.

    A position is a `stage` (behind it) or `stage.index` (behind that block of it, from 0); default: `ADL_POSITIONS`. In
    the authors' code, `drop_rate` is 0.75 and `threshold` is 0.8 for VGG16, 0.9 for ResNet-50.

    Raises:
        ValueError: If the network lacks a position, or has no default ones; its positions are listed.

    Example:
        >>> from wsolnb.models.backbones import backbone
        >>> attention_dropout(backbone("tiny"), ["block3"]).stages["block3"][-1]
        AttentionDropout(drop_rate=0.75, threshold=0.8)
    """
    blocks = {name: [f"{name}.{i}" for i in range(len(_layers(backbone, name)))] for name in backbone.stages}
    known = [position for name, inside in blocks.items() for position in (name, *inside)]
    chosen = ADL_POSITIONS.get(backbone.name, ()) if positions is None else positions
    if unknown := [position for position in chosen if position not in known]:
        raise ValueError(f"{backbone.name} has no position {unknown[0]!r}; its positions are {', '.join(known)}")
    if not chosen:
        raise ValueError(f"no positions for {backbone.name}: choose some of {', '.join(known)}")
    net = copy.deepcopy(backbone)
    for position in sorted(set(chosen), key=known.index, reverse=True):  # from behind: earlier indices stay valid
        name, _, index = position.partition(".")
        _insert(net, name, int(index) + 1 if index else len(_layers(net, name)), AttentionDropout(drop_rate, threshold))
    return net.train(backbone.training)


def _insert(net: Backbone, stage: str, index: int, layer: nn.Module) -> None:
    """Rebuild a stage with one more layer: `insert` on a slice of a `Sequential` mixes up its layers."""
    layers = _layers(net, stage)
    net.stages[stage] = nn.Sequential(*layers[:index], layer, *layers[index:])


def _layers(net: Backbone, stage: str) -> list[nn.Module]:
    return list(net.stages[stage].children())


def _probability(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}")
    return value
