"""Training images of one object each, cropped from scenes (barz2022 Sec. 4.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from wsolnb._utils.progress import track
from wsolnb.data.readers.images import UnreadableImage, file_of
from wsolnb.data.readers.scenes import Target, Transform


class InstanceCrops(Dataset[tuple[Tensor, Target]]):
    """Every object of a set of scenes as an image, cropped to its box.

    Objects smaller than `min_size` in both dimensions are dropped, and so are crowds. Crops are widened to whole
    pixels, at least one. `crops[k]` is `(image, target)`: image uint8 (3, h, w); target has "labels" (int64 (1,)),
    "image_id" (int) and "boxes" ((1, 4), the object's box in pixels of the crop).

    Attributes:
        labels: int64 (len,), the class of every crop.
        indices: int64 (len,), the index in `scenes` of its image.

    Args:
        scenes: items (image, target), with `classes` and without a transform.
        min_size: pixels; an object must be that large in at least one dimension.
        transform: called as `transform(image, target)`; see `crop_transform`.
        cache_side: keep all crops in memory as uint8, with short sides reduced to this many pixels at most: 480 loses
            nothing that `crop_transform`'s default would keep. Every image is then decoded once, at the start. None
            decodes the scene for every crop.
        skip_broken: raise UnreadableImage only when a crop of an unreadable scene is accessed.

    Raises:
        UnreadableImage: a scene does not decode.
        ValueError: no crop is left; the scenes have a transform; `cache_side` is not positive.

    >>> from wsolnb.data.critters import World
    >>> crops = InstanceCrops(World().scenes(4), min_size=8, transform=crop_transform(32, (36, 64)))
    >>> image, target = crops[0]
    >>> tuple(image.shape), tuple(target["labels"].shape)
    ((3, 32, 32), (1,))
    """

    def __init__(
        self,
        scenes: Any,
        *,
        min_size: float = 32,
        transform: Transform | None = None,
        cache_side: int | None = None,
        skip_broken: bool = False,
    ) -> None:
        if getattr(scenes, "transform", None) is not None:
            raise ValueError("crops are cut from the original images: give the scenes no transform, but the crops")
        if cache_side is not None and cache_side < 1:
            raise ValueError(f"cache_side must be a positive number of pixels, got {cache_side}")
        self.scenes, self.transform = scenes, transform
        self.classes: list[str] = scenes.classes
        self.taxonomy = getattr(scenes, "taxonomy", None)
        targets = [scenes.target(i) if hasattr(scenes, "target") else scenes[i][1] for i in range(len(scenes))]
        boxes = torch.cat([t["boxes"].as_subclass(Tensor) for t in targets]) if targets else torch.zeros(0, 4)
        counts = torch.tensor([len(t["boxes"]) for t in targets], dtype=torch.int64)
        crowd = [t.get("crowd", torch.zeros(len(t["boxes"]), dtype=torch.bool)) for t in targets]
        large = (boxes[:, 2:] - boxes[:, :2] >= min_size).any(1)
        kept = large & ~torch.cat(crowd) if targets else large
        if not kept.any():
            raise ValueError(
                f"no crops left: none of the {len(boxes)} objects in {len(targets)} images is at least {min_size} px "
                "in one dimension and no crowd"
            )
        self.indices = torch.repeat_interleave(torch.arange(len(targets)), counts)[kept]
        self.labels = torch.cat([t["labels"] for t in targets])[kept]
        self._boxes = boxes[kept]
        self._image_ids = [targets[i]["image_id"] for i in self.indices.tolist()]
        self._cache = None if cache_side is None else self._crop_all(cache_side, skip_broken)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"InstanceCrops({len(self)} crops, {len(self.classes)} classes)"

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        index = range(len(self))[index]
        kept = None if self._cache is None else self._cache[index]
        image, boxes = kept or _crop(self._scene(int(self.indices[index])), self._boxes[index])
        target = {"boxes": boxes, "labels": self.labels[index, None], "image_id": self._image_ids[index]}
        return (image, target) if self.transform is None else self.transform(image, target)

    def _scene(self, index: int) -> Tensor:
        return self.scenes.image(index) if hasattr(self.scenes, "image") else self.scenes[index][0]

    def file(self, index: int) -> Path:
        """Path of a crop's scene."""
        return file_of(self.scenes, int(self.indices[index]))

    def _crop_all(self, side: int, skip_broken: bool) -> list[tuple[Tensor, Tensor] | None]:
        crops: list[tuple[Tensor, Tensor] | None] = []
        last, scene = -1, None
        rows = zip(self.indices.tolist(), self._boxes, strict=True)  # crops of one image are consecutive
        for index, box in track(rows, "cropping", total=len(self)):
            if index != last:
                last, scene = index, None
                try:
                    scene = self._scene(index)
                except UnreadableImage:
                    if not skip_broken:
                        raise
            if scene is None:
                crops.append(None)
                continue
            image, boxes = _crop(scene, box)
            if min(image.shape[1:]) > side:
                image, boxes = v2.functional.resize(image, [side]), v2.functional.resize(boxes, [side])
            crops.append((tv_tensors.Image(image.clone()), boxes))
        return crops


class SquareCrop(v2.Transform):
    """Resize the short side and crop a square of `size` px, in one step.

    Equals resizing the short side to s px, s uniform in `short_side` with both ends, and cropping `size` x `size` at
    random. But the square is drawn first, and only its pixels are resized: a crop of 600 x 6 px never becomes an image
    of 25600 x 256.

    `random=False` takes the central square. A square that does not fit into the short side raises ValueError.

    >>> tuple(SquareCrop(32, (36, 64))(torch.zeros(3, 10, 500)).shape)
    (3, 32, 32)
    """

    def __init__(self, size: int, short_side: tuple[int, int], *, random: bool = True) -> None:
        super().__init__()
        if not 1 <= size <= short_side[0] <= short_side[1]:
            raise ValueError(
                f"the short side is resized to {short_side[0]} to {short_side[1]} px, a square of {size} px must fit"
            )
        self.size, self.short_side, self.random = size, short_side, random

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the square, in pixels of the input."""
        height, width = v2.functional.get_size(next(x for x in flat_inputs if not isinstance(x, _TRUTH)))
        low, high = self.short_side
        short = int(torch.randint(low, high + 1, ())) if self.random else low
        side = max(1, round(self.size * min(height, width) / short))
        room = torch.tensor([height - side, width - side])
        top, left = ((room + 1) * torch.rand(2)).long().tolist() if self.random else (room // 2).tolist()
        return {"top": top, "left": left, "height": side, "width": side}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop the square and resize it, with boxes and masks."""
        return v2.functional.resized_crop(inpt, **params, size=[self.size, self.size])


class RandomErase(v2.RandomErasing):
    """Random erasing with uniform noise in [0, 1] (zhong2017), for float images; boxes and masks stay.

    Erases a rectangle of 2 to 40 % of the area, with sides 3:10 to 10:3, with probability `p`. torchvision's normal
    noise is meant for images that are normalised already.

    >>> erased = RandomErase(1.0)(torch.full((3, 40, 60), 2.0)) < 1
    >>> 0.01 < erased.float().mean() < 0.45
    tensor(True)
    """

    def __init__(self, p: float) -> None:
        super().__init__(p, scale=(0.02, 0.4), ratio=(0.3, 1 / 0.3), value="random")

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the rectangle and its noise."""
        params = super().make_params(flat_inputs)
        return params | {"v": None if params["v"] is None else torch.rand_like(params["v"])}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Erase the rectangle from images."""
        return inpt if isinstance(inpt, _TRUTH) else super().transform(inpt, params)


_TRUTH = (tv_tensors.BoundingBoxes, tv_tensors.Mask)


def crop_transform(size: int = 224, short_side: tuple[int, int] = (256, 480), *, erase: float = 0.5) -> v2.Transform:
    """Augmentation for training on single objects (barz2022 Sec. 4.2), a transform of `(image, target)`.

    A `SquareCrop`, flipped with probability 0.5, with a `RandomErase` with probability `erase` (the paper does not
    state it; 0.5 is zhong2017's). The image, uint8 (3, h, w), becomes float32 (3, size, size) in [0, 1].

    >>> image, target = crop_transform(32, (36, 64))(tv_tensors.Image(torch.zeros(3, 90, 40)), {})
    >>> tuple(image.shape), image.dtype
    ((3, 32, 32), torch.float32)
    """
    to_float = v2.ToDtype(torch.float32, scale=True)
    return v2.Compose([SquareCrop(size, short_side), v2.RandomHorizontalFlip(0.5), to_float, RandomErase(erase)])


def eval_crop_transform(size: int = 224, short_side: int = 256) -> v2.Transform:
    """The central square, without randomness: short side resized to `short_side`, cropped to `size`.

    >>> image, target = eval_crop_transform()(tv_tensors.Image(torch.zeros(3, 90, 40)), {})
    >>> tuple(image.shape)
    (3, 224, 224)
    """
    return v2.Compose([SquareCrop(size, (short_side, short_side), random=False), v2.ToDtype(torch.float32, scale=True)])


def _crop(image: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """The pixels that a box touches, and the box in their coordinates."""
    height, width = image.shape[-2:]
    left, top = (int(x) for x in box[:2].floor().minimum(torch.tensor([width - 1, height - 1])))
    right, bottom = (int(x) for x in box[2:].ceil().maximum(torch.tensor([left + 1, top + 1])))
    inside = (box - torch.tensor([left, top, left, top]))[None]
    crop = tv_tensors.Image(image[..., top:bottom, left:right])
    return crop, tv_tensors.BoundingBoxes(inside, format="XYXY", canvas_size=(bottom - top, right - left))
