"""What the data settings share: names of splits, random draws, checks, and squares to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.transforms import v2

from wsolnb.data.readers.images import count_broken, file_of
from wsolnb.data.readers.layouts import TITLES, layouts_in
from wsolnb.data.readers.photos import Photos

SPLITS = {
    "cub": ("train", "", "test"),
    "imagenet": ("train", "", "val"),
    "openimages": ("train", "val", "test"),
    "dogs": ("train", "", "test"),
    "aircraft": ("train", "", "test"),
    "voc": ("train", "", "test"),
    "coco": ("train2017", "", "val2017"),
}
"""Training, held-out and test split of the official layouts; "": training images are held out."""

_WITH_METADATA = ("cub", "imagenet", "openimages")


@dataclass(frozen=True)
class Parts:
    """What every setting has: class names (label k is `classes[k]`) and images to train on."""

    classes: list[str]
    train: Dataset[Any]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of classes, of images in each part, and, if they are skipped, of unreadable training images so far."""
        parts = {name: len(part) for name, part in vars(self).items() if isinstance(part, Dataset)}  # type: ignore[arg-type]
        return {"classes": len(self.classes), **parts, **count_broken(self.train)}


def check_request(dataset: str, root: str | Path, datasets: Sequence[str]) -> None:
    """Refuse photos of a data set that a setting does not have, or without a folder.

    >>> check_request("birds", "/data", ("critters", "voc"))
    Traceback (most recent call last):
    ValueError: unknown data set 'birds'; known: critters, voc
    """
    if dataset not in datasets or dataset == "critters":
        raise ValueError(f"unknown data set {dataset!r}; known: {', '.join(datasets)}")
    if not str(root):
        raise ValueError(f"data set {dataset!r} needs a folder: give data_root")


def check_classes(train: Sequence[str], other: Sequence[str], splits: Sequence[str], *, subset: bool) -> None:
    """Refuse a split (the second of `splits`) with other labels than the training split; a `subset` may lack the last.

    >>> check_classes(["cat", "dog"], ["cat"], ("train", "test"), subset=True)
    >>> check_classes(["cat", "dog"], ["cat"], ("train", "test"), subset=False)
    Traceback (most recent call last):
    ValueError: 'train' has 2 classes, but 'test' has 1, the first that differs is 'dog': the same data set?
    """
    expected = train[: len(other)] if subset else train
    if different := [theirs or ours for ours, theirs in zip_longest(expected, other) if ours != theirs]:
        raise ValueError(
            f"{splits[0]!r} has {len(train)} classes, but {splits[1]!r} has {len(other)}, the first that differs is "
            f"{different[0]!r}: the same data set?"
        )


def without_metadata(root: str | Path, splits: Sequence[str]) -> tuple[str, tuple[str, str, str]]:
    """The official layout that stands in for the field's metadata files, and its names of their splits.

    The `val` images of CUB and ImageNet (CUBV2, ImageNetV2) come with the metadata only: "" asks for held-out training
    images instead. `splits` are those that the metadata call `train`, `val` and `test`. ValueError if the folder has
    none of these data sets.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "train" / "n01440764").mkdir(parents=True)
    ...     without_metadata(folder, ("train", "val", "test"))
    ('imagenet', ('train', '', 'val'))
    """
    layouts = layouts_in(root)
    fitting = [name for name in layouts if name in _WITH_METADATA]
    if len(fitting) != 1:
        looks = " and ".join(TITLES[name] for name in layouts)
        raise ValueError(
            "data set 'protocol' needs a folder: give metadata, or as data_root the official layout of one of "
            f"{', '.join(TITLES[name] for name in _WITH_METADATA)}; "
            + (f"{root} looks like {looks}" if looks else f"{root} is none of them")
        )
    official = dict(zip(("train", "val", "test"), SPLITS[fitting[0]], strict=True))
    train, held, test = (official.get(split, split) for split in splits)
    return fitting[0], (train, held, test)


def shuffled(indices: Sequence[int], seed: int) -> list[int]:
    """The indices in an order drawn by the seed.

    >>> shuffled([4, 5, 6, 7], seed=0)
    [4, 5, 7, 6]
    """
    return [indices[k] for k in torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed)).tolist()]


def first(dataset: Any, count: int) -> Dataset[Any]:
    """The first images of a data set; 0: all of them.

    >>> len(first([7, 8, 9], 2)), len(first([7, 8, 9], 0))
    (2, 3)
    """
    return Subset(dataset, range(min(count, len(dataset)))) if count else dataset


def with_one_object(scenes: Any, count: int = 0) -> list[int]:
    """Indices of the images that show exactly one object, among the first `count` (0: all).

    >>> class Scenes(list): target = list.__getitem__
    >>> with_one_object(Scenes([{"labels": [2, 0]}, {"labels": [2]}]))
    [1]
    """
    indices = range(min(count, len(scenes)) if count else len(scenes))
    return [index for index in indices if len(scenes.target(index)["labels"]) == 1]


class LabelledSquares(Dataset[tuple[Tensor, int]]):
    """Some images of a data set, augmented, with their labels; boxes and masks are not read.

    The source is a `Photos` data set, or scenes with one object each.

    >>> from types import SimpleNamespace
    >>> scenes = SimpleNamespace(image=lambda _: torch.ones(3, 4, 4), target=lambda _: {"labels": [2]})
    >>> squares = LabelledSquares(scenes, [5, 7], v2.CenterCrop(2))
    >>> squares[1][0].shape, squares.labels
    (torch.Size([3, 2, 2]), tensor([2, 2]))
    """

    def __init__(self, source: Any, indices: Sequence[int], transform: v2.Transform) -> None:
        self.source, self.indices, self.transform = source, list(indices), transform

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Tensor:
        """Labels of all images, without decoding them."""
        if isinstance(self.source, Photos):
            return self.source.labels[self.indices]
        return torch.tensor([self._label(index) for index in self.indices])

    def file(self, index: int) -> Path:
        """Path of an image."""
        return file_of(self.source, self.indices[index])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.source.image(self.indices[index])), self._label(self.indices[index])

    def _label(self, index: int) -> int:
        if isinstance(self.source, Photos):
            return int(self.source.labels[index])
        return int(self.source.target(index)["labels"][0])
