"""How an image of the drawn world is composed: species, poses and positions, and what stays visible of each animal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from wsolnb.data.critters.bodies import BODIES, POSES
from wsolnb.data.critters.drawing import ZOOM, Patch, covered, draw_animal, draw_cover, draw_ground

if TYPE_CHECKING:
    from wsolnb.data.critters.world import World

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
