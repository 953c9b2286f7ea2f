"""Read FGVC-Aircraft in its official layout: 100 variants of airplanes, one box each."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torchvision.tv_tensors import Image

from wsolnb._utils.text import read_lines
from wsolnb.data.readers._files import all_there, check_names, read_box_column, read_column
from wsolnb.data.readers.layouts import not_here
from wsolnb.data.readers.photos import Photos
from wsolnb.data.readers.scenes import Transform

_LEVELS = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}
_SPLITS = ("train", "val", "trainval", "test")
BANNER = 20  # rows at the bottom of every image that name its photographer


class Aircraft(Photos):
    """FGVC-Aircraft 2013b: 100 variants of airplanes, one box each.

    The bottom 20 rows of every image are a banner with the photographer's name, which the authors ask to remove: images
    are cropped, and boxes clipped. `images_box.txt` counts pixels from 1 and names the last one: 1 is subtracted from
    the near corner.

    Args:
        root: Folder with `fgvc-aircraft-2013b/`.
        split: `train`, `val`, `trainval` or `test` (3,334, 3,333, 6,667 and 3,333 images).
        level: `variant`, `family` or `manufacturer`.

    >>> Aircraft("data/aircraft", "test")  # doctest: +SKIP
    Aircraft(3333 images, 100 classes)
    """

    def __init__(
        self, root: str | Path, split: str, *, level: str = "variant", transform: Transform | None = None
    ) -> None:
        data = Path(root) / "fgvc-aircraft-2013b" / "data"
        if not (data / "variants.txt").is_file():
            raise not_here(root, "aircraft", "fgvc-aircraft-2013b/data/variants.txt")
        if level not in _LEVELS or split not in _SPLITS:
            known = f"{', '.join(_SPLITS)}; levels: {', '.join(_LEVELS)}"
            raise ValueError(f"unknown split {split!r} or level {level!r} of FGVC-Aircraft; known splits: {known}")
        listing, class_file = data / f"images_{level}_{split}.txt", data / _LEVELS[level]
        labels, classes = read_column(listing), [line.strip() for line in read_lines(class_file)]
        check_names(classes, classes, str(class_file))
        if unknown := [name for name in labels.values() if name not in classes]:
            raise ValueError(f"{listing} has the class {unknown[0]!r}, which {class_file} lacks")
        box_file = data / "images_box.txt"
        boxes = read_box_column(box_file)
        if missing := [number for number in labels if number not in boxes]:
            raise ValueError(f"{box_file} has no box of {len(missing)} images, the first is {missing[0]}")
        names = [f"{number}.jpg" for number in labels]
        all_there(data / "images", names, listing)
        super().__init__(
            data / "images",
            names,
            [classes.index(name) for name in labels.values()],
            classes=classes,
            boxes=[torch.tensor([boxes[number]]) - torch.tensor([1.0, 1.0, 0.0, 0.0]) for number in labels],
            transform=transform,
        )
        self.box_file = box_file

    def image(self, index: int) -> Image:
        """Decode an image, without its banner."""
        image = super().image(index)
        return Image(image[:, : image.shape[1] - BANNER])

    def _size(self, index: int) -> tuple[int, int]:
        height, width = super()._size(index)
        return height - BANNER, width

    def _boxes(self, index: int, size: tuple[int, int]) -> Tensor | None:
        boxes = super()._boxes(index, size)
        if boxes is None:
            return None
        cropped = boxes.minimum(torch.tensor([torch.inf, size[0], torch.inf, size[0]]))
        return cropped.where(boxes[:, 3:] <= size[0] + BANNER, boxes)  # one that ends below the banner is wrong
