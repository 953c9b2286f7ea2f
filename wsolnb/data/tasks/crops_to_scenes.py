"""Train on single objects, evaluate on whole scenes: the setting of Dense Class Maps, on any data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from wsolnb.data.critters import World
from wsolnb.data.crops import InstanceCrops, crop_transform
from wsolnb.data.in_memory import InMemoryDataset
from wsolnb.data.readers.images import SkipUnreadable
from wsolnb.data.readers.open import PHOTOS, open_scenes
from wsolnb.data.readers.photos import Photos
from wsolnb.data.readers.scenes import Target
from wsolnb.data.tasks.split import (
    SPLITS,
    LabelledSquares,
    Parts,
    check_classes,
    check_request,
    first,
    shuffled,
    with_one_object,
)
from wsolnb.data.taxonomy import Taxonomy

DATASETS = ("critters", "coco", "voc", *PHOTOS)


@dataclass(frozen=True)
class CropsToScenes(Parts):
    """A data set in five parts.

    Args:
        train: Images of one object, `(image, label)` or `(image, {"labels": one label, ...})`.
        tune: Scenes of the training split, to choose box thresholds on.
        tune_single: Images of the training split that show one object and are not trained on (drawn world), or those
            of `tune` that do (photos), to choose the thresholds for single objects on.
        test: Scenes of the test split.
        single: Test images that show one object, the sanity check of barz2022 Sec. 4.3.
        taxonomy: The class tree, for semantic embeddings.
    """

    tune: Dataset[Any]
    tune_single: Dataset[Any]
    test: Dataset[Any]
    single: Dataset[Any]
    taxonomy: Taxonomy


def from_critters(
    world: World, *, train_images: int, tune_images: int, test_images: int, scene_size: tuple[int, int], seed: int = 0
) -> CropsToScenes:
    """Critters: single animals for training, scenes of several species for the rest.

    >>> sizes = dict(train_images=24, tune_images=4, test_images=6, scene_size=(96, 128))
    >>> from_critters(World(size=64), **sizes).sizes
    {'classes': 12, 'train': 24, 'tune': 4, 'tune_single': 6, 'test': 6, 'single': 6}
    """
    return CropsToScenes(
        world.classes,
        InMemoryDataset(world.singles(train_images, seed=4 * seed), labels_only=True),
        InMemoryDataset(world.scenes(tune_images, seed=4 * seed + 1, size=scene_size)),
        InMemoryDataset(world.singles(test_images, seed=4 * seed + 1)),
        InMemoryDataset(world.scenes(test_images, seed=4 * seed + 2, size=scene_size)),
        InMemoryDataset(world.singles(test_images, seed=4 * seed + 3)),
        world.taxonomy,
    )


def from_photos(
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
) -> CropsToScenes:
    """Photos with boxes: crops of all instances of the training split, whole photos otherwise (barz2022 Sec. 4.2).

    Args:
        dataset: `coco` or `voc`, in the layouts of `wsolnb.data.readers.open.open_scenes`; or `imagenet`, `cub`,
            `openimages`, `dogs`, `aircraft` in their official layouts: these are trained on whole photos, and tuned on
            training photos that have boxes, drawn by `seed`.
        root: The data set's folder.
        splits: Names of the training and the test split; None: those of `SPLITS`.
        min_boxes: Leave out classes with fewer boxes in the training split.
        image_size: Side of the training images.
        short_side: Range of an object's short side before its square is cropped, in proportion to squares of 224 px.
        erase: Probability of random erasing.
        tree: Parent of every node of the class tree; None: the tree of COCO or VOC, or a flat tree if neither fits.
        train_images: Number of training images, drawn by `seed`; 0: all.
        tune_images: Number of scenes to tune on, the first ones of the training split; 0: all.
        test_images: Number of test scenes, the first ones; 0: all.
        skip_broken: Replace a training image whose photo does not decode by the next one, see `SkipUnreadable`.
        seed: Of the draws.

    Raises:
        ValueError: If the data set is unknown, a class is not in the tree, or no class or no object is left.
        FileNotFoundError: If a folder or file is missing.

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
    ...     data = from_photos("voc", folder, image_size=32)
    ...     data.sizes, data.train[0][0].shape
    ({'classes': 1, 'train': 2, 'tune': 2, 'tune_single': 2, 'test': 2, 'single': 2}, torch.Size([3, 32, 32]))
    """
    check_request(dataset, root, DATASETS)
    names = splits or SPLITS[dataset][::2]
    least, most = (max(image_size, round(side * image_size / 224)) for side in short_side)
    transform = crop_transform(image_size, (least, most), erase=erase)
    test: Any
    if dataset in PHOTOS:  # one class each: whole photos in place of crops, photos with boxes in place of scenes
        photos, test_photos = (PHOTOS[dataset](root, name) for name in names)
        check_classes(photos.classes, test_photos.classes, names, subset=False)
        order = shuffled(range(len(photos)), seed)
        boxed = [i for i in order if photos.has_boxes(i)]
        test_boxed = [i for i in range(len(test_photos)) if test_photos.has_boxes(i)]
        if not boxed or not test_boxed:
            raise ValueError(
                f"no image of the {'test' if boxed else 'training'} split has a box: are the annotations there?"
            )
        classes, own_tree = photos.classes, None
        train: Dataset[Any] = LabelledSquares(photos, order[: train_images or None], transform)
        tune_scenes: Any = _AsScenes(photos, boxed)
        test = _AsScenes(test_photos, test_boxed[: test_images or None])
        single: Dataset[Any] = Subset(test, with_one_object(test))
    else:
        scenes = open_scenes(dataset, root, names[0])
        test = open_scenes(dataset, root, names[1], classes=scenes.classes if dataset == "voc" else None)
        classes = scenes.frequent_classes(min_boxes or 1)
        scenes, test = scenes.only(classes), test.only(classes)
        crops = InstanceCrops(scenes, transform=transform, cache_side=most, skip_broken=skip_broken)
        one = with_one_object(test)
        if not one:
            raise ValueError(f"no image of {names[1]!r} shows a single object of the {len(classes)} classes")
        own_tree = scenes.taxonomy
        train = Subset(crops, shuffled(range(len(crops)), seed)[: train_images or None])
        tune_scenes, test, single = scenes, first(test, test_images), Subset(test, one)
    tune = first(tune_scenes, tune_images)
    tune_single = Subset(tune_scenes, with_one_object(tune_scenes, tune_images))
    taxonomy = Taxonomy(tree) if tree else own_tree or Taxonomy.flat(classes)
    train = SkipUnreadable(train) if skip_broken else train
    return CropsToScenes(classes, train, tune, tune_single, test, single, taxonomy)


class _AsScenes(Dataset[tuple[Tensor, Target]]):
    """Photos whose target has a label and a "crowd" flag for every box, as scenes have."""

    def __init__(self, photos: Photos, indices: Sequence[int]) -> None:
        self.photos, self.indices, self.classes = photos, list(indices), photos.classes

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        image, target = self.photos[self.indices[index]]
        return image, self._per_box(target)

    def target(self, index: int) -> Target:
        """The annotation of a photo, without decoding it."""
        return self._per_box(self.photos.target(self.indices[index]))

    def _per_box(self, target: Target) -> Target:
        count = len(target["boxes"])
        crowd = torch.zeros(count, dtype=torch.bool)
        return target | {"labels": target["labels"].expand(count).clone(), "crowd": crowd}
