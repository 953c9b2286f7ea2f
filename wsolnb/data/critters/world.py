"""The drawn world: animals on cluttered ground, with the truth about every pixel and a knob for every difficulty.

An animal is a body, shared by its family, with a mark on its head that identifies the species. What carries the class?

- `World(shared_marks=True, body_tells=1.0)`: body and mark together; a class activation map covers most of the animal.
- `World()`: the mark, and most of the time the body; the map is strong on the head and weak on the body.
- `World(body_tells=0.0)`: the mark alone. Bodies are random, and the map has no reason to leave the head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageChops
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from wsolnb._utils.progress import track
from wsolnb.data.critters.bodies import BODIES, POSES
from wsolnb.data.critters.drawing import MARKS, ZOOM, Patch, covered, draw_animal, draw_cover, draw_ground, mark_name
from wsolnb.data.taxonomy import Taxonomy

_TRIES = 30
_OVERLAP = 0.1, 0.4  # as a fraction of the smaller box: accepted at once; above which the animal is left out


@dataclass(frozen=True)
class Stage:
    """An image and the truth about it, for n animals of which at least a pixel is visible.

    Attributes:
        pixels: (height, width, 3) uint8.
        labels: (n,) int64.
        boxes: (n, 4) float32, xyxy, far corner exclusive, around the visible pixels.
        masks: (n, height, width) bool, the visible pixels of each animal.
        mark_masks: (n, height, width) bool, those of its mark.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float32]
    masks: NDArray[np.bool_]
    mark_masks: NDArray[np.bool_]


