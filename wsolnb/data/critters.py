"""The drawn world: animals on cluttered ground, with the truth about every pixel and a knob for every difficulty.

An animal is a body, which its family shares, with a mark on its head, which tells the species. Three regimes of the
question "which part carries the class?" are one argument away:

- `World()`: body and mark, both are needed. Every family wears the same few marks, so a species is a pair of both.
- `World(shared_marks=False, body_tells=0.0)`: the mark alone. Every species has a mark of its own, bodies are random.
- `World(shared_marks=False, body_tells=0.8)`: between. The mark suffices; the body is right four times in five.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from tqdm.auto import tqdm

from wsolnb.data.bodies import BODIES, POSES
from wsolnb.data.drawing import (
    MARKS,
    ZOOM,
    Patch,
    covered,
    draw_animal,
    draw_cover,
    draw_ground,
    mark_name,
)
from wsolnb.data.taxonomy import Taxonomy

Target = dict[str, Any]
_SHARES = ("body_tells", "clutter", "occlusion", "cooccurrence", "repeats")
_TRIES = 30
_OVERLAP = 0.1, 0.4  # share of the smaller box: good enough to stop looking; too much to be drawn at all


@dataclass(frozen=True)
class World:
    """The knobs of a drawn world; all its images follow from them.

    >>> world = World(families=2, species=2, size=48)
    >>> world.classes
    ['starred beetle', 'ringed beetle', 'starred fish', 'ringed fish']
    >>> image, target = world.singles(8, seed=1)[5]
    >>> image.shape, target["labels"].tolist(), target["masks"].shape
    (torch.Size([3, 48, 48]), [1], torch.Size([1, 48, 48]))

    Attributes:
        families: number of families, each with a body of its own (1 to 8).
        species: number of species in each family, each with a mark of its own (from 1).
        shared_marks: the families wear the same marks, so that a species is told by body AND mark; otherwise no two
            species of the world share a mark, and the mark alone tells the species.
        body_tells: probability that an animal has its family's body; otherwise it has the body of a random family.
            0: the body says nothing, 1: it always says the family. Shared marks need 1.
        mark_size: side of the mark as a share of the body's longer side, in (0, 0.4].
        clutter: leaves, pebbles and patches of the ground, from 0 (a plain colour) to 1.
        noise: standard deviation of each pixel's own noise, in units of the grey range 0 to 1.
        occlusion: probability that a leaf covers a part of an animal.
        occlusion_extent: width of that leaf as a share of the animal's, in (0, 0.7].
        scale: least and greatest length of an animal (the longer side of its box), as shares of the shorter side of
            `size`, in scenes as well: there the animals are as large as in singles, in more room.
        objects: least and greatest number of animals in a scene; one that finds no free place is left out.
        cooccurrence: probability that the next animal of a scene is the partner (see `partners`) of the one before;
            otherwise it is of any species.
        repeats: probability that the next animal of a scene is of a species that is there already; otherwise the
            species in a scene differ.
        size: side of the images in pixels, or (height, width).
        seed: another world with the same knobs: other partners, other images.

    Raises:
        ValueError: a knob is out of its range; the message names the knob, the value and the range.
    """

    families: int = 4
    species: int = 3
    shared_marks: bool = True
    body_tells: float = 1.0
    mark_size: float = 0.22
    clutter: float = 0.5
    noise: float = 0.03
    occlusion: float = 0.0
    occlusion_extent: float = 0.3
    scale: tuple[float, float] = (0.45, 0.75)
    objects: tuple[int, int] = (1, 4)
    cooccurrence: float = 0.0
    repeats: float = 0.0
    size: int | tuple[int, int] = 96
    seed: int = 0

    def __post_init__(self) -> None:
        def check(valid: bool, knob: str, rule: str) -> None:
            if not valid:
                raise ValueError(f"World: {knob}={getattr(self, knob)!r}, but it must be {rule}")

        check(1 <= self.families <= len(BODIES), "families", f"from 1 to {len(BODIES)} ({', '.join(BODIES)})")
        most = MARKS if self.shared_marks else MARKS // self.families
        check(1 <= self.species <= most, "species", f"from 1 to {most}: there are {MARKS} marks")
        for knob in _SHARES:
            check(0 <= getattr(self, knob) <= 1, knob, "between 0 and 1")
        check(0 < self.mark_size <= 0.4, "mark_size", "above 0 and at most 0.4")
        check(0 <= self.noise <= 0.5, "noise", "between 0 and 0.5")
        check(0 < self.occlusion_extent <= 0.7, "occlusion_extent", "above 0 and at most 0.7")
        check(min(_height_width(self.size)) >= 16, "size", "at least 16 pixels")
        pair = len(self.scale) == 2
        check(pair and 0 < self.scale[0] <= self.scale[1] <= 1, "scale", "(least, greatest) above 0 and at most 1")
        pair = len(self.objects) == 2
        check(pair and 1 <= self.objects[0] <= self.objects[1], "objects", "(least, greatest), at least 1")
        few = self.repeats > 0 or self.objects[1] <= self.families * self.species
        check(few, "objects", f"at most {self.families * self.species}, the number of species, where repeats=0")
        alone = not self.shared_marks or self.body_tells == 1
        check(alone, "body_tells", "1 where shared_marks=True, or nothing tells the family: set shared_marks=False")
        check(self.seed >= 0, "seed", "at least 0")

    @cached_property
    def classes(self) -> list[str]:
        """Names of the species; label k is `classes[k]`, and a family's species follow one another."""
        return [f"{mark_name(self.mark(k))} {self.family(k)}" for k in range(self.families * self.species)]

    def family(self, label: int) -> str:
        """Name of the family to which the species belongs."""
        return list(BODIES)[label // self.species]

    def mark(self, label: int) -> int:
        """Number of the mark that the species wears."""
        return label % self.species if self.shared_marks else label

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The class tree: animal, group (insect, vertebrate, mollusc), family, species."""
        parents: dict[str, str] = {}
        for label, name in enumerate(self.classes):
            family = self.family(label)
            parents |= {name: family, family: BODIES[family][0], BODIES[family][0]: "animal"}
        return Taxonomy(parents)

    @cached_property
    def partners(self) -> list[int]:
        """Label of the species that likes to follow each species; one ring through all of them, fixed by the seed."""
        ring = np.random.Generator(np.random.PCG64(self.seed)).permutation(len(self.classes))
        return [int(k) for k in np.roll(ring, -1)[np.argsort(ring)]]

    def singles(self, n: int, *, seed: int = 0, transform: Any = None) -> Critters:
        """`n` images of `size` with one animal each; labels go round, so that any first part is balanced."""
        return Critters(self, n, seed=seed, transform=transform)

    def scenes(
        self, n: int, *, seed: int = 0, size: int | tuple[int, int] | None = None, transform: Any = None
    ) -> Critters:
        """`n` images with several animals each, of `size` or as large as the world's singles.

        Raises:
            ValueError: the largest animals do not fit into `size`.
        """
        return Critters(self, n, seed=seed, scene_size=size or self.size, transform=transform)


def _height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


class Critters(Dataset[tuple[tv_tensors.Image, Target]]):
    """Images of a `World`, drawn when they are asked for; made by `World.singles` and `World.scenes`.

    An image depends on the world, the seed, the kind (singles or scenes) and its index, and on nothing else: neither on
    the order of access, nor on the number of images or workers. Worlds that differ in a knob of looks (`noise`,
    `mark_size`, `clutter`, ...) draw the same animals at the same places, which makes comparisons paired.

    Attributes:
        classes: names of the labels.
        taxonomy: the class tree.
        size: (height, width) of the images.
    """

    def __init__(
        self,
        world: World,
        n: int,
        *,
        seed: int = 0,
        scene_size: int | tuple[int, int] | None = None,
        transform: Any = None,
    ) -> None:
        if n < 0 or seed < 0:
            raise ValueError(f"the number of images (n={n}) and the seed ({seed}) must be at least 0")
        self.world, self.n, self.seed, self.transform = world, n, seed, transform
        self.several = scene_size is not None
        self.size = _height_width(world.size if scene_size is None else scene_size)
        self._unit = min(_height_width(world.size))
        longest = math.ceil(world.scale[1] * self._unit)
        if min(self.size) < longest:
            raise ValueError(f"scenes of {self.size} cannot hold animals of {longest} pixels: make them larger")
        self.classes = world.classes
        self.taxonomy = world.taxonomy

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, Target]:
        if not -self.n <= index < self.n:
            raise IndexError(f"image {index} of {self.n}")
        index %= self.n
        pixels, boxes, labels, masks, marks = self._draw(index)
        image = tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))))
        target: Target = {
            "boxes": tv_tensors.BoundingBoxes(
                torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                format=tv_tensors.BoundingBoxFormat.XYXY,
                canvas_size=self.size,
            ),
            "labels": torch.tensor(labels, dtype=torch.int64),
            "image_id": index,
            "masks": tv_tensors.Mask(torch.from_numpy(masks)),
            "mark_masks": tv_tensors.Mask(torch.from_numpy(marks)),
        }
        return (image, target) if self.transform is None else self.transform(image, target)

    def tensors(self) -> tuple[Tensor, list[Target]]:
        """All images drawn at once: uint8 (n, 3, height, width), and the list of their targets.

        >>> images, targets = World(size=32).singles(4).tensors()
        >>> images.shape, [t["labels"].item() for t in targets]
        (torch.Size([4, 3, 32, 32]), [0, 1, 2, 3])
        """
        images = torch.empty((self.n, 3, *self.size), dtype=torch.uint8)
        targets = []
        for index in tqdm(range(self.n), desc="drawing", unit="image", delay=2, leave=False):
            images[index], target = self[index]
            targets.append(target)
        return images, targets

    def _draw(
        self, index: int
    ) -> tuple[NDArray[np.uint8], list[list[int]], list[int], NDArray[np.bool_], NDArray[np.bool_]]:
        """Pixels (height, width, 3), boxes, labels, and the masks (n, height, width) of animals and of their marks."""
        world = self.world
        height, width = self.size
        entropy = [world.seed, self.seed, int(self.several), index]
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        labels = self._cast(rng, index)
        rolls = rng.random((len(labels), 12))
        places = rng.random((len(labels), _TRIES, 2))
        canvas = draw_ground(rng, self.size, self._unit, world.clutter)
        masks = np.zeros((2, len(labels), height, width), dtype=np.bool_)
        taken: NDArray[np.int64] = np.zeros((0, 4), dtype=np.int64)
        for k, label in enumerate(labels):
            patch = self._animal(label, rolls[k])
            high, wide = patch.mask.shape
            corner = _free_place(places[k], (width - wide, height - high), (wide, high), taken)
            if corner is None:
                continue
            left, top = corner
            taken = np.vstack([taken, [left, top, left + wide, top + high]])
            at = (ZOOM * left, ZOOM * top)
            canvas.paste(patch.body, at, patch.body)
            canvas.paste(patch.mark, (at[0] + patch.mark_corner[0], at[1] + patch.mark_corner[1]), patch.mark)
            window = np.s_[..., top : top + high, left : left + wide]
            masks[window] &= ~patch.mask
            masks[0, k][window] = patch.mask
            masks[1, k][window] = patch.mark_mask
            if rolls[k, 8] < world.occlusion:
                box = (at[0], at[1], at[0] + ZOOM * wide, at[1] + ZOOM * high)
                masks &= ~covered(draw_cover(canvas, box, rolls[k, 9:], world.occlusion_extent))
        pixels = np.array(canvas.reduce(ZOOM))
        if world.noise:
            reach = world.noise * 255 * math.sqrt(3)  # half the width of a uniform distribution
            raw = rng.bit_generator.random_raw(-(-pixels.size // 8)).astype("<u8").view(np.uint8)
            grain = raw[: pixels.size].reshape(pixels.shape) * np.float32(reach / 127.5)
            grain += pixels
            grain -= np.float32(reach - 0.5)
            pixels = np.clip(grain, 0, 255, out=grain).astype(np.uint8)
        boxes = [_box(mask) for mask in masks[0]]
        seen = [k for k, box in enumerate(boxes) if box is not None]
        return pixels, [boxes[k] or [] for k in seen], [labels[k] for k in seen], masks[0, seen], masks[1, seen]

    def _cast(self, rng: np.random.Generator, index: int) -> list[int]:
        """Labels of the animals in an image."""
        world, count = self.world, len(self.classes)
        if not self.several:
            return [index % count]
        n = int(rng.integers(world.objects[0], world.objects[1] + 1))
        labels = [int(rng.integers(count))]
        for again, follow, anyone in rng.random((n - 1, 3)).tolist():
            if again < world.repeats:
                labels.append(labels[int(anyone * len(labels))])
                continue
            absent = [k for k in range(count) if k not in labels] or list(range(count))
            partner = world.partners[labels[-1]]
            labels.append(
                partner if follow < world.cooccurrence and partner in absent else absent[int(anyone * len(absent))]
            )
        return labels

    def _animal(self, label: int, rolls: NDArray[np.float64]) -> Patch:
        world = self.world
        own = rolls[0] < world.body_tells
        low, high = world.scale
        bright, warmth = 0.75 + 0.25 * float(rolls[6]), 0.3 * (float(rolls[7]) - 0.5)
        return draw_animal(
            world.family(label) if own else list(BODIES)[int(rolls[1] * world.families)],
            world.mark(label),
            length=float(low + (high - low) * rolls[2]) * self._unit,
            mark_size=world.mark_size,
            pose=int(rolls[3] * POSES),
            turn=float(rolls[4] - 0.5) * 0.7,
            flip=bool(rolls[5] < 0.5),
            light=(bright * (1 - max(0.0, -warmth)), bright * (1 - abs(warmth) / 2), bright * (1 - max(0.0, warmth))),
        )


def _free_place(
    places: NDArray[np.float64], room: tuple[int, int], size: tuple[int, int], taken: NDArray[np.int64]
) -> tuple[int, int] | None:
    """The first of the places (rolls in [0, 1)) where a box hides little of others, or the best, or None."""
    corners = np.floor(places * (np.array(room) + 1)).astype(np.int64)
    if not len(taken):
        return int(corners[0, 0]), int(corners[0, 1])
    shared = np.minimum(corners[:, None] + size, taken[:, 2:]) - np.maximum(corners[:, None], taken[:, :2])
    smaller = np.minimum((taken[:, 2:] - taken[:, :2]).prod(1), size[0] * size[1])
    overlap = (shared.clip(0).prod(2) / smaller).max(1)
    good = np.flatnonzero(overlap <= _OVERLAP[0])
    best = int(good[0]) if len(good) else int(overlap.argmin())
    return None if overlap[best] > _OVERLAP[1] else (int(corners[best, 0]), int(corners[best, 1]))


def _box(mask: NDArray[np.bool_]) -> list[int] | None:
    """The smallest box around a mask, far corner exclusive; None where the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1] if len(rows) else None


