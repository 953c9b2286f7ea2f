"""Several classes per image, boxes for evaluation only: the setting of localization by beam search, on any data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from wsolnb._utils.cache import cached
from wsolnb._utils.progress import track
from wsolnb.data.critters import World
from wsolnb.data.in_memory import InMemoryDataset
from wsolnb.data.readers.open import open_scenes
from wsolnb.data.tasks.split import SPLITS, Parts, check_request, first, shuffled

DATASETS = ("critters", "voc", "coco")


@dataclass(frozen=True)
class MultiLabel(Parts):
    """A data set in three parts.

    Args:
        train: Scenes of which only the image-level labels are used.
        held: Scenes with boxes, which the network has not seen, to choose thresholds and weights on.
        test: Scenes with boxes.
        unseen: Names of the classes that no image of `train` shows: their average precision is undefined.
    """

    held: Dataset[Any]
    test: Dataset[Any]
    unseen: list[str] = field(default_factory=list)

    @property
    def unseen_labels(self) -> list[int]:
        """Labels of the unseen classes."""
        return [self.classes.index(name) for name in self.unseen]


def from_critters(
    world: World, *, train_images: int, held_images: int, test_images: int, scene_size: tuple[int, int], seed: int = 0
) -> MultiLabel:
    """Critters, several in an image, drawn once and kept in memory.

    The labels of the training scenes are cached on disk (`wsolnb._utils.cache`), so that these scenes are drawn only
    if a network is trained on them.

    >>> sizes = dict(train_images=24, held_images=4, test_images=6, scene_size=(96, 128))
    >>> from_critters(World(size=64), **sizes).sizes
    {'classes': 12, 'train': 24, 'held': 4, 'test': 6}
    """
    counts = (train_images, held_images, test_images)
    train, held, test = (
        InMemoryDataset(world.scenes(count, seed=3 * seed + part, size=scene_size)) for part, count in enumerate(counts)
    )
    parts = ["drawn scenes", repr(world), 3 * seed, train_images, scene_size]
    present = cached("labels", parts, lambda: {"present": all_labels(train, len(world.classes))})["present"]
    return MultiLabel(world.classes, _KnownLabels(train, present), held, test, unseen(present, world.classes))


class _KnownLabels(InMemoryDataset):
    """Samples kept in memory whose labels are known without drawing them."""

    def __init__(self, dataset: Dataset[Any], present: Tensor) -> None:
        super().__init__(dataset)
        self.present = present

    def target(self, index: int) -> dict[str, Tensor]:
        """The classes of an image, without boxes."""
        return {"labels": self.present[index].nonzero()[:, 0]}


def from_photos(
    dataset: str,
    root: str | Path,
    *,
    splits: tuple[str, str, str] | None = None,
    min_images: int = 1,
    held_share: float = 0.2,
    train_images: int = 0,
    held_images: int = 0,
    test_images: int = 0,
    seed: int = 0,
) -> MultiLabel:
    """Photos with boxes, VOC (2007, 2012, or an XML file beside each photo) or COCO.

    Args:
        dataset: `voc` or `coco`, in the layouts of `wsolnb.data.readers.open.open_scenes`.
        root: The data set's folder.
        splits: Names of the training, the held-out and the test split; None: those of `SPLITS`.
        min_images: Leave out classes that fewer training images show; 0 keeps classes that none shows.
        held_share: Fraction of the training images that is held out if there is no held-out split.
        train_images: Number of training images, drawn by the seed; 0: all.
        held_images: Number of held-out images; 0: all.
        test_images: Number of test images, the first ones; 0: all.
        seed: Of the draws.

    Raises:
        ValueError: If the data set is unknown, no folder is given, no image would be held out, or no class is left.
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
    ...     from_photos("voc", folder).sizes
    {'classes': 1, 'train': 4, 'held': 1, 'test': 5}
    """
    check_request(dataset, root, DATASETS)
    names = splits or SPLITS[dataset]
    train = open_scenes(dataset, root, names[0])
    counts = (all_labels(train, len(train.classes)) == 1).sum(dim=0).tolist()
    classes = [name for name, count in zip(train.classes, counts, strict=True) if count >= min_images]
    if not classes:
        raise ValueError(f"no class is in {min_images} training images: the most frequent one is in {max(counts)}")
    order = shuffled(range(len(train)), seed)
    if names[1]:
        held = first(open_scenes(dataset, root, names[1], classes=train.classes).only(classes), held_images)
    else:
        held_count = round(held_share * len(order))
        held, order = Subset(train.only(classes), order[:held_count][: held_images or None]), order[held_count:]
    test = open_scenes(dataset, root, names[2], classes=train.classes).only(classes)
    chosen = Subset(train.only(classes), order[: train_images or None])
    if not len(held) or not len(chosen):  # type: ignore[arg-type]
        raise ValueError(f"{len(train)} training images are too few to hold some out: give more, or a held-out split")
    never = unseen(all_labels(chosen, len(classes)), classes)
    return MultiLabel(classes, chosen, held, first(test, test_images), never)


def multi_hot(target: dict[str, Any], classes: int) -> Tensor:
    """Which classes an image shows, from its boxes: float32 `(classes,)`.

    1: present; 0: absent; NaN: present as crowd only (VOC: difficult), which VOC's image lists leave undecided.

    >>> multi_hot({"labels": torch.tensor([2, 0, 2]), "crowd": torch.tensor([False, True, False])}, 4)
    tensor([nan, 0., 1., 0.])
    """
    labels = target["labels"]
    crowd = target.get("crowd", torch.zeros(len(labels), dtype=torch.bool))
    present = torch.zeros(classes)
    present[labels[crowd]] = torch.nan
    present[labels[~crowd]] = 1
    return present


def all_labels(scenes: Dataset[Any], classes: int) -> Tensor:
    """`multi_hot` of every image of a data set, `(N, classes)`; without decoding if the data set has `target(index)`.

    >>> from wsolnb.data.critters import World
    >>> all_labels(World(families=2, species=2, size=32).singles(3), 4)
    tensor([[1., 0., 0., 0.],
            [0., 1., 0., 0.],
            [0., 0., 1., 0.]])
    """
    count: int = len(scenes)  # type: ignore[arg-type]
    rows = [multi_hot(_target(scenes, index), classes) for index in track(range(count), "labels")]
    return torch.stack(rows) if rows else torch.zeros(0, classes)


def _target(scenes: Any, index: int) -> dict[str, Any]:
    if isinstance(scenes, Subset):
        return _target(scenes.dataset, scenes.indices[index])
    return scenes.target(index) if hasattr(scenes, "target") else scenes[index][1]


def unseen(present: Tensor, classes: Sequence[str]) -> list[str]:
    """Names of the classes that no training image shows.

    >>> unseen(torch.tensor([[1.0, 0.0], [1.0, torch.nan]]), ["cat", "dog"])
    ['dog']
    """
    return [name for name, column in zip(classes, present.T, strict=True) if not bool((column == 1).any())]
