"""Open any data set in its official layout, by its name, its root and a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wsolnb.data.readers._files import stretch
from wsolnb.data.readers.aircraft import Aircraft
from wsolnb.data.readers.coco import CocoScenes
from wsolnb.data.readers.cub import CubBirds
from wsolnb.data.readers.dogs import StanfordDogs
from wsolnb.data.readers.imagenet import ImageNet
from wsolnb.data.readers.layouts import TITLES, not_here, voc_folder
from wsolnb.data.readers.openimages import OpenImages30k
from wsolnb.data.readers.photos import Photos
from wsolnb.data.readers.protocol import load_masks, read_split
from wsolnb.data.readers.scenes import Transform
from wsolnb.data.readers.voc import VocScenes

PHOTOS: dict[str, Callable[..., Photos]] = {
    "cub": CubBirds,
    "imagenet": ImageNet,
    "openimages": OpenImages30k,
    "dogs": StanfordDogs,
    "aircraft": Aircraft,
}
"""Readers of data sets with one class per image, called as `reader(root, split)`."""


class ProtocolImages(Photos):
    """Photos with the field's metadata files (`wsolnb.data.readers.protocol`).

    Far corners, inclusive in the files, become exclusive. Boxes refer to the size that the files state for an image,
    and are scaled to its own; an image of another shape than the stated one is refused. Where the files have masks, the
    target has "masks" (the union of all instances, bool `(1, H, W)`) and "ignore", and its box is the extent of the
    mask. Splits without annotations have neither.

    `metadata` is the folder of one split, `root` the one that image and mask paths are relative to.

    >>> ProtocolImages("metadata/CUB/test", "data/cub/CUB_200_2011/images")  # doctest: +SKIP
    ProtocolImages(5794 images, 200 classes)
    """

    def __init__(self, metadata: str | Path, root: str | Path, *, transform: Transform | None = None) -> None:
        self.split = read_split(metadata)
        classes = [str(k) for k in range(int(self.split.labels.max()) + 1)]
        super().__init__(Path(root), self.split.image_ids, self.split.labels, classes=classes, transform=transform)
        self.box_file, self.sizes_file = Path(metadata) / "localization.txt", Path(metadata) / "image_sizes.txt"

    def has_boxes(self, index: int) -> bool:
        """Whether the metadata have boxes or masks."""
        return self.split.boxes is not None or self.split.masks is not None

    def _boxes(self, index: int, size: tuple[int, int]) -> Tensor | None:
        if self.split.boxes is None:
            return None
        boxes = self.split.boxes[index].double() + torch.tensor([0.0, 0.0, 1.0, 1.0])
        if self.split.sizes is not None:
            height, width = self.split.sizes[index].tolist()
            rows, columns = stretch((height, width), size, f"{self.sizes_file}, image {self.name(index)!r}")
            border = torch.tensor([width, height] * 2)
            boxes = boxes.minimum(border) * torch.tensor([columns, rows] * 2)
        return boxes

    def _masks(self, index: int, size: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
        return None if self.split.masks is None else load_masks(self.split, index, self.root, size)


def open_scenes(
    dataset: str, root: str | Path, split: str, *, classes: Sequence[str] | None = None, year: str = ""
) -> CocoScenes | VocScenes:
    """Open a split of photos with several objects.

    Args:
        dataset: `coco` (folders of photos beside `annotations/instances_<split>.json`) or `voc` (a folder per split
            with an XML file beside each photo, or `Annotations`, `JPEGImages` and `ImageSets/Main/<split>.txt`, in
            `root` or in its `VOCdevkit/`).
        root: The data set's folder.
        split: Name of the split.
        classes: Names, in the order of the labels: all that may occur (`voc`), or those to keep (`coco`).
        year: Of VOC or COCO; "": any.

    >>> open_scenes("coco", "data/coco2017", "val2017")  # doctest: +SKIP
    CocoScenes(5000 images, 36781 boxes, 80 classes)
    """
    root = Path(root)
    if dataset == "coco":
        annotations = root / "annotations" / f"instances_{split}.json"
        if not annotations.is_file():
            raise not_here(root, f"coco{year or 2017}", f"{split}/ and annotations/instances_{split}.json")
        return CocoScenes(root / split, annotations, classes=classes)
    if not year and (root / split).is_dir():
        return VocScenes(root / split, classes=classes)
    folder = voc_folder(root, year)
    image_set = folder / "ImageSets" / "Main" / f"{split}.txt"
    return VocScenes(folder / "Annotations", folder / "JPEGImages", classes=classes, image_set=image_set)


def open_split(name: str, root: str | Path, split: str) -> Dataset[Any]:
    """Open a split of a data set in its official layout.

    Args:
        name: A key of `wsolnb.data.readers.layouts.TITLES`.
        root: The data set's folder, as `wsolnb data get` makes it.
        split: As the data set calls it: `train2017` for COCO, `trainval` for VOC, a folder of metadata files.

    Raises:
        ValueError: If the data set or the split is unknown, or the files are wrong.
        FileNotFoundError: If files are missing; the message names the data set that the folder has instead.

    >>> open_split("voc2007", "data/voc2007", "test")  # doctest: +SKIP
    VocScenes(4952 images, 14976 boxes, 20 classes)
    """
    root = Path(root)
    if name in PHOTOS:
        return PHOTOS[name](root, split)
    if name in ("voc2007", "voc2012", "coco2014", "coco2017"):
        return open_scenes(name[:-4], root, split, year=name[-4:])
    if name == "protocol":
        if not (root / split / "image_ids.txt").is_file():
            raise not_here(root, name, f"{split}/image_ids.txt")
        return ProtocolImages(root / split, root)
    raise ValueError(f"unknown data set {name!r}; known: {', '.join(TITLES)}")
