"""Photos with labels to learn a localization method from: split, resized, and broken ones named or left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from wsolnb._utils.cache import fingerprint
from wsolnb._utils.progress import track
from wsolnb.data.disk_cache import pixel_cache
from wsolnb.data.labels import labels_of
from wsolnb.data.readers.folders import ClassFolders, class_folders
from wsolnb.data.readers.images import SkipUnreadable, UnreadableImage, file_of, to_rgb
from wsolnb.data.tasks.split import shuffled

UNBALANCED = 5  # times as many photos in the largest class as in the smallest
_CACHE_GB = 4.0  # of resized photos, so that each is decoded once


@dataclass(frozen=True)
class TrainingPhotos:
    """Photos to learn from, augmented, and held-out ones, both with labels and no boxes.

    Args:
        name: Of the data, for the card of what was trained.
        broken: Held-out photos that did not decode, and were left out.
    """

    name: str
    classes: tuple[str, ...]
    train: Any
    held: Any
    broken: list[Path] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Photos of each class to learn from."""
        counts = torch.bincount(labels_of(self.train), minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, counts, strict=True))

    @property
    def imbalance(self) -> str:
        """A note where the largest class has more than `UNBALANCED` times as many photos as the smallest; or empty."""
        counts = self.counts
        few, many = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        if counts[many] <= UNBALANCED * counts[few]:
            return ""
        return (
            f"note: classes are unbalanced, {many!r} has {counts[many]} photos to learn from, {few!r} {counts[few]}: "
            "rare classes are recognised less often; add photos of them, or take fewer of the others"
        )

    @property
    def skipped(self) -> list[Path]:
        """Photos that did not decode, so far."""
        return [*(self.train.broken_files if isinstance(self.train, SkipUnreadable) else ()), *self.broken]


def training_photos(
    photos: str | Path | Dataset[Any], image_size: int, *, seed: int = 0, skip_broken: bool = False
) -> TrainingPhotos:
    """Read a folder or data set as `wsolnb.fit` takes it, and hold photos out; these are decoded at once.

    Training photos are random crops, mirrored at random, of squares that are 256/224 times as large as `image_size`;
    held-out ones are squares of that size. Squares of photos in folders are kept on disk, up to 4 GB.

    Raises:
        FileNotFoundError: There is no such folder.
        UnreadableImage: A held-out photo does not decode, unless broken ones are skipped.
        ValueError: A class has too few photos; and as `class_folders`.

    Example:
        >>> from torchvision.datasets import FakeData
        >>> photos = FakeData(12, (3, 48, 64), num_classes=2)
        >>> photos.classes = ["cat", "dog"]
        >>> found = training_photos(photos, 32)
        >>> found.train[0][0].shape, len(found.train), len(found.held), found.skipped
        (torch.Size([3, 32, 32]), 8, 4, [])
    """
    if isinstance(photos, str | Path):
        source: Any
        source, val = class_folders(photos)
        name = Path(photos).resolve().name
    else:
        source, val, name = photos, None, type(photos).__name__
    classes, labels = tuple(source.classes), labels_of(source)
    if val is None:
        train, held = _split(labels, classes, seed)
        unseen: Any = source
    else:
        train, held, unseen = list(range(len(source))), list(range(len(val))), val
        counts = torch.bincount(labels, minlength=len(classes))
        if counts.min() < 2:
            raise ValueError(f"class {classes[int(counts.argmin())]!r} has one photo to learn from: two are needed")
    augment = v2.Compose([v2.RandomCrop(image_size), v2.RandomHorizontalFlip()])
    squares: Any = _Squares(source, labels, train, round(256 / 224 * image_size), augment)
    plain = _Squares(unseen, labels_of(unseen), held, image_size)
    kept, broken = [], []
    for index in track(range(len(plain)), "held-out photos", len(plain)):
        try:
            plain.square(index)
        except UnreadableImage:
            if not skip_broken:
                raise
            broken.append(plain.file(index))
        else:
            kept.append(held[index])
    if not kept:
        raise UnreadableImage(f"none of the {len(broken)} held-out photos decodes; the first: {broken[0]}")
    plain = _Squares(unseen, labels_of(unseen), kept, image_size) if broken else plain
    return TrainingPhotos(name, classes, SkipUnreadable(squares) if skip_broken else squares, plain, broken)


def _split(labels: Tensor, classes: Sequence[str], seed: int) -> tuple[list[int], list[int]]:
    """Indices to train on, and those held out: a tenth of every class, but two photos, as some losses compare pairs."""
    train: list[int] = []
    held: list[int] = []
    for label, name in enumerate(classes):
        order = shuffled((labels == label).nonzero()[:, 0].tolist(), seed)
        if len(order) < 4:
            raise ValueError(f"class {name!r} has {len(order)} photos: two have to be learned from and two held out")
        count = max(2, round(len(order) / 10))
        held += order[:count]
        train += order[count:]
    return sorted(train), sorted(held)


class _Squares(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Some photos of a data set as squares, transformed, with their labels and no box."""

    def __init__(
        self,
        source: Any,
        labels: Tensor,
        indices: list[int],
        side: int,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.source, self.indices, self.side, self.transform = source, indices, side, transform
        self.labels = labels[indices]
        self.cache = pixel_cache(source, side, _CACHE_GB) if isinstance(source, ClassFolders) else None

    @property
    def contents(self) -> str:
        """A digest of all labels and, where they are known, of the names, sizes and times of all files."""
        files = [self.file(index) for index in range(len(self))] if self.cache else []
        stats = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
        return fingerprint(self.labels, stats, self.indices, self.side)

    def __len__(self) -> int:
        return len(self.indices)

    def file(self, index: int) -> Path:
        """Path of a photo."""
        return file_of(self.source, self.indices[index])

    def square(self, index: int) -> Tensor:
        """A photo before the transform, `(3, side, side)`."""
        number = self.indices[index]

        def decoded() -> Tensor:
            image = self.source[number][0]
            image = v2.functional.to_image(to_rgb(image) if isinstance(image, Image.Image) else image)
            return v2.functional.resize(image, [self.side, self.side], antialias=True)

        return self.cache.get(number, self.file(index), decoded) if self.cache else decoded()

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image = self.square(index)
        target = {"labels": self.labels[index, None], "boxes": torch.zeros(0, 4)}
        return image if self.transform is None else self.transform(image), target
