"""One object class per image, boxes for the test only: the setting of the localization papers, on any of the data sets.

A network learns the class from `train`; every threshold is chosen on `held`, which it has not seen; results are taken
on `test`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.transforms import v2

from wsolnb.data.critters import World
from wsolnb.data.disk_cache import PixelCache, pixel_cache
from wsolnb.data.in_memory import Kept
from wsolnb.data.readers.images import Readable, count_broken, file_of
from wsolnb.data.readers.open import PHOTOS, ProtocolImages, open_scenes, open_split, without_metadata
from wsolnb.data.readers.photos import Photos
from wsolnb.data.readers.scenes import Scenes

DATASETS = ("critters", "voc", "coco", "protocol", *PHOTOS)


@dataclass(frozen=True)
class SingleObject:
    """A data set in three parts.

    Args:
        classes: Names; label k is `classes[k]`.
        train: Images with a label.
        held: Images with boxes, to choose thresholds on.
        test: Images with boxes.
    """

    classes: list[str]
    train: Dataset[Any]
    held: Dataset[Any]
    test: Dataset[Any]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of classes, and of images in each part; where asked to skip them, of training images found broken."""
        counts = {name: len(getattr(self, name)) for name in ("train", "held", "test")}
        return {"classes": len(self.classes), **counts, **count_broken(self.train)}


def drawn_objects(
    world: World, *, train_images: int, held_images: int, test_images: int, seed: int = 0
) -> SingleObject:
    """Critters: single animals, with masks of the animal and of its mark.

    Example:
        >>> drawn_objects(World(size=32), train_images=24, held_images=4, test_images=6).sizes
        {'classes': 12, 'train': 24, 'held': 4, 'test': 6}
    """
    return SingleObject(
        world.classes,
        Kept(world.singles(train_images, seed=3 * seed), bare=True),
        Kept(world.singles(held_images, seed=3 * seed + 1)),
        Kept(world.singles(test_images, seed=3 * seed + 2)),
    )


def photographed_objects(
    dataset: str,
    root: str | Path,
    *,
    metadata: str | Path = "",
    splits: tuple[str, str, str] = ("train", "", "test"),
    image_size: int = 224,
    train_images: int = 0,
    held_images: int = 0,
    test_images: int = 0,
    skip_broken: bool = False,
    cache_gb: float = 0.0,
    seed: int = 0,
) -> SingleObject:
    """Photos with one object class each.

    Args:
        dataset: `cub`, `imagenet`, `openimages`, `dogs` or `aircraft` in their official layouts; `voc` or `coco` (of
            their scenes, those with exactly one box); or `protocol` (CUB, ImageNet, OpenImages or others by the field's
            metadata files).
        root: Folder of the photos, as `wsolnb data get` makes it, with a folder per split for `coco`, or where the
            paths in the metadata start.
        metadata: `protocol`: folder with a folder of metadata per split. "": CUB, ImageNet or OpenImages in the
            official layout, the splits called as in the metadata; CUB and ImageNet have no `val` then, and hold out
            training images.
        splits: Names of the training, the held-out and the test split. Without a held-out split, `held_images` (0: a
            fifth, which is also the most) of those training images that have boxes are held out.
        image_size: Side of the squares to train on, cut at random out of images of 256/224 of it, half of them flipped.
        train_images: Number of training images, drawn by `seed`; 0: all.
        held_images: Number of held-out images; 0: all.
        test_images: Number of test images; 0: all.
        skip_broken: Train on the next image in place of one that does not decode; `train.broken_files` lists them.
        cache_gb: Training images, decoded and resized, are kept on disk up to so many GB (1e9 bytes); they come out the
            same, at a fraction of the work from the second epoch on. 0: none are.
        seed: Of the draws.

    Raises:
        ValueError: If the data set is unknown, a folder is not given, no image is left, or the test split has a class
            that the training split lacks.
        FileNotFoundError: If a folder or file is missing.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> corners = "<xmin>5</xmin><ymin>5</ymin><xmax>30</xmax><ymax>20</ymax>"
        >>> xml = f"<annotation><object><name>cat</name><bndbox>{corners}</bndbox></object></annotation>"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for split in ("train", "test"):
        ...         Path(folder, split).mkdir()
        ...         for k in range(5):
        ...             Image.new("RGB", (48, 32)).save(Path(folder, split, f"{k}.jpg"))
        ...             _ = Path(folder, split, f"{k}.xml").write_text(xml)
        ...     data = photographed_objects("voc", folder, image_size=32)
        ...     data.classes, data.sizes, data.train[0][0].shape
        (['cat'], {'classes': 1, 'train': 4, 'held': 1, 'test': 5}, torch.Size([3, 32, 32]))
    """
    if dataset not in DATASETS[1:]:
        raise ValueError(f"unknown data set {dataset!r}; known: {', '.join(DATASETS)}")
    if not str(root):
        raise ValueError(f"data set {dataset!r} needs a folder: give data_root")
    if dataset == "protocol" and not str(metadata):
        dataset, splits = without_metadata(root, splits)
    where = (Path(root), Path(metadata))
    train, one = _read(dataset, *where, splits[0])
    known = train.classes if dataset == "voc" else None
    order = _drawn(one, seed)
    if splits[1]:
        held, others = _read(dataset, *where, splits[1], known)
        others = _drawn(others, seed)
    else:
        held, others = train, [i for i in order if not isinstance(train, Photos) or train.has_boxes(i)]
        if not others:
            raise ValueError(f"no image of {splits[0]!r} in {root} has a box: name a held-out split that has them")
        fifth = len(others) // 5
        others = others[: min(held_images, fifth) or fifth]
        taken = set(others)
        order = [i for i in order if i not in taken]
    test, last = _read(dataset, *where, splits[2], known)
    for name, part in zip(splits[1:], (held, test), strict=True):
        _same_classes(train.classes, part.classes, splits[0], name)
    resize, crop = v2.Resize([round(256 / 224 * image_size)] * 2), v2.RandomCrop(image_size)
    steps = v2.Compose([resize, crop, v2.RandomHorizontalFlip()])
    cache = pixel_cache(train, resize.size[0], cache_gb)
    augmented: Dataset[Any] = _Augmented(train, order[: train_images or None], steps, cache)
    return SingleObject(
        train.classes,
        Readable(augmented) if skip_broken else augmented,
        Subset(held, others[: held_images or None]),
        Subset(test, _drawn(last, seed)[: test_images or None]),
    )


