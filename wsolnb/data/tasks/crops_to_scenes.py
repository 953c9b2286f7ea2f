"""Train on single objects, test on whole scenes: the setting of Dense Class Maps, on any of the data sets.

Training images show one object each. Box thresholds are tuned on scenes of the training split, results are taken on
scenes of the test split, and images with one object serve as the sanity check of barz2022 Sec. 4.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.transforms import v2

from wsolnb.data.critters import World
from wsolnb.data.crops import InstanceCrops, crop_transform
from wsolnb.data.in_memory import Kept
from wsolnb.data.readers.images import Readable, count_broken
from wsolnb.data.readers.open import PHOTOS, open_scenes, open_split
from wsolnb.data.readers.photos import Photos
from wsolnb.data.readers.scenes import Scenes, Target
from wsolnb.data.taxonomy import Taxonomy

DATASETS = ("critters", "coco", "voc", *PHOTOS)
_SPLITS = {"coco": ("train2017", "val2017"), "imagenet": ("train", "val")}


@dataclass(frozen=True)
class MultiObject:
    """A data set in four parts.

    Args:
        classes: Names; label k is `classes[k]`.
        taxonomy: The class tree, for semantic embeddings.
        train: Images of one object, `(image, label)` or `(image, {"labels": one label, ...})`.
        tune: Scenes of the training split.
        test: Scenes of the test split.
        single: Test images that show one object.
    """

    classes: list[str]
    taxonomy: Taxonomy
    train: Dataset[Any]
    tune: Dataset[Any]
    test: Dataset[Any]
    single: Dataset[Any]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of classes, and of images in each part; where asked to skip them, of training images found broken."""
        parts = {name: len(getattr(self, name)) for name in ("train", "tune", "test", "single")}
        return {"classes": len(self.classes), **parts, **count_broken(self.train)}


def drawn(
    world: World, *, train_images: int, tune_images: int, test_images: int, scene_size: tuple[int, int], seed: int = 0
) -> MultiObject:
    """Critters: single animals for training, scenes of several species for the rest.

    Example:
        >>> sizes = dict(train_images=24, tune_images=4, test_images=6, scene_size=(96, 128))
        >>> drawn(World(size=64), **sizes).sizes
        {'classes': 12, 'train': 24, 'tune': 4, 'test': 6, 'single': 6}
    """
    first = 4 * seed
    return MultiObject(
        world.classes,
        world.taxonomy,
        Kept(world.singles(train_images, seed=first), bare=True),
        Kept(world.scenes(tune_images, seed=first + 1, size=scene_size)),
        Kept(world.scenes(test_images, seed=first + 2, size=scene_size)),
        Kept(world.singles(test_images, seed=first + 3)),
    )


