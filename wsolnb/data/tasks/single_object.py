"""One object class per image, boxes for evaluation only: the setting of the localization papers, on any data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.transforms import v2

from wsolnb.data.critters import World
from wsolnb.data.disk_cache import PixelCache, pixel_cache
from wsolnb.data.in_memory import InMemoryDataset
from wsolnb.data.readers.images import SkipUnreadable
from wsolnb.data.readers.open import PHOTOS, ProtocolImages, open_scenes, open_split
from wsolnb.data.readers.photos import Photos
from wsolnb.data.tasks.split import (
    LabelledSquares,
    Parts,
    check_classes,
    check_request,
    shuffled,
    with_one_object,
    without_metadata,
)

DATASETS = ("critters", "voc", "coco", "protocol", *PHOTOS)


@dataclass(frozen=True)
class SingleObject(Parts):
    """A data set in three parts.

    Args:
        train: Images with a label.
        held: Images with boxes, which the network has not seen, to choose thresholds on.
        test: Images with boxes.
    """

    held: Dataset[Any]
    test: Dataset[Any]


def from_critters(
    world: World, *, train_images: int, held_images: int, test_images: int, seed: int = 0
) -> SingleObject:
    """Critters: single animals, with masks of the animal and of its mark.

    >>> from_critters(World(size=32), train_images=24, held_images=4, test_images=6).sizes
    {'classes': 12, 'train': 24, 'held': 4, 'test': 6}
    """
    return SingleObject(
        world.classes,
        InMemoryDataset(world.singles(train_images, seed=3 * seed), labels_only=True),
        InMemoryDataset(world.singles(held_images, seed=3 * seed + 1)),
        InMemoryDataset(world.singles(test_images, seed=3 * seed + 2)),
    )


def from_photos(
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
        dataset: `cub`, `imagenet`, `openimages`, `dogs` or `aircraft` in their official layouts; `voc` or `coco` (their
            images with exactly one box); or `protocol` (any data set with the field's metadata files).
        root: The data set's folder; for `protocol`, the folder that paths in the metadata are relative to.
        metadata: `protocol`: folder with a folder of metadata per split; "": see `split.without_metadata`.
        splits: Names of the training, the held-out and the test split. Without a held-out split, `held_images` (0: a
            fifth, which is also the maximum) of the training images that have boxes are held out.
        image_size: Side of the training squares: random crops, half of them flipped, of images resized to 256/224 of
            this side.
        train_images: Number of training images, drawn by `seed`; 0: all.
        held_images: Number of held-out images; 0: all.
        test_images: Number of test images; 0: all.
        skip_broken: Replace a training image that does not decode by the next one, see `SkipUnreadable`.
        cache_gb: Size of the disk cache of resized training images, in 1e9 bytes; 0: none. The pixels are the same.
        seed: Of the draws.

    Raises:
        ValueError: If the data set is unknown, a folder is not given, no image is left, or the splits' classes differ.
        FileNotFoundError: If a folder or file is missing.

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
    ...     data = from_photos("voc", folder, image_size=32)
    ...     data.classes, data.sizes, data.train[0][0].shape
    (['cat'], {'classes': 1, 'train': 4, 'held': 1, 'test': 5}, torch.Size([3, 32, 32]))
    """
    check_request(dataset, root, DATASETS)
    if dataset == "protocol" and not str(metadata):
        dataset, splits = without_metadata(root, splits)
    folders = (Path(root), Path(metadata))
    train, usable = _read(dataset, *folders, splits[0])
    classes = train.classes if dataset == "voc" else None
    order = shuffled(usable, seed)
    if splits[1]:
        held, usable = _read(dataset, *folders, splits[1], classes)
        held_order = shuffled(usable, seed)
    else:
        held, held_order = train, [i for i in order if not isinstance(train, Photos) or train.has_boxes(i)]
        if not held_order:
            raise ValueError(f"no image of {splits[0]!r} in {root} has a box: name a held-out split that has them")
        fifth = len(held_order) // 5
        held_order = held_order[: min(held_images, fifth) or fifth]
        held_out = set(held_order)
        order = [i for i in order if i not in held_out]
    test, usable = _read(dataset, *folders, splits[2], classes)
    for name, part in zip(splits[1:], (held, test), strict=True):
        check_classes(train.classes, part.classes, (splits[0], name), subset=True)
    resize, crop = v2.Resize([round(256 / 224 * image_size)] * 2), v2.RandomCrop(image_size)
    transform = v2.Compose([resize, crop, v2.RandomHorizontalFlip()])
    cache = pixel_cache(train, resize.size[0], cache_gb)
    augmented = _Augmented(train, order[: train_images or None], transform, cache)
    return SingleObject(
        train.classes,
        SkipUnreadable(augmented) if skip_broken else augmented,
        Subset(held, held_order[: held_images or None]),
        Subset(test, shuffled(usable, seed)[: test_images or None]),
    )


class _Augmented(LabelledSquares):
    """Resizes first, and takes resized images from a cache."""

    def __init__(self, source: Any, indices: list[int], transform: v2.Compose, cache: PixelCache | None) -> None:
        super().__init__(source, indices, transform)
        self.cache = cache

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        at = self.indices[index]
        resize, *augment = self.transform.transforms

        def resized() -> Tensor:
            return resize(self.source.image(at))

        image = resized() if self.cache is None else self.cache.get(at, self.file(index), resized)
        return v2.Compose(augment)(image), self._label(at)


def _read(
    dataset: str, root: Path, metadata: Path, split: str, classes: list[str] | None = None
) -> tuple[Any, list[int]]:
    """A split, and the indices of its images with one object class."""
    if dataset == "protocol" or dataset in PHOTOS:
        official = dataset in PHOTOS
        photos: Any = open_split(dataset, root, split) if official else ProtocolImages(metadata / split, root)
        return photos, list(range(len(photos)))
    scenes = open_scenes(dataset, root, split, classes=classes)
    one = with_one_object(scenes)
    if not one:
        raise ValueError(f"no image of {split!r} in {root} shows exactly one object")
    return scenes, one
