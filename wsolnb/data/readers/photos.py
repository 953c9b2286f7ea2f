"""Photos with one class each: what the readers of CUB, ImageNet, OpenImages, dogs and aircraft share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from wsolnb.data.readers._files import checked_boxes
from wsolnb.data.readers.images import decode, stored_size
from wsolnb.data.readers.scenes import Target, Transform


class Photos(Dataset[tuple[Tensor, Target]]):
    """Images on disk with one class each, decoded on access, with boxes and masks where the data set has them.

    `photos[i]` is `(image, target)`: image a `tv_tensors.Image`, uint8 (3, H, W), RGB; target a dictionary with
    "labels" (int64 (1,)), "boxes" (`tv_tensors.BoundingBoxes`, float32 (n, 4), XYXY, pixels, far corner exclusive; all
    of the image's class; n is 0 where there is no annotation), "image_id" (the index) and, where there are masks,
    "masks" and "ignore" (`tv_tensors.Mask`, bool (1, H, W)): the object, and the pixels that count as neither object
    nor background.

    Readers of data sets raise FileNotFoundError if a file of the layout or a listed image is missing, naming the data
    set that the folder has instead, and ValueError if the split is unknown or files disagree.

    Args:
        root: Folder of the images.
        names: Path of every image below it.
        labels: Index into `classes` of every image.
        boxes: (n, 4) xyxy of every image, far corners exclusive; None where a subclass finds them itself.
        transform: Called as `transform(image, target)`.

    >>> photos = Photos(Path("photos"), ["a.jpg"], [1], classes=["cat", "dog"], boxes=[torch.zeros(1, 4)])
    >>> photos, photos.labels, photos.has_boxes(0)
    (Photos(1 images, 2 classes), tensor([1]), True)
    """

    box_file: Path | None = None  # the one file that has all boxes, where there is one, for error messages

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        labels: Sequence[int] | Tensor,
        *,
        classes: Sequence[str],
        boxes: Sequence[Tensor] | None = None,
        transform: Transform | None = None,
    ) -> None:
        self.root = root
        self._names = np.array([os.fsencode(name) for name in names])  # one block of memory for a million names
        self.labels = torch.as_tensor(labels, dtype=torch.int64)
        self.classes = list(classes)
        self.transform = transform
        self._known_boxes = boxes

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} images, {len(self.classes)} classes)"

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        image = self.image(index)
        target = self._target(index, (image.shape[-2], image.shape[-1]))
        return (image, target) if self.transform is None else self.transform(image, target)

    def name(self, index: int) -> str:
        """Path of an image below the root."""
        return os.fsdecode(self._names[index])

    def file(self, index: int) -> Path:
        """Path of an image."""
        return self.root / self.name(index)

    def image(self, index: int) -> tv_tensors.Image:
        """Decode an image; raises FileNotFoundError or UnreadableImage."""
        return decode(self.file(index))

    def target(self, index: int) -> Target:
        """The target of an image, without decoding the image and without the transform."""
        return self._target(index, self._size(index))

    def has_boxes(self, index: int) -> bool:
        """Whether the image is annotated; does not open the image."""
        return self._known_boxes is not None and len(self._known_boxes[index]) > 0

    def _size(self, index: int) -> tuple[int, int]:
        return stored_size(self.file(index))

    def _target(self, index: int, size: tuple[int, int]) -> Target:
        index = range(len(self))[index]
        target: Target = {"labels": self.labels[index, None], "image_id": index}
        masks = self._masks(index, size)
        if masks is not None:
            target |= {name: tv_tensors.Mask(mask[None]) for name, mask in zip(("masks", "ignore"), masks, strict=True)}
        boxes = self._boxes(index, size)
        if boxes is None:
            boxes = torch.zeros(0, 4) if masks is None else extent(masks[0])
        origin = "" if self.box_file is None else f"{self.box_file}: "
        checked = checked_boxes(
            boxes.numpy().astype(np.float64).reshape(-1, 4),
            np.array([size] * len(boxes), dtype=np.int64).reshape(-1, 2),
            lambda k: f"{origin}{self.file(index)}, object {k + 1}",
        )
        target["boxes"] = tv_tensors.BoundingBoxes(torch.from_numpy(checked), format="XYXY", canvas_size=size)
        return target

    def _boxes(self, index: int, size: tuple[int, int]) -> Tensor | None:
        """Boxes (n, 4) of an image of this size; None: the extent of its mask, if it has one."""
        return None if self._known_boxes is None else self._known_boxes[index]

    def _masks(self, index: int, size: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
        """Object and ignore region, bool (H, W) each, or None."""
        return None


def extent(mask: Tensor) -> Tensor:
    """The box around all pixels of a mask, (1, 4) xyxy with far corners exclusive; (0, 4) for an empty mask.

    >>> mask = torch.zeros(4, 6, dtype=torch.bool)
    >>> mask[1:3, 2:5] = True
    >>> extent(mask).tolist()
    [[2.0, 1.0, 5.0, 3.0]]
    """
    rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
    if not len(rows):
        return torch.zeros(0, 4)
    return torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], dtype=torch.float32)
