"""Photos of scenes, with any number of boxes: what the readers of COCO and VOC share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from wsolnb.data.readers._files import check_names
from wsolnb.data.readers.images import decode
from wsolnb.data.taxonomy import Taxonomy, coco_taxonomy, voc_taxonomy

Target = dict[str, Any]
Transform = Callable[[Any, Any], tuple[Any, Any]]


class Scenes(Dataset[tuple[Tensor, Target]]):
    """Images on disk with any number of labelled boxes, decoded one by one.

    `scenes[i]` is `(image, target)`: image a `tv_tensors.Image`, uint8 (3, H, W), RGB; target a dictionary with
    "boxes" (`tv_tensors.BoundingBoxes`, float32 (n, 4), XYXY, pixels, far corner exclusive), "labels" (int64
    (n,)), "crowd" (bool (n,)) and "image_id" (int), and with `masks=True` "masks" (`tv_tensors.Mask`, bool (n, H, W),
    in the order of the boxes) and "ignore" (bool (1, H, W), pixels that count as neither object nor background).
    Images without a box are kept. EXIF orientation is not applied: boxes refer to the pixels as stored.

    Attributes:
        taxonomy: the class tree, if COCO's or VOC's tree has all classes, else None; may be set.

    Args:
        sizes: (len, 2), height and width of every image.
        images: (N,) for every box, the index of its image; ascending.
        boxes: (N, 4) xyxy.
        labels: (N,) index into `classes`.
        crowd: (N,) bool.
        transform: torchvision v2 transform, called as `transform(image, target)`.

    >>> where = dict(images=[0, 0], boxes=[[0, 0, 9, 9], [5, 5, 20, 20]], labels=[0, 1], crowd=[False, False])
    >>> scenes = Scenes([Path("a.jpg")], [7], np.array([[30, 40]]), **where, classes=["cat", "dog"])
    >>> scenes.only(["dog"]).target(0)["boxes"].tolist()
    [[5.0, 5.0, 20.0, 20.0]]
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
        self.files, self.image_ids, self.classes = list(files), list(image_ids), list(classes)
        self.sizes = torch.as_tensor(sizes, dtype=torch.int64).reshape(-1, 2)
        self.transform = transform
        self._images = torch.as_tensor(images, dtype=torch.int64)
        self._boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        self._labels = torch.as_tensor(labels, dtype=torch.int64)
        self._crowd = torch.as_tensor(crowd, dtype=torch.bool)
        self._numbers = torch.arange(len(self._labels))  # of the boxes in the file, whichever classes are kept
        self.taxonomy = _tree_with(self.classes)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        image, target = self.image(index), self.target(index)
        masks = self._masks(index)
        if masks is not None:
            target |= {name: tv_tensors.Mask(mask) for name, mask in zip(("masks", "ignore"), masks, strict=True)}
        return (image, target) if self.transform is None else self.transform(image, target)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} images, {len(self._boxes)} boxes, {len(self.classes)} classes)"

    def image(self, index: int) -> Tensor:
        """Decode an image; raises as `decode`, and ValueError if its size is not the one in the annotations."""
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
        """The target of an image, without decoding the image and without the transform."""
        index = range(len(self))[index]
        rows = self._span(index)
        height, width = self.sizes[index].tolist()
        boxes = tv_tensors.BoundingBoxes(self._boxes[rows].clone(), format="XYXY", canvas_size=(height, width))
        labels, crowd = self._labels[rows].clone(), self._crowd[rows].clone()
        return {"boxes": boxes, "labels": labels, "crowd": crowd, "image_id": self.image_ids[index]}

    def only(self, classes: Sequence[str]) -> Self:
        """The same images with the boxes of some classes only; label k is then classes[k].

        Raises:
            ValueError: no class, a class twice, or a class that is not there (the closest names are listed).
        """
        scenes = copy.copy(self)
        scenes._keep(classes, "this data set")
        return scenes

    def frequent_classes(self, min_boxes: int, *, min_size: float = 0) -> list[str]:
        """Names of the classes with at least `min_boxes` boxes, in order; ValueError if there is none.

        Boxes smaller than `min_size` pixels in both dimensions do not count, nor do crowds.
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
        """Masks of the objects, bool (n, H, W), and the region to ignore, (1, H, W), or None."""
        return None

    def _span(self, index: int) -> slice:
        """The rows of an image's boxes."""
        index = range(len(self))[index]
        return slice(*torch.searchsorted(self._images, torch.tensor([index, index + 1])).tolist())

    def _keep(self, classes: Sequence[str], source: str) -> None:
        check_names(classes, self.classes, source)
        new_label = torch.full((len(self.classes),), -1)
        new_label[[self.classes.index(name) for name in classes]] = torch.arange(len(classes))
        keep = new_label[self._labels] >= 0
        self.classes = list(classes)
        self._labels = new_label[self._labels[keep]]
        self._images, self._boxes, self._crowd = self._images[keep], self._boxes[keep], self._crowd[keep]
        self._numbers = self._numbers[keep]
        self.taxonomy = self.taxonomy or _tree_with(self.classes)


