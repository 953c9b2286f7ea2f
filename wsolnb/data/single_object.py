"""One object class per image, boxes for the test only: the setting of the localization papers, on any of the data sets.

A network learns the class from `train`; every threshold is chosen on `held`, which it has not seen; results are taken
on `test`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision import tv_tensors
from torchvision.transforms import v2

from wsolnb.data.coco import CocoScenes
from wsolnb.data.critters import World
from wsolnb.data.kept import Kept
from wsolnb.data.protocol import load_masks, read_split
from wsolnb.data.scenes import Scenes, Target
from wsolnb.data.voc import VocScenes

DATASETS = ("critters", "voc", "coco", "protocol")


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
        """Number of classes, and of images in each part."""
        return {"classes": len(self.classes)} | {name: len(getattr(self, name)) for name in ("train", "held", "test")}


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
    seed: int = 0,
) -> SingleObject:
    """Photos with one object class each.

    Args:
        dataset: `voc` or `coco` (of their scenes, those with exactly one box), or `protocol` (CUB, ImageNet or
            OpenImages by the field's metadata files).
        root: Folder of the photos: with a folder per split for `voc` and `coco`, or where the paths in the metadata
            start.
        metadata: `protocol`: folder with a folder of metadata per split.
        splits: Names of the training, the held-out and the test split. Without a held-out split, every fifth training
            image is held out.
        image_size: Side of the squares to train on, cut at random out of images of 256/224 of it, half of them flipped.
        train_images: Number of training images, drawn by `seed`; 0: all.
        held_images: Number of held-out images; 0: all.
        test_images: Number of test images; 0: all.
        seed: Of the draws.

    Raises:
        ValueError: If the data set is unknown, a folder is not given, or no image is left.
        FileNotFoundError: If a folder or file is missing.
    """
    if dataset not in DATASETS[1:]:
        raise ValueError(f"unknown data set {dataset!r}; known: {', '.join(DATASETS)}")
    for name, folder in (("data_root", root), *((("metadata", metadata),) if dataset == "protocol" else ())):
        if not str(folder):
            raise ValueError(f"data set {dataset!r} needs a folder: give {name}")
    where = (Path(root), Path(metadata))
    train, one = _read(dataset, *where, splits[0])
    known = train.classes if dataset == "voc" else None
    order = _drawn(one, seed)
    if splits[1]:
        held, others = _read(dataset, *where, splits[1], known)
        others = _drawn(others, seed)
    else:
        held, others, order = train, order[: len(order) // 5], order[len(order) // 5 :]
    test, last = _read(dataset, *where, splits[2], known)
    resize, crop = v2.Resize([round(256 / 224 * image_size)] * 2), v2.RandomCrop(image_size)
    return SingleObject(
        train.classes,
        _Augmented(train, order[: train_images or None], v2.Compose([resize, crop, v2.RandomHorizontalFlip()])),
        Subset(held, others[: held_images or None]),
        Subset(test, _drawn(last, seed)[: test_images or None]),
    )


class ProtocolImages(Dataset[tuple[Tensor, Target]]):
    """Photos with the field's metadata files (`wsolnb.data.protocol`): CUB-200-2011, ImageNet-1k, OpenImages30k.

    Far corners, which the files mean inclusively, become exclusive. Where the files have masks, the target has "masks"
    (the union of all instances, bool `(1, H, W)`) and "ignore", and its box is the extent of the mask. Splits without
    annotations have neither.

    Args:
        metadata: Folder of one split.
        root: Folder from which image and mask paths start.

    Raises:
        FileNotFoundError: If the metadata are missing, or an image when it is asked for.
        ValueError: If the metadata or an image do not parse.
    """

    def __init__(self, metadata: str | Path, root: str | Path) -> None:
        self.split, self.root = read_split(metadata), Path(root)
        self.classes = [str(k) for k in range(int(self.split.labels.max()) + 1)]

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        path = self.root / self.split.image_ids[index]
        if not path.is_file():
            raise FileNotFoundError(f"no image {path}: is the data root right?")
        try:
            with Image.open(path) as file:
                pixels = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)
        except OSError as error:
            raise ValueError(f"{path} does not decode as an image: {error}") from None
        size = (pixels.shape[1], pixels.shape[2])
        target: Target = {"labels": self.split.labels[index, None], "image_id": index}
        boxes = torch.zeros(0, 4)
        if self.split.boxes is not None:
            boxes = self.split.boxes[index].float() + torch.tensor([0.0, 0.0, 1.0, 1.0])
        elif self.split.masks is not None:
            mask, ignore = load_masks(self.split, index, self.root, size)
            target |= {"masks": tv_tensors.Mask(mask[None]), "ignore": tv_tensors.Mask(ignore[None])}
            boxes = _extent(mask)
        target["boxes"] = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size)
        return tv_tensors.Image(pixels), target


class _Augmented(Dataset[tuple[Tensor, int]]):
    """Some images of a data set, augmented, with their labels only."""

    def __init__(self, source: Dataset[Any], indices: list[int], transform: v2.Transform) -> None:
        self.source, self.indices, self.transform = source, indices, transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, target = self.source[self.indices[index]]
        return self.transform(image), int(target["labels"][0])


def _read(
    dataset: str, root: Path, metadata: Path, split: str, classes: list[str] | None = None
) -> tuple[Any, list[int]]:
    """A split, and its images with one object class."""
    if dataset == "protocol":
        images = ProtocolImages(metadata / split, root)
        return images, list(range(len(images)))
    scenes: Scenes
    if dataset == "coco":
        scenes = CocoScenes(root / split, root / "annotations" / f"instances_{split}.json")
    elif (root / "Annotations").is_dir():
        image_set = root / "ImageSets" / "Main" / f"{split}.txt"
        scenes = VocScenes(root / "Annotations", root / "JPEGImages", classes=classes, image_set=image_set)
    else:
        scenes = VocScenes(root / split, classes=classes)
    one = [i for i in range(len(scenes)) if len(scenes.target(i)["labels"]) == 1]
    if not one:
        raise ValueError(f"no image of {split!r} in {root} shows exactly one object")
    return scenes, one


def _drawn(indices: list[int], seed: int) -> list[int]:
    return [indices[k] for k in torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed)).tolist()]


def _extent(mask: Tensor) -> Tensor:
    rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
    if not len(rows):
        return torch.zeros(0, 4)
    return torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], dtype=torch.float32)