class _Augmented(Dataset[tuple[Tensor, int]]):
    """Some images of a data set, augmented (resized first of all), with their labels only."""

    def __init__(
        self, source: Photos | Scenes, indices: list[int], transform: v2.Compose, cache: PixelCache | None
    ) -> None:
        self.source, self.indices, self.transform, self.cache = source, indices, transform, cache

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Tensor:
        """Labels of all images, without decoding them."""
        return torch.tensor([self._label(at) for at in self.indices])

    def file(self, index: int) -> Path:
        """Path of an image."""
        return file_of(self.source, self.indices[index])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        at = self.indices[index]
        resize, *augment = self.transform.transforms

        def resized() -> Tensor:
            return resize(self.source.image(at))  # boxes and masks are not needed here, and cost time

        image = resized() if self.cache is None else self.cache.get(at, self.file(index), resized)
        return v2.Compose(augment)(image), self._label(at)

    def _label(self, at: int) -> int:
        known = self.source.labels[at] if isinstance(self.source, Photos) else self.source.target(at)["labels"][0]
        return int(known)


def _read(
    dataset: str, root: Path, metadata: Path, split: str, classes: list[str] | None = None
) -> tuple[Any, list[int]]:
    """A split, and its images with one object class."""
    if dataset == "protocol" or dataset in PHOTOS:
        photos: Any = (
            ProtocolImages(metadata / split, root) if dataset == "protocol" else open_split(dataset, root, split)
        )
        return photos, list(range(len(photos)))
    scenes = open_scenes(dataset, root, split, classes=classes)
    one = [i for i in range(len(scenes)) if len(scenes.target(i)["labels"]) == 1]
    if not one:
        raise ValueError(f"no image of {split!r} in {root} shows exactly one object")
    return scenes, one


def _drawn(indices: list[int], seed: int) -> list[int]:
    return [indices[k] for k in torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed)).tolist()]


def _same_classes(train: list[str], other: list[str], train_split: str, split: str) -> None:
    """Refuse labels that a network for the training split does not have."""
    if len(other) > len(train) or other != train[: len(other)]:
        odd = next((name for name in other if name not in train), other[0])
        raise ValueError(
            f"{train_split!r} has {len(train)} classes, but {split!r} has {len(other)}, the first that differs is "
            f"{odd!r}: are both of the same data set?"
        )
