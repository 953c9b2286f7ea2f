"""Maps and truth of all images of a data set, in its order: of the true class, or of all classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wsolnb.boxes import BoxRule
from wsolnb.boxes.quantise import minmax_normalise


def stretched(maps: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Upsample maps `(N, h, w)` as the field's evaluators do: bicubic, then each stretched to [0, 1].

    Example:
        >>> stretched(torch.rand(2, 3, 4), (24, 32)).aminmax()
        torch.return_types.aminmax(
        min=tensor(0.),
        max=tensor(1.))
    """
    return minmax_normalise(F.interpolate(maps[:, None].float(), image_size, mode="bicubic", align_corners=False)[:, 0])


def as_probabilities(maps: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Upsample maps of probabilities `(N, h, w)`: bilinear, clamped to [0, 1], not stretched.

    Example:
        >>> as_probabilities(torch.full((1, 3, 4), 0.25), (24, 32)).unique()
        tensor([0.2500])
    """
    return F.interpolate(maps[:, None].float(), image_size, mode="bilinear", align_corners=False)[:, 0].clamp(0, 1)


@dataclass(frozen=True)
class LocalizationMaps:
    """The map of the true class of every image, for images with objects of one class.

    Args:
        maps: At feature resolution, float `(N, h, w)`, on the CPU; `(N, M, h, w)` where `upsample` merges M maps.
        scores: Outputs of the classifier `(N, C)`.
        labels: True classes, int64 `(N,)`.
        boxes: True boxes of every image, `(n, 4)` in pixels.
        image_size: Height and width to which all images were resized; boxes and masks are given at this size.
        masks: Where the truth has them, bool `(N, H, W)`: `masks` (the object), `mark_masks` (the mark on a critter's
            head), `ignore` (regions that are not evaluated).
        upsample: From maps and image size to maps `(N, H, W)` in [0, 1].
    """

    maps: Tensor
    scores: Tensor
    labels: Tensor
    boxes: Sequence[Tensor]
    image_size: tuple[int, int]
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    upsample: Callable[[Tensor, tuple[int, int]], Tensor] = stretched

    def __len__(self) -> int:
        return len(self.maps)

    @property
    def accuracy(self) -> float:
        """Top-1 classification accuracy."""
        return float((self.scores.argmax(dim=1) == self.labels).double().mean())

    def box_masks(self) -> Tensor:
        """Pixels inside the true boxes, bool `(N, H, W)`; a pixel counts if its centre is inside."""
        height, width = self.image_size
        x, y = torch.arange(width) + 0.5, torch.arange(height)[:, None] + 0.5
        masks = torch.zeros(len(self), height, width, dtype=torch.bool)
        for mask, boxes in zip(masks, self.boxes, strict=True):
            for x0, y0, x1, y1 in boxes.tolist():
                mask |= (x > x0) & (x < x1) & (y > y0) & (y < y1)
        return masks

    def subset(self, indices: Tensor) -> LocalizationMaps:
        """The maps of some images."""
        return replace(
            self,
            maps=self.maps[indices],
            scores=self.scores[indices],
            labels=self.labels[indices],
            boxes=[self.boxes[i] for i in indices.tolist()],
            masks={name: masks[indices] for name, masks in self.masks.items()},
        )

    def upsampled(self) -> Tensor:
        """Maps at the size of the images, float `(N, H, W)` in [0, 1]."""
        return self.upsample(self.maps, self.image_size)

    def cut(self, rule: BoxRule) -> Tensor:
        """The rule's box of every map, `(N, 4)` in pixels; the rule itself resizes maps that are `stretched`."""
        maps = self.maps if self.upsample is stretched else self.upsampled()
        return rule(maps[:, None], self.image_size)[:, 0]


@dataclass(frozen=True)
class SceneMaps:
    """Maps and scores of all classes for every image.

    Args:
        maps: One float tensor `(C, h, w)` per image, on the CPU.
        scores: `(N, C)`.
        sizes: Original height and width of every image in pixels, int64 `(N, 2)`.
        targets: The truth about every image, boxes in original pixels.
    """

    maps: Sequence[Tensor]
    scores: Tensor
    sizes: Tensor
    targets: Sequence[Mapping[str, Any]]

    def __len__(self) -> int:
        return len(self.maps)