class SceneBatch(NamedTuple):
    """Scenes of one size, ready for a network, with targets in original pixels."""

    images: Tensor  # float32 (B, 3, h, w) in [0, 1], resized
    sizes: Tensor  # int64 (B, 2), original height and width
    targets: list[Target]  # boxes in original pixels
    indices: list[int]  # into the dataset


def scene_transform(longer_side: int = 640) -> v2.Transform:
    """Resize a scene to `longer_side` pixels on its longer side (barz2022 Sec. 3.3).

    Boxes are resized too; the image becomes float32 in [0, 1]. Takes `(image, target)` or an image.

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
    indices: Sequence[int] | None = None,
) -> Iterator[SceneBatch]:
    """All scenes once, in batches of images that have the same size after resizing.

    Nothing is padded or cropped: images of different sizes go to different batches, and the last batches may be small.
    Only images are resized, boxes are not: predict boxes for `sizes` and compare in original pixels.

    Args:
        scenes: items (image, target), without a transform.
        longer_side: pixels of the longer side; None keeps the size.
        side: makes squares with this many pixels on a side instead.
        batch_size: largest number of images in a batch.
        workers: processes that decode.
        indices: of the scenes to read; None reads all.

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
    order = range(len(resized)) if indices is None else indices
    loader = DataLoader(resized, batch_size=None, sampler=order, collate_fn=_identity, num_workers=workers)
    for index, (image, size, target) in zip(order, loader, strict=True):
        group = waiting.setdefault(tuple(image.shape), [])
        group.append((image, size, target, index))
        if len(group) == batch_size:
            yield _batch(waiting.pop(tuple(image.shape)))
    yield from map(_batch, waiting.values())


class _Resized(Dataset[tuple[Tensor, Tensor, Target]]):
    """Resizes images, not boxes, and adds the original size."""

    def __init__(self, scenes: Dataset[tuple[Tensor, Target]], resize: v2.Transform | None) -> None:
        self.scenes, self.resize = scenes, resize or v2.ToDtype(torch.float32, scale=True)

    def __len__(self) -> int:
        return len(self.scenes)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Target]:
        image, target = self.scenes[index]
        return self.resize(tv_tensors.Image(image)).as_subclass(Tensor), torch.tensor(image.shape[-2:]), target


def _identity(sample: Any) -> Any:
    return sample


def _batch(group: list[tuple[Tensor, Tensor, Target, int]]) -> SceneBatch:
    images, sizes, targets, indices = zip(*group, strict=True)
    return SceneBatch(torch.stack(images), torch.stack(sizes), list(targets), list(indices))


def _tree_with(classes: Sequence[str]) -> Taxonomy | None:
    trees = (coco_taxonomy(), voc_taxonomy())
    return next((tree for tree in trees if all(name in tree for name in classes)), None)