def coco_json(dataset: Critters) -> Mapping[str, Any]:
    """The truth of a drawn dataset in COCO's annotation format, ready for `json.dump` or `pycocotools`.

    Image ids are the indices, annotation ids start at 1 (0 would never match in pycocotools), category ids are
    labels + 1, a category's supercategory is its family, a segmentation is the run-length code of the visible pixels.

    >>> truth = coco_json(World(size=32, scale=(0.4, 0.5)).scenes(2, size=(48, 64)))
    >>> truth["annotations"][0]["id"], truth["images"][0]["width"], truth["categories"][3]["supercategory"]
    (1, 64, 'fish')
    """
    from pycocotools import mask as rle

    height, width = dataset.size
    annotations: list[dict[str, Any]] = []
    for index in range(len(dataset)):
        _, boxes, labels, masks, _ = dataset._draw(index)
        codes = rle.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8))
        for (left, top, right, bottom), label, code, mask in zip(boxes, labels, codes, masks, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": label + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": {"size": [height, width], "counts": code["counts"].decode()},
                }
            )
    return {
        "images": [
            {"id": k, "file_name": f"{k:06d}.png", "height": height, "width": width} for k in range(len(dataset))
        ],
        "annotations": annotations,
        "categories": [
            {"id": k + 1, "name": name, "supercategory": dataset.world.family(k)}
            for k, name in enumerate(dataset.classes)
        ],
    }
