"""Read CUB-200-2011 as it comes out of its archives: 200 kinds of birds, one box each, and segmentations apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wsolnb.data.readers.layouts import not_here
from wsolnb.data.readers.photos import Photos, all_there, read_rows
from wsolnb.data.readers.scenes import Transform

MAJORITY = 128  # grey value from which at least three of five annotators called a pixel bird


class CubBirds(Photos):
    """CUB-200-2011: 200 kinds of birds, described by five text files.

    `bounding_boxes.txt` holds left, top, width and height, counted from pixel 0. Over all 11,788 images, left + width
    is at most the image's width - 1, so it names the last pixel of the bird and the far corner becomes
    left + width + 1, the same boxes as from the field's metadata files.

    Where `segmentations/` (an archive of its own) lies beside `CUB_200_2011/` or in it, the target has "masks": pixels
    that more than half of the five annotators called bird. Every pixel counts, so "ignore" is empty.

    Args:
        root: Folder with `CUB_200_2011/`, or that folder itself.
        split: `train` (5,994 images), `test` (5,794) or `all`.
        transform: Called as `transform(image, target)`.

    Raises:
        FileNotFoundError: If a file of the layout or an image is missing; it says what the folder looks like instead.
        ValueError: If the split is unknown, a row does not parse, or two files disagree.

    >>> CubBirds("data/cub", "test")  # doctest: +SKIP
    CubBirds(5794 images, 200 classes)
    """

    def __init__(self, root: str | Path, split: str, *, transform: Transform | None = None) -> None:
        if split not in ("train", "test", "all"):
            raise ValueError(f"unknown split {split!r} of CUB-200-2011; known: train, test, all")
        folder = Path(root) / "CUB_200_2011"
        if not (folder / "images.txt").is_file():
            folder = Path(root)
        if not (folder / "train_test_split.txt").is_file():
            raise not_here(root, "cub", "CUB_200_2011/images.txt and train_test_split.txt")
        names = {number: name for number, name in read_rows(folder / "images.txt", 2)}
        classes = {number: name for number, name in read_rows(folder / "classes.txt", 2)}
        labels = _column(folder / "image_class_labels.txt", names)
        training = _column(folder / "train_test_split.txt", names)
        boxes = _boxes(folder / "bounding_boxes.txt", names)
        order = {number: k for k, number in enumerate(classes)}
        for number, label in labels.items():
            if label not in order:
                raise ValueError(
                    f"{folder / 'image_class_labels.txt'}: image {number} has class {label}, but classes.txt lists "
                    f"{len(classes)} classes without it"
                )
        shown = set(labels.values())
        if idle := [number for number in classes if number not in shown]:
            raise ValueError(
                f"{folder / 'classes.txt'} lists {len(classes)} classes, {len(idle)} of them without an image, such as "
                f"{idle[0]} ({classes[idle[0]]}): is it the list of another release?"
            )
        wanted = {"train": ("1",), "test": ("0",), "all": ("0", "1")}[split]
        chosen = [number for number in names if training[number] in wanted]
        if not chosen:
            raise ValueError(f"{folder / 'train_test_split.txt'} puts no image into {split!r}")
        all_there(folder / "images", [names[number] for number in chosen], folder / "images.txt")
        super().__init__(
            folder / "images",
            [names[number] for number in chosen],
            [order[labels[number]] for number in chosen],
            classes=[name.split(".", 1)[-1].replace("_", " ") for name in classes.values()],
            boxes=[boxes[number] for number in chosen],
            transform=transform,
        )
        beside = (folder.parent / "segmentations", folder / "segmentations")
        self.segmentations = next((each for each in beside if each.is_dir()), None)

    def _masks(self, index: int, size: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
        if self.segmentations is None:
            return None
        path = (self.segmentations / self.name(index)).with_suffix(".png")
        if not path.is_file():
            raise FileNotFoundError(f"no segmentation {path}, though there are others: get the archive again")
        try:
            with Image.open(path) as file:
                votes = torch.from_numpy(np.array(file.convert("L")))
        except OSError as error:
            raise ValueError(f"segmentation {path} does not decode: {error}") from None
        if votes.shape != size:
            raise ValueError(f"{path} has {votes.shape[1]} x {votes.shape[0]} pixels, its image {size[1]} x {size[0]}")
        return votes >= MAJORITY, torch.zeros(size, dtype=torch.bool)


def _column(path: Path, names: dict[str, str]) -> dict[str, str]:
    """The second column of a file that has one row for every image."""
    rows = read_rows(path, 2)
    _same_images(path, [number for number, _ in rows], names)
    return {number: value for number, value in rows}


def _boxes(path: Path, names: dict[str, str]) -> dict[str, Tensor]:
    rows = read_rows(path, 5)
    _same_images(path, [row[0] for row in rows], names)
    boxes = {}
    for number, *texts in rows:
        try:
            left, top, width, height = (float(text) for text in texts)
        except ValueError:
            raise ValueError(f"{path}: image {number} has the box {texts}, expected 4 numbers") from None
        boxes[number] = torch.tensor([[left, top, left + width + 1, top + height + 1]])
    return boxes


def _same_images(path: Path, numbers: list[str], names: dict[str, str]) -> None:
    known = set(numbers)
    for number in numbers:
        if number not in names:
            raise ValueError(f"{path} has a row for image {number}, which images.txt does not list")
    if missing := [number for number in names if number not in known]:
        raise ValueError(f"{path} has no row for {len(missing)} of the {len(names)} images, the first is {missing[0]}")
