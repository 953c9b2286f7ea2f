"""Read CUB-200-2011 in its official layout: 200 species of birds, one box each, and segmentations."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from wsolnb.data.readers._files import all_there, check_names, read_box_column, read_column, read_values
from wsolnb.data.readers.layouts import not_here
from wsolnb.data.readers.photos import Photos
from wsolnb.data.readers.scenes import Transform

MAJORITY = 128  # grey value of pixels that at least three of five annotators called bird


class CubBirds(Photos):
    """CUB-200-2011: 200 species of birds, described by five text files.

    `bounding_boxes.txt` holds left, top, width and height, counted from pixel 0. Over all 11,788 images, left + width
    is at most the image's width - 1, so it names the last pixel of the bird, and the far corner becomes
    left + width + 1: the same boxes as in the field's metadata files.

    If `segmentations/` (a separate archive) is in `CUB_200_2011/` or beside it, the target has "masks": pixels that
    most of the five annotators called bird. "ignore" is empty.

    Args:
        root: Folder with `CUB_200_2011/`, or that folder itself.
        split: `train` (5,994 images), `test` (5,794) or `all`.

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
        names, classes = read_column(folder / "images.txt"), read_column(folder / "classes.txt")
        labels, training = (read_column(folder / f"{part}.txt") for part in ("image_class_labels", "train_test_split"))
        boxes = read_box_column(folder / "bounding_boxes.txt")
        _same_images(folder / "image_class_labels.txt", labels, names)
        _same_images(folder / "train_test_split.txt", training, names)
        _same_images(folder / "bounding_boxes.txt", boxes, names)
        order = {number: k for k, number in enumerate(classes)}
        for number, label in labels.items():
            if label not in order:
                raise ValueError(
                    f"{folder / 'image_class_labels.txt'}: image {number} has class {label}, but classes.txt lists "
                    f"{len(classes)} classes without it"
                )
        readable = [name.split(".", 1)[-1].replace("_", " ") for name in classes.values()]
        check_names(readable, readable, str(folder / "classes.txt"))
        with_image = set(labels.values())
        if empty := [number for number in classes if number not in with_image]:
            raise ValueError(
                f"{folder / 'classes.txt'} lists {len(classes)} classes, {len(empty)} of them without an image, "
                f"such as {empty[0]} ({classes[empty[0]]}): is it the list of another release?"
            )
        if odd := [number for number, flag in training.items() if flag not in ("0", "1")]:
            path, flag = folder / "train_test_split.txt", training[odd[0]]
            raise ValueError(f"{path}: image {odd[0]} has the flag {flag!r}, expected 0 (test) or 1 (train)")
        flags = {"train": ("1",), "test": ("0",), "all": ("0", "1")}[split]
        chosen = [number for number in names if training[number] in flags]
        if not chosen:
            raise ValueError(f"{folder / 'train_test_split.txt'} puts no image into {split!r}")
        all_there(folder / "images", [names[number] for number in chosen], folder / "images.txt")
        super().__init__(
            folder / "images",
            [names[number] for number in chosen],
            [order[labels[number]] for number in chosen],
            classes=readable,
            boxes=[_far_corner(*boxes[number]) for number in chosen],
            transform=transform,
        )
        self.box_file = folder / "bounding_boxes.txt"
        candidates = (folder.parent / "segmentations", folder / "segmentations")
        self.segmentations = next((path for path in candidates if path.is_dir()), None)

    def _masks(self, index: int, size: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
        if self.segmentations is None:
            return None
        path = (self.segmentations / self.name(index)).with_suffix(".png")
        votes = read_values(path, size, numbers=False, hint=", though there are others: get the archive again")
        return votes >= MAJORITY, torch.zeros(size, dtype=torch.bool)


def _far_corner(left: float, top: float, width: float, height: float) -> Tensor:
    return torch.tensor([[left, top, left + width + 1, top + height + 1]])


def _same_images(path: Path, table: Collection[str], names: Collection[str]) -> None:
    for number in table:
        if number not in names:
            raise ValueError(f"{path} has a row for image {number}, which images.txt does not list")
    if missing := [number for number in names if number not in table]:
        raise ValueError(f"{path} has no row for {len(missing)} of the {len(names)} images, the first is {missing[0]}")