def photos(
    dataset: str,
    root: str | Path,
    *,
    splits: tuple[str, str] | None = None,
    min_boxes: int = 0,
    image_size: int = 224,
    short_side: tuple[int, int] = (256, 480),
    erase: float = 0.5,
    tree: Mapping[str, str] | None = None,
    train_images: int = 0,
    tune_images: int = 0,
    test_images: int = 0,
    skip_broken: bool = False,
    seed: int = 0,
) -> MultiObject:
    """Photos with boxes: every instance of the training split cut out, whole photos for the rest (barz2022 Sec. 4.2).

    Args:
        dataset: `coco` (folders of photos beside `annotations/instances_<split>.json`) or `voc` (a folder per split
            with an XML file beside each photo, or `Annotations`, `JPEGImages` and `ImageSets/Main/<split>.txt`); or
            `imagenet`, `cub`, `openimages`, `dogs`, `aircraft` in their official layouts: there, whole photos are
            trained on, and tuned on are those of them that have boxes, drawn by `seed`.
        root: The data set's folder.
        splits: Names of the training and the test split; None: train2017 and val2017, train and val (ImageNet), or
            train and test.
        min_boxes: Classes with fewer boxes in the training split are left out everywhere.
        image_size: Side of the training images.
        short_side: Range from which an object's short side is drawn before its square is cut, for squares of 224
            pixels; other sizes in proportion.
        erase: Probability of random erasing.
        tree: Parent of every node of the class tree; None takes COCO's or VOC's own, or a flat tree if neither fits.
        train_images: Number of instances to train on, drawn by `seed`; 0: all.
        tune_images: Number of training scenes to tune on, the first ones; 0: all.
        test_images: Number of test scenes, the first ones; 0: all.
        skip_broken: Train on the next object in place of one whose photo does not decode; `train.broken_files` lists
            them.
        seed: Of the draw.

    Raises:
        ValueError: If the data set is unknown, a class is not in the tree, or no class or no object is left.
        FileNotFoundError: If a folder or file is missing.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> corners = "<xmin>5</xmin><ymin>5</ymin><xmax>45</xmax><ymax>45</ymax>"
        >>> xml = f"<annotation><object><name>cat</name><bndbox>{corners}</bndbox></object></annotation>"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for split in ("train", "test"):
        ...         Path(folder, split).mkdir()
        ...         for k in range(2):
        ...             Image.new("RGB", (64, 48)).save(Path(folder, split, f"{k}.jpg"))
        ...             _ = Path(folder, split, f"{k}.xml").write_text(xml)
        ...     data = photos("voc", folder, image_size=32)
        ...     data.sizes, data.train[0][0].shape
        ({'classes': 1, 'train': 2, 'tune': 2, 'test': 2, 'single': 2}, torch.Size([3, 32, 32]))
    """
    if dataset not in DATASETS[1:]:
        raise ValueError(f"unknown data set {dataset!r}; known: {', '.join(DATASETS)}")
    if not str(root):
        raise ValueError(f"data set {dataset!r} needs a folder: give data_root")
    train_split, test_split = splits or _SPLITS.get(dataset, ("train", "test"))
    least, most = (max(image_size, round(side * image_size / 224)) for side in short_side)
    transform = crop_transform(image_size, (least, most), erase=erase)
    if dataset in PHOTOS:
        whole = (open_split(dataset, root, train_split), open_split(dataset, root, test_split))
        return _one_class_each(*whole, transform, tree, (train_images, tune_images, test_images), skip_broken, seed)
    train = open_scenes(dataset, root, train_split)
    test = open_scenes(dataset, root, test_split, classes=train.classes if dataset == "voc" else None)
    classes = train.frequent_classes(min_boxes or 1)
    train, test = train.only(classes), test.only(classes)
    taxonomy = Taxonomy(tree) if tree else (train.taxonomy or Taxonomy.flat(classes))
    crops = InstanceCrops(train, transform=transform, cache_side=most, skip_broken=skip_broken)
    one = [i for i in range(len(test)) if len(test.target(i)["labels"]) == 1]
    if not one:
        raise ValueError(f"no image of {test_split!r} shows a single object of the {len(classes)} classes")
    order = torch.randperm(len(crops), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = Subset(crops, order[: train_images or None])
    return MultiObject(
        classes,
        taxonomy,
        Readable(chosen) if skip_broken else chosen,
        _first(train, tune_images),
        _first(test, test_images),
        Subset(test, one),
    )


def _one_class_each(
    train: Any,
    test: Any,
    transform: Any,
    tree: Mapping[str, str] | None,
    counts: tuple[int, int, int],
    skip_broken: bool,
    seed: int,
) -> MultiObject:
    """Photos with one class each: whole photos in the place of cut-out objects, photos with boxes in that of scenes."""
    if train.classes != test.classes:
        raise ValueError(
            f"the splits have {len(train.classes)} and {len(test.classes)} classes, or others: same data set?"
        )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).tolist()
    boxed, tested = [i for i in order if train.has_boxes(i)], [i for i in range(len(test)) if test.has_boxes(i)]
    if not boxed or not tested:
        raise ValueError(
            f"no image of the {'test' if boxed else 'training'} split has a box: are the annotations there?"
        )
    scenes = AsScenes(test, tested[: counts[2] or None])
    one = [i for i in range(len(scenes)) if len(scenes.target(i)["boxes"]) == 1]
    squares = LabelledSquares(train, order[: counts[0] or None], transform)
    return MultiObject(
        train.classes,
        Taxonomy(tree) if tree else Taxonomy.flat(train.classes),
        Readable(squares) if skip_broken else squares,
        AsScenes(train, boxed[: counts[1] or None]),
        scenes,
        Subset(scenes, one),
    )


def _first(scenes: Scenes, count: int) -> Dataset[Any]:
    return Subset(scenes, range(min(count, len(scenes)))) if count else scenes


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