def generator(*numbers: int) -> np.random.Generator:
    """A random generator that depends on the numbers alone, the same on every machine.

    >>> int(generator(0, 1).integers(100)) == int(generator(0, 1).integers(100))
    True
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(numbers)))


def draw_stage(world: World, rng: np.random.Generator, size: tuple[int, int], unit: int, labels: list[int]) -> Stage:
    """Draws the animals one after the other, from back to front.

    Args:
        world: the knobs.
        rng: gives looks and positions, then ground, then noise: a knob of a later step changes no earlier one.
        size: (height, width).
        unit: shorter side of the world's singles, in pixels; lengths are fractions of it.
        labels: species in the order of drawing; an animal without a free position is left out.

    >>> from wsolnb.data.critters import World
    >>> draw_stage(World(), generator(0), (48, 64), 48, [3]).boxes.shape
    (1, 4)
    """
    height, width = size
    rolls = rng.random((len(labels), 10))
    light = _light(rng)
    positions = rng.random((len(labels), _TRIES, 2))
    canvas = draw_ground(rng, size, unit, world.clutter)
    masks = np.zeros((2, len(labels), height, width), dtype=np.bool_)
    taken: NDArray[np.int64] = np.zeros((0, 4), dtype=np.int64)
    for k, label in enumerate(labels):
        patch = _animal(world, label, unit, rolls[k])
        high, wide = patch.mask.shape
        corner = _free_position(positions[k], (width - wide, height - high), (wide, high), taken)
        if corner is None:
            continue
        left, top = corner
        taken = np.vstack([taken, [left, top, left + wide, top + high]])
        x, y = ZOOM * left, ZOOM * top
        canvas.paste(patch.body, (x, y), patch.body)
        canvas.paste(patch.mark, (x + patch.mark_corner[0], y + patch.mark_corner[1]), patch.mark)
        window = np.s_[..., top : top + high, left : left + wide]
        masks[window] &= ~patch.mask
        masks[0, k][window] = patch.mask
        masks[1, k][window] = patch.mark_mask
        if rolls[k, 6] < world.occlusion:
            box = (x, y, x + ZOOM * wide, y + ZOOM * high)
            masks &= ~covered(draw_cover(canvas, box, rolls[k, 7:], world.occlusion_extent))
    canvas = canvas.reduce(ZOOM)
    boxes = [_box(mask) for mask in masks[0]]
    visible = [k for k, box in enumerate(boxes) if box]
    return Stage(
        pixels=_grainy(ImageChops.multiply(canvas, Image.new("RGB", canvas.size, light)), world.noise, rng),
        labels=np.array([labels[k] for k in visible], dtype=np.int64),
        boxes=np.array([boxes[k] for k in visible], dtype=np.float32).reshape(-1, 4),
        masks=masks[0, visible],
        mark_masks=masks[1, visible],
    )


def cast(world: World, rng: np.random.Generator) -> list[int]:
    """Labels of the animals in a scene: each next one is a repetition, the partner of the one before, or any species.

    >>> from wsolnb.data.critters import World
    >>> len(cast(World(objects=(2, 2)), generator(0)))
    2
    """
    count = len(world.classes)
    n = int(rng.integers(world.objects[0], world.objects[1] + 1))
    labels = [int(rng.integers(count))]
    for again, follow, anyone in rng.random((n - 1, 3)).tolist():
        absent = [k for k in range(count) if k not in labels]
        partner = world.partners[labels[-1]]
        if again < world.repeats or not absent:
            labels.append(labels[int(anyone * len(labels))])
        elif follow < world.cooccurrence and partner in absent:
            labels.append(partner)
        else:
            labels.append(absent[int(anyone * len(absent))])
    return labels


def _animal(world: World, label: int, unit: int, rolls: NDArray[np.float64]) -> Patch:
    of_its_family = rolls[0] < world.body_tells
    low, high = world.scale
    return draw_animal(
        world.family(label) if of_its_family else list(BODIES)[int(rolls[1] * world.families)],
        world.mark(label),
        length=float(low + (high - low) * rolls[2]) * unit,
        mark_size=world.mark_size,
        pose=int(rolls[3] * POSES),
        turn=float(rolls[4] - 0.5) * 0.7,
        flip=bool(rolls[5] < 0.5),
    )


def _light(rng: np.random.Generator) -> tuple[int, int, int]:
    """The colour of the light, by which all pixels are multiplied: dim or bright, warm or cold."""
    bright, warmth = 190 + 65 * rng.random(), 0.3 * (rng.random() - 0.5)
    red, green, blue = 1 + min(0, warmth), 1 - abs(warmth) / 2, 1 - max(0, warmth)
    return round(bright * red), round(bright * green), round(bright * blue)


def _free_position(
    positions: NDArray[np.float64], room: tuple[int, int], size: tuple[int, int], taken: NDArray[np.int64]
) -> tuple[int, int] | None:
    """The first of the random positions at which a box hides little of others, else the best of them, else None."""
    if not len(taken):
        return int(positions[0, 0] * (room[0] + 1)), int(positions[0, 1] * (room[1] + 1))
    corners = np.floor(positions * (np.array(room) + 1)).astype(np.int64)
    shared = np.minimum(corners[:, None] + size, taken[:, 2:]) - np.maximum(corners[:, None], taken[:, :2])
    smaller = np.minimum((taken[:, 2:] - taken[:, :2]).prod(1), size[0] * size[1])
    overlap = (shared.clip(0).prod(2) / smaller).max(1)
    good = np.flatnonzero(overlap <= _OVERLAP[0])
    best = int(good[0]) if len(good) else int(overlap.argmin())
    return None if overlap[best] > _OVERLAP[1] else (int(corners[best, 0]), int(corners[best, 1]))


def _grainy(image: Image.Image, noise: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The pixels with uniform noise of the standard deviation `noise`, in units of the grey range 0 to 1."""
    pixels = np.array(image)
    if not noise:
        return pixels
    reach = noise * 255 * math.sqrt(3)  # half the width of the distribution
    raw = rng.bit_generator.random_raw(-(-pixels.size // 8)).astype("<u8").view(np.uint8)
    grain = raw[: pixels.size].reshape(pixels.shape) * np.float32(reach / 127.5)
    grain += pixels
    grain -= np.float32(reach - 0.5)
    return np.clip(grain, 0, 255, out=grain).astype(np.uint8)


def _box(mask: NDArray[np.bool_]) -> list[int]:
    """The tight box around a mask, far corner exclusive; empty for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1] if len(rows) else []


Target = dict[str, Any]
_FRACTIONS = ("body_tells", "clutter", "occlusion", "cooccurrence", "repeats")


@dataclass(frozen=True)
class World:
    """The knobs of a drawn world; they determine all its images.

    >>> world = World(families=2, species=2, shared_marks=True, body_tells=1.0, size=48)
    >>> world.classes
    ['starred beetle', 'ringed beetle', 'starred fish', 'ringed fish']
    >>> image, target = world.singles(8, seed=1)[5]
    >>> image.shape, target["labels"].tolist(), target["masks"].shape
    (torch.Size([3, 48, 48]), [1], torch.Size([1, 48, 48]))

    Attributes:
        families: number of families, each with a body of its own (1 to 8).
        species: number of species in each family, each with a mark of its own (from 1).
        shared_marks: all families have the same marks, so that body AND mark identify a species; otherwise no two
            species share a mark, which identifies the species alone.
        body_tells: probability that an animal has its family's body, not that of a random family; shared marks need 1.
        mark_size: side of the mark as a fraction of the body's longer side, in (0, 0.4].
        clutter: leaves, pebbles and patches of the ground, from 0 (a plain colour) to 1.
        noise: standard deviation of the pixel noise, in units of the grey range 0 to 1.
        occlusion: probability that a leaf covers a part of an animal.
        occlusion_extent: width of that leaf as a fraction of the animal's, in (0, 0.7].
        scale: least and greatest length of an animal (the longer side of its box), as fractions of the shorter side of
            `size`, in scenes too: there, animals are as large as in singles, with more room around them.
        objects: least and greatest number of animals in a scene; an animal without a free position is left out.
        cooccurrence: probability that the next animal of a scene is the partner (see `partners`) of the one before.
        repeats: probability that the next animal of a scene repeats a species of the scene; otherwise species differ.
        size: side of the images in pixels, or (height, width).
        seed: determines partners and images.

    Raises:
        ValueError: a knob is out of its range.
    """

    families: int = 4
    species: int = 3
    shared_marks: bool = False
    body_tells: float = 0.7
    mark_size: float = 0.25
    clutter: float = 0.5
    noise: float = 0.02
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
        for knob in _FRACTIONS:
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
        check(alone, "body_tells", "1 where shared_marks=True, since nothing else tells the family")
        check(self.seed >= 0, "seed", "at least 0")

    @cached_property
    def classes(self) -> list[str]:
        """Names of the species; label k is `classes[k]`, and a family's species follow one another."""
        return [f"{mark_name(self.mark(k))} {self.family(k)}" for k in range(self.families * self.species)]

    def family(self, label: int) -> str:
        """Name of the family to which the species belongs."""
        return list(BODIES)[label // self.species]

    def mark(self, label: int) -> int:
        """Number of the species' mark."""
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
        """Label of the partner of each species; one ring through all species, fixed by the seed."""
        ring = generator(self.seed).permutation(len(self.classes))
        return [int(k) for k in np.roll(ring, -1)[np.argsort(ring)]]

    def singles(self, n: int, *, seed: int = 0, transform: Any = None) -> Critters:
        """`n` images of `size` with one animal each; labels cycle, so that the first k images are balanced."""
        return Critters(self, n, seed=seed, transform=transform)

    def scenes(
        self, n: int, *, seed: int = 0, size: int | tuple[int, int] | None = None, transform: Any = None
    ) -> Critters:
        """`n` images with several animals each, of `size` (ValueError if animals do not fit) or as large as singles."""
        return Critters(self, n, seed=seed, scene_size=size or self.size, transform=transform)


def _height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


class Critters(Dataset[tuple[tv_tensors.Image, Target]]):
    """Images of a `World`, drawn on access; made by `World.singles` and `World.scenes`.

    An image depends on the world, the seed, the kind (singles or scenes) and its index alone, not on the order of
    access or the number of images or workers. (Releases of Pillow differ in a few pixels at the corners of leaves.)
    Worlds that differ in appearance only (`noise`, `mark_size`, `clutter`, ...) draw the same animals at the same
    positions, so that comparisons are paired.
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
        self.classes, self.taxonomy = world.classes, world.taxonomy

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, Target]:
        if not -self.n <= index < self.n:
            raise IndexError(f"image {index} of {self.n}")
        stage = self.stage(index % self.n)
        image = tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(stage.pixels.transpose(2, 0, 1))))
        target: Target = {
            "boxes": tv_tensors.BoundingBoxes(torch.from_numpy(stage.boxes), format="XYXY", canvas_size=self.size),
            "labels": torch.from_numpy(stage.labels),
            "image_id": index % self.n,
            "masks": tv_tensors.Mask(torch.from_numpy(stage.masks)),
            "mark_masks": tv_tensors.Mask(torch.from_numpy(stage.mark_masks)),
        }
        return (image, target) if self.transform is None else self.transform(image, target)

    @property
    def labels(self) -> Tensor:
        """Labels of singles, int64 `(n,)`, without drawing them."""
        if self.several:
            raise AttributeError("scenes have several labels each: see their targets")
        return torch.arange(self.n) % len(self.classes)

    def stage(self, index: int) -> Stage:
        """An image and its truth as arrays, without the transform."""
        rng = generator(self.world.seed, self.seed, int(self.several), index)
        labels = cast(self.world, rng) if self.several else [index % len(self.classes)]
        return draw_stage(self.world, rng, self.size, self._unit, labels)

    def tensors(self) -> tuple[Tensor, list[Target]]:
        """All images at once: uint8 (n, 3, height, width), and their targets.

        >>> images, targets = World(size=32).singles(4).tensors()
        >>> images.shape, [t["labels"].item() for t in targets]
        (torch.Size([4, 3, 32, 32]), [0, 1, 2, 3])
        """
        images = torch.empty((self.n, 3, *self.size), dtype=torch.uint8)
        targets = []
        for index in track(range(self.n), "drawing"):
            images[index], target = self[index]
            targets.append(target)
        return images, targets
