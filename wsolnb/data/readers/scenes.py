"""Photos with boxes: what all readers of official layouts share."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from wsolnb.data.readers.images import decode
from wsolnb.data.taxonomy import Taxonomy, coco_taxonomy, voc_taxonomy

OVERSHOOT = 2.0  # pixels by which a box may leave its image before it counts as wrong and not as rounded

Target = dict[str, Any]
Transform = Callable[[Any, Any], tuple[Any, Any]]


class Scenes(Dataset[tuple[Tensor, Target]]):
    """Images on disk with any number of labelled boxes, decoded one by one.

    `scenes[i]` is `(image, target)`: image a `tv_tensors.Image`, uint8 (3, H, W), RGB; target a dictionary with
    "boxes" (`tv_tensors.BoundingBoxes`, float32 (n, 4), XYXY, pixels, far corner exclusive), "labels" (int64
    (n,)), "crowd" (bool (n,)) and "image_id" (int); readers that are asked for masks add "masks"
    (`tv_tensors.Mask`, bool (n, H, W), in the order of the boxes) and "ignore" (bool (1, H, W), pixels that count as
    neither object nor background). Images without a box are kept. EXIF orientation is not applied: boxes refer to the
    pixels as they are stored.

    Attributes:
        classes: names; label k is classes[k].
        taxonomy: the tree of the classes if COCO's or VOC's tree has them all, else None. Set it to your own.
        transform: called as `transform(image, target)`, or None.
        sizes: int64 (len, 2), height and width of every image.

    Args:
        files: path of every image.
        image_ids: the number that every image goes by.
        sizes: (len, 2), height and width of every image.
        images: (N,) for every box, the index of its image; ascending.
        boxes: (N, 4) xyxy.
        labels: (N,) index into `classes`.
        crowd: (N,) bool.
        classes: names.
        transform: called as `transform(image, target)`.
    """

    def __init__(
        self,
        files: Sequence[Path],
        image_ids: Sequence[int],
        sizes: np.ndarray,
        *,
        images: np.ndarray,
        boxes: np.ndarray,
        labels: np.ndarray,
        crowd: np.ndarray,
        classes: Sequence[str],
        transform: Transform | None = None,
    ) -> None:
        self.files = list(files)
        self.image_ids = list(image_ids)
        self.sizes = torch.as_tensor(sizes, dtype=torch.int64).reshape(-1, 2)
        self.classes = list(classes)
        self.transform = transform
        self._images = torch.as_tensor(images, dtype=torch.int64)
        self._boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        self._labels = torch.as_tensor(labels, dtype=torch.int64)
        self._crowd = torch.as_tensor(crowd, dtype=torch.bool)
        self._numbers = torch.arange(len(self._labels))  # of the boxes as they were read, whatever classes are kept
        self.taxonomy = _known_tree(self.classes)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        image, target = self.image(index), self.target(index)
        found = self._masks(index)
        if found is not None:
            target |= {name: tv_tensors.Mask(mask) for name, mask in zip(("masks", "ignore"), found, strict=True)}
        return (image, target) if self.transform is None else self.transform(image, target)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} images, {len(self._boxes)} boxes, {len(self.classes)} classes)"

    def image(self, index: int) -> Tensor:
        """Decode an image.

        Raises:
            FileNotFoundError: the file is missing.
            UnreadableImage: the file does not decode (a ValueError).
            ValueError: its size is not the one in the annotations.
        """
        path = self.files[index]
        pixels = decode(path)
        height, width = self.sizes[index].tolist()
        if pixels.shape[1:] != (height, width):
            raise ValueError(
                f"{path} has {pixels.shape[2]} x {pixels.shape[1]} pixels, but its annotations say {width} x "
                f"{height}; boxes must refer to the pixels as they are stored, without EXIF rotation"
            )
        return pixels

    def target(self, index: int) -> Target:
        """The truth about an image, without decoding it and without the transform."""
        index = range(len(self))[index]
        kept = self._span(index)
        height, width = self.sizes[index].tolist()
        boxes = tv_tensors.BoundingBoxes(
            self._boxes[kept].clone(), format=tv_tensors.BoundingBoxFormat.XYXY, canvas_size=(height, width)
        )
        return {
            "boxes": boxes,
            "labels": self._labels[kept].clone(),
            "crowd": self._crowd[kept].clone(),
            "image_id": self.image_ids[index],
        }

    def only(self, classes: Sequence[str]) -> Self:
        """The same images with the boxes of some classes only; label k is then classes[k].

        Raises:
            ValueError: no class, a class twice, or a class that is not there (the closest names are listed).
        """
        scenes = copy.copy(self)
        scenes._keep(classes, "this data set")
        return scenes

    def frequent_classes(self, min_boxes: int, *, min_size: float = 0) -> list[str]:
        """Names of the classes with at least `min_boxes` boxes, in their order; for use on test images too.

        Args:
            min_boxes: smallest number of boxes.
            min_size: boxes smaller than this many pixels in both dimensions do not count, nor do crowds.

        Raises:
            ValueError: no class is left.
        """
        width, height = (self._boxes[:, 2:] - self._boxes[:, :2]).T
        counted = ~self._crowd & ((width >= min_size) | (height >= min_size))
        counts = torch.bincount(self._labels[counted], minlength=len(self.classes)).tolist()
        names = [name for name, count in zip(self.classes, counts, strict=True) if count >= min_boxes]
        if not names:
            raise ValueError(
                f"no class has at least {min_boxes} boxes: the most frequent of {len(self.classes)} classes has "
                f"{max(counts, default=0)}; lower the cut or take more images"
            )
        return names

    def _masks(self, index: int) -> tuple[Tensor, Tensor] | None:
        """Masks of the objects, bool (n, H, W), and the region to ignore, (1, H, W); None: not asked for."""
        return None

    def _span(self, index: int) -> slice:
        """Where the boxes of an image stand."""
        index = range(len(self))[index]
        return slice(*torch.searchsorted(self._images, torch.tensor([index, index + 1])).tolist())

    def _keep(self, classes: Sequence[str], where: str) -> None:
        check_names(classes, self.classes, where)
        new_label = torch.full((len(self.classes),), -1)
        new_label[[self.classes.index(name) for name in classes]] = torch.arange(len(classes))
        keep = new_label[self._labels] >= 0
        self.classes = list(classes)
        self._labels = new_label[self._labels[keep]]
        self._images, self._boxes, self._crowd = self._images[keep], self._boxes[keep], self._crowd[keep]
        self._numbers = self._numbers[keep]
        self.taxonomy = self.taxonomy or _known_tree(self.classes)


class SceneBatch(NamedTuple):
    """Scenes of one size, as a network takes them, with their truth in original pixels."""

    images: Tensor  # float32 (B, 3, h, w) in [0, 1], resized
    sizes: Tensor  # int64 (B, 2), original height and width
    targets: list[Target]  # boxes in original pixels
    indices: list[int]  # into the dataset


def scene_transform(longer_side: int = 640) -> v2.Transform:
    """Resize a scene so that its longer side has `longer_side` pixels (barz2022 section 3.3).

    The boxes travel along; the image comes out as float32 in [0, 1]. Takes `(image, target)` or an image.

    >>> image, boxes = torch.zeros(3, 30, 60), torch.tensor([[6.0, 3.0, 30.0, 30.0]])
    >>> boxes = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(30, 60))
    >>> image, target = scene_transform(120)(tv_tensors.Image(image), {"boxes": boxes})
    >>> tuple(image.shape), target["boxes"].tolist()
    ((3, 60, 120), [[12.0, 6.0, 60.0, 60.0]])
    """
    return v2.Compose([v2.Resize(None, max_size=longer_side), v2.ToDtype(torch.float32, scale=True)])


def scene_batches(
    scenes: Dataset[tuple[Tensor, Target]],
    *,
    longer_side: int | None = 640,
    side: int | None = None,
    batch_size: int = 1,
    workers: int = 0,
) -> Iterator[SceneBatch]:
    """Go through all scenes once, in batches of images that have the same size after resizing.

    Nothing is padded or cut: images of different sizes wait in different batches, and the last batches may be
    small. The images are resized, the boxes are not: predict boxes for `sizes` and compare in original pixels.

    Args:
        scenes: a dataset of (image, target) without transform.
        longer_side: pixels of the longer side, or None to keep the size.
        side: makes squares with this many pixels on a side instead.
        batch_size: largest number of images in a batch, at least 1.
        workers: processes that decode.

    Yields:
        `SceneBatch`; every scene is in exactly one of them.

    >>> from wsolnb.data.critters import World
    >>> for batch in scene_batches(World().scenes(5), longer_side=48, batch_size=4):
    ...     print(tuple(batch.images.shape), batch.sizes[0].tolist(), batch.indices)
    (4, 3, 48, 48) [96, 96] [0, 1, 2, 3]
    (1, 3, 48, 48) [96, 96] [4]
    """
    waiting: dict[tuple[int, ...], list[tuple[Tensor, Tensor, Target, int]]] = {}
    resize = None if longer_side is None else scene_transform(longer_side)
    if side is not None:
        resize = v2.Compose([v2.Resize([side, side]), v2.ToDtype(torch.float32, scale=True)])
    resized = _Resized(scenes, resize)
    loader = DataLoader(resized, batch_size=None, collate_fn=_as_it_is, num_workers=workers)
    for index, (image, size, target) in enumerate(loader):
        group = waiting.setdefault(tuple(image.shape), [])
        group.append((image, size, target, index))
        if len(group) == batch_size:
            yield _batch(waiting.pop(tuple(image.shape)))
    yield from map(_batch, waiting.values())


def check_names(names: Sequence[str], known: Sequence[str], where: str) -> None:
    """Refuse a list of classes that is empty, repeats a name, or has a name that is not known."""
    if not names:
        raise ValueError(f"no classes left: the list of classes is empty, {where} has {len(known)}")
    if len(set(names)) < len(names):
        raise ValueError(f"every class may be named once, got {list(names)}")
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3) or list(known[:5])
            raise ValueError(f"{where} has no class {name!r} among its {len(known)}; the closest are {close}")


def checked_boxes(boxes: np.ndarray, sizes: np.ndarray, name: Callable[[int], str]) -> np.ndarray:
    """Refuse impossible boxes, and clip those to their image that leave it by rounding only (2 px at most).

    Args:
        boxes: (N, 4) xyxy.
        sizes: (N, 2) height and width of the image of every box.
        name: tells for box number k the file and the annotation it comes from.

    Returns:
        (N, 4) float32 within the images. Boxes without extent in one direction (COCO has a few) are kept.

    Raises:
        ValueError: a box that is not finite, ends before it begins, or leaves its image.
    """
    far = sizes[:, [1, 0, 1, 0]].astype(np.float64)
    wrong = {
        "has a coordinate that is no number": ~np.isfinite(boxes).all(1),
        "ends before it begins": (boxes[:, 2:] < boxes[:, :2]).any(1),
        "lies outside its image": ((boxes < -OVERSHOOT) | (boxes > far + OVERSHOOT)).any(1),
    }
    for problem, rows in wrong.items():
        if rows.any():
            k = int(rows.argmax())
            box = [round(x, 2) for x in boxes[k].tolist()]
            raise ValueError(
                f"{name(k)}: box {box} (left, top, right, bottom) {problem}; the image has {sizes[k, 1]} x "
                f"{sizes[k, 0]} pixels; correct the annotation"
            )
    return np.clip(boxes, 0, far).astype(np.float32)


class _Resized(Dataset[tuple[Tensor, Tensor, Target]]):
    """Adds the original size, and resizes the image only."""

    def __init__(self, scenes: Dataset[tuple[Tensor, Target]], resize: v2.Transform | None) -> None:
        self.scenes, self.resize = scenes, resize or v2.ToDtype(torch.float32, scale=True)

    def __len__(self) -> int:
        return len(self.scenes)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Target]:
        image, target = self.scenes[index]
        return self.resize(tv_tensors.Image(image)).as_subclass(Tensor), torch.tensor(image.shape[-2:]), target


def _as_it_is(sample: Any) -> Any:
    return sample


def _batch(group: list[tuple[Tensor, Tensor, Target, int]]) -> SceneBatch:
    images, sizes, targets, indices = zip(*group, strict=True)
    return SceneBatch(torch.stack(images), torch.stack(sizes), list(targets), list(indices))


def _known_tree(classes: Sequence[str]) -> Taxonomy | None:
    for tree in (coco_taxonomy(), voc_taxonomy()):
        if all(name in tree for name in classes):
            return tree
    return None
