"""One object per image: read the map of the true class from a classifier, cut one box out of it, and judge that.

    images -> features -> the true class's map, for one or more sets of head weights -> box rule -> right or wrong

A set of weights is one way to read the same network: all of them (class activation maps), the negative ones clamped to
zero, or the negative ones alone. The network runs once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wsolnb.boxes import BoxRule
from wsolnb.boxes.quantise import minmax_normalise


@dataclass(frozen=True)
class ObjectMaps:
    """The map of the true class of every image of a data set, in its order, with the truth about it.

    Args:
        maps: At feature resolution, float `(N, h, w)`, on the CPU.
        scores: Outputs of the classifier `(N, C)`.
        labels: True classes, int64 `(N,)`.
        boxes: True boxes of every image, `(n, 4)` in pixels of the frame.
        frame: Height and width to which all images were brought.
        masks: Where the truth has them, bool `(N, H, W)` in the frame: `masks` (the object), `mark_masks` (the mark on
            a critter's head), `ignore` (regions that count for nothing).
    """

    maps: Tensor
    scores: Tensor
    labels: Tensor
    boxes: Sequence[Tensor]
    frame: tuple[int, int]
    masks: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.maps)

    @property
    def accuracy(self) -> float:
        """Share of the images whose best-scored class is the true one."""
        return float((self.scores.argmax(dim=1) == self.labels).double().mean())

    def box_masks(self) -> Tensor:
        """Pixels inside the true boxes, bool `(N, H, W)` in the frame; a pixel counts if its middle is inside."""
        height, width = self.frame
        x, y = torch.arange(width) + 0.5, torch.arange(height)[:, None] + 0.5
        masks = torch.zeros(len(self), height, width, dtype=torch.bool)
        for mask, boxes in zip(masks, self.boxes, strict=True):
            for x0, y0, x1, y1 in boxes.tolist():
                mask |= (x > x0) & (x < x1) & (y > y0) & (y < y1)
        return masks

    def part(self, indices: Tensor) -> ObjectMaps:
        """The maps of some images."""
        masks = {name: each[indices] for name, each in self.masks.items()}
        boxes = [self.boxes[i] for i in indices.tolist()]
        return ObjectMaps(self.maps[indices], self.scores[indices], self.labels[indices], boxes, self.frame, masks)

    def cut(self, rule: BoxRule) -> Tensor:
        """The rule's box of every map, `(N, 4)` in pixels of the frame."""
        return rule(self.maps[:, None], self.frame)[:, 0]

    def enlarged(self) -> Tensor:
        """Maps at the size of the frame, bicubic and then stretched to [0, 1] each, as the field's evaluators do."""
        maps = F.interpolate(self.maps[:, None].float(), self.frame, mode="bicubic", align_corners=False)
        return minmax_normalise(maps[:, 0])


@dataclass(frozen=True)
class SceneMaps:
    """Maps and scores of all classes for every image of a data set, in its order, with the truth about it.

    Args:
        maps: One float tensor `(C, h, w)` per image.
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


@dataclass(frozen=True)
class SoftMaps(ObjectMaps):
    """Maps of probabilities: enlarged, but not stretched."""

    def part(self, indices: Tensor) -> SoftMaps:
        """The maps of some images."""
        rows = super().part(indices)
        return SoftMaps(rows.maps, rows.scores, rows.labels, rows.boxes, rows.frame, rows.masks)

    def enlarged(self) -> Tensor:
        """Maps at the size of the frame, bilinear, in [0, 1]."""
        maps = F.interpolate(self.maps[:, None].float(), self.frame, mode="bilinear", align_corners=False)
        return maps[:, 0].clamp(0, 1)

    def cut(self, rule: BoxRule) -> Tensor:
        """The rule's box of every enlarged map, `(N, 4)` in pixels of the frame."""
        return rule(self.enlarged()[:, None], self.frame)[:, 0]
