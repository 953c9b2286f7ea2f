"""Photos with one class each in the places of scenes and of cut-out objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from wsolnb.data.photos import Photos
from wsolnb.data.scenes import Target


class AsScenes(Dataset[tuple[Tensor, Target]]):
    """Photos whose target has a label and a "crowd" for every box, as scenes do.

    Args:
        photos: With one class each.
        indices: Which of them.

    Attributes:
        classes: Names; label k is classes[k].
    """

    def __init__(self, photos: Photos, indices: Sequence[int]) -> None:
        self.photos, self.indices, self.classes = photos, list(indices), photos.classes

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        image, target = self.photos[self.indices[index]]
        return image, self._each(target)

    def target(self, index: int) -> Target:
        """The truth about a photo, without decoding it."""
        return self._each(self.photos.target(self.indices[index]))

    def _each(self, target: Target) -> Target:
        count = len(target["boxes"])
        return target | {
            "labels": target["labels"].expand(count).clone(),
            "crowd": torch.zeros(count, dtype=torch.bool),
        }


class LabelledSquares(Dataset[tuple[Tensor, int]]):
    """Photos under an augmentation, with their label; boxes and masks are not read.

    Args:
        photos: With one class each.
        indices: Which of them.
        transform: Called as `transform(image, {})`.
    """

    def __init__(self, photos: Photos, indices: Sequence[int], transform: v2.Transform) -> None:
        self.photos, self.indices, self.transform = photos, list(indices), transform

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Tensor:
        """Labels of all photos, without decoding them."""
        return self.photos.labels[self.indices]

    def file(self, index: int) -> Path:
        """Path of a photo."""
        return self.photos.file(self.indices[index])

    def __getitem__(self, index: int) -> tuple[Any, int]:
        at = self.indices[index]
        return self.transform(self.photos.image(at), {})[0], int(self.photos.labels[at])
