"""Pillow drawing for the drawn world: backgrounds, marks, and animals scaled, rotated and ready to paste.

Everything is drawn on a canvas of twice the size and reduced at the end, in integer arithmetic, so that edges are
smooth and the same numbers give the same pixels everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw
from scipy.spatial import ConvexHull

from wsolnb.data.critters.bodies import BODIES, INK, Colour, draw_body

SHAPES = ("starred", "ringed", "striped", "spotted", "crossed", "hearted", "crescent", "diamond")
COLOURS: dict[str, Colour] = {
    "gold": (255, 200, 20),
    "red": (226, 30, 44),
    "blue": (36, 70, 220),
    "white": (255, 255, 255),
    "pink": (250, 80, 180),
    "green": (20, 160, 60),
    "violet": (120, 40, 180),
}
MARKS = len(SHAPES) * len(COLOURS)
ZOOM = 2  # canvas pixels per image pixel
_MARK_SIDE = 128
_GROUND: NDArray[np.int64] = np.array(
    [(126, 160, 84), (92, 128, 70), (176, 156, 110), (134, 112, 84), (120, 152, 170), (168, 172, 160)]
)
_LITTER: NDArray[np.int64] = np.array(
    [colour for _, colour, _ in BODIES.values()] + [(70, 110, 50), (110, 86, 60), (190, 180, 150), (230, 226, 210)]
)
_LEAF: NDArray[np.float64] = np.array(
    [(-1, 0), (-0.6, 0.72), (0, 1), (0.6, 0.72), (1, 0), (0.6, -0.72), (0, -1), (-0.6, -0.72)]
)


@dataclass(frozen=True)
class Patch:
    """An animal ready to be pasted: its layers at canvas resolution, and the image pixels that they cover."""

    body: Image.Image
    mark: Image.Image
    mark_corner: tuple[int, int]
    mask: NDArray[np.bool_]
    mark_mask: NDArray[np.bool_]


@lru_cache(maxsize=128)
def _body(family: str, pose: int, side: int) -> tuple[Image.Image, NDArray[np.float64]]:
    """The body cropped to its bounding box, with `side` pixels for the unit square.

    Also (n, 2) points relative to the centre of that crop: the centre of the head, then the corners of its hull.
    """
    image, (x, y) = draw_body(family, pose)
    image = image.reduce(image.width // side)
    inside = np.asarray(image.getchannel("A")) >= 128
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    left, top, right, bottom = (int(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    y_in = np.flatnonzero(inside.any(1))
    first, behind = inside[y_in].argmax(1), side - inside[y_in, ::-1].argmax(1)  # a row's extreme pixels
    edges = np.concatenate([np.stack([x_in, y_in + low], axis=1) for x_in in (first, behind) for low in (0, 1)])
    hull = edges[ConvexHull(edges).vertices]
    points = np.vstack([[x * side, y * side], hull]) - ((left + right) / 2, (top + bottom) / 2)
    return image.crop((left, top, right, bottom)), points


def mark_name(mark: int) -> str:
    """The adjective that a mark adds to the name of the family.

    >>> mark_name(0), mark_name(len(SHAPES))
    ('starred', 'red-starred')
    """
    shape = SHAPES[mark % len(SHAPES)]
    return shape if mark < len(SHAPES) else f"{list(COLOURS)[mark % len(COLOURS)]}-{shape}"


@lru_cache(maxsize=4 * MARKS)
def draw_mark(mark: int, size: int = _MARK_SIDE) -> Image.Image:
    """One of the `MARKS` head marks as an RGBA square; neighbours differ in shape and in colour.

    >>> draw_mark(0, 64).size
    (64, 64)
    """
    if size != _MARK_SIDE:
        return draw_mark(mark).reduce(_MARK_SIDE // size)
    side = 4 * _MARK_SIDE
    image = Image.new("L", (side, side))
    pen = ImageDraw.Draw(image)

    def oval(x: float, y: float, radius: float, fill: int = 255) -> None:
        centre, half = ((1 + x) * side / 2, (1 + y) * side / 2), radius * side / 2
        pen.ellipse([round(v) for v in (centre[0] - half, centre[1] - half, centre[0] + half, centre[1] + half)], fill)

    def corners(points: list[tuple[float, float]]) -> None:
        pen.polygon([(round((1 + x) * side / 2), round((1 + y) * side / 2)) for x, y in points], fill=255)

    shape = SHAPES[mark % len(SHAPES)]
    if shape == "starred":
        radii = (0.92, 0.4)
        turns = [math.pi * (k / 5 - 0.5) for k in range(10)]
        corners([(radii[k % 2] * math.cos(t), radii[k % 2] * math.sin(t)) for k, t in enumerate(turns)])
    elif shape == "ringed":
        oval(0, 0, 0.84)
        oval(0, 0, 0.44, fill=0)
    elif shape == "striped":
        for x in (-0.62, 0.0, 0.62):
            corners([(x - 0.19, -0.8), (x + 0.19, -0.8), (x + 0.19, 0.8), (x - 0.19, 0.8)])
    elif shape == "spotted":
        for x, y in ((-0.44, -0.44), (0.44, -0.44), (-0.44, 0.44), (0.44, 0.44)):
            oval(x, y, 0.34)
    elif shape == "crossed":
        for a, b in ((0.27, 0.84), (0.84, 0.27)):
            corners([(-a, -b), (a, -b), (a, b), (-a, b)])
    elif shape == "hearted":
        oval(-0.4, -0.3, 0.45)
        oval(0.4, -0.3, 0.45)
        corners([(-0.79, -0.08), (0, -0.3), (0.79, -0.08), (0, 0.86)])
    elif shape == "crescent":
        oval(-0.05, 0, 0.84)
        oval(0.4, -0.16, 0.66, fill=0)
    else:
        corners([(0, -0.9), (0.66, 0), (0, 0.9), (-0.66, 0)])
    inside = image.reduce(4)
    outline = Image.new("L", inside.size)
    for dx, dy in ((-7, 0), (7, 0), (0, -7), (0, 7), (-5, -5), (-5, 5), (5, -5), (5, 5)):
        outline = ImageChops.lighter(outline, ImageChops.offset(inside, dx, dy))
    layer = Image.new("RGBA", inside.size, INK)
    layer.paste(list(COLOURS.values())[mark % len(COLOURS)], (0, 0), inside)
    layer.putalpha(ImageChops.lighter(outline, inside))
    return layer


def draw_animal(
    family: str, mark: int, *, length: float, mark_size: float, pose: int, turn: float, flip: bool
) -> Patch:
    """An animal whose bounding box is at most `length` image pixels long on its longer side.

    Args:
        family: key of `wsolnb.data.critters.bodies.BODIES`.
        mark: which mark the head carries, below `MARKS`.
        length: of the box around the rotated body, image pixels.
        mark_size: side of the mark's square as a fraction of the body's longer side.
        pose: below `wsolnb.data.critters.bodies.POSES`.
        turn: clockwise rotation in radians.
        flip: look to the left.

    >>> draw_animal("cat", 3, length=40, mark_size=0.25, pose=0, turn=0.0, flip=False).mask.shape
    (39, 40)
    """
    # the smallest prepared body that is still reduced, not enlarged
    side = next((s for s in (128, 256, 512) if s >= 1.5 * ZOOM * length), 1024)
    body, points = _body(family, pose, side)
    # rounded to 1/4096: processors differ in the last digits, and pixels must not
    cos, sin = round(math.cos(turn) * 4096) / 4096, round(math.sin(turn) * 4096) / 4096
    mirror = -1 if flip else 1
    across, down = mirror * cos * points[:, 0] - sin * points[:, 1], mirror * sin * points[:, 0] + cos * points[:, 1]
    left, right, top, bottom = (float(v) for v in (across.min(), across.max(), down.min(), down.max()))
    scale = round(ZOOM * length / max(right - left, bottom - top) * 4096) / 4096
    width, height = (ZOOM * max(1, round(scale * e / ZOOM)) for e in (right - left, bottom - top))

    def rotated(layer: Image.Image, size: tuple[int, int], zoom: float, centre: tuple[float, float]) -> Image.Image:
        a, b, c, d = mirror * cos / zoom, mirror * sin / zoom, -sin / zoom, cos / zoom
        x, y = size[0] / 2 - centre[0] * zoom, size[1] / 2 - centre[1] * zoom
        matrix = (a, b, layer.width / 2 - a * x - b * y, c, d, layer.height / 2 - c * x - d * y)
        return layer.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)

    centre = ((left + right) / 2, (top + bottom) / 2)
    layer = rotated(body, (width, height), scale, centre)
    mark_side = max(ZOOM, mark_size * scale * max(body.size))
    badge_side = 2 * math.ceil(mark_side * (abs(cos) + abs(sin)) / 2)
    source = draw_mark(mark, next((s for s in (16, 32, 64) if s >= mark_side), _MARK_SIDE))
    badge = rotated(source, (badge_side, badge_side), mark_side / source.width, (0, 0))
    x = ZOOM * round((width / 2 + (float(across[0]) - centre[0]) * scale - badge_side / 2) / ZOOM)
    y = ZOOM * round((height / 2 + (float(down[0]) - centre[1]) * scale - badge_side / 2) / ZOOM)
    corner = (max(0, x), max(0, y))
    # the part of the mark outside of the animal's box is cut off
    badge = badge.crop((corner[0] - x, corner[1] - y, min(badge_side, width - x), min(badge_side, height - y)))
    mask, marked = covered(layer), covered(badge)
    mark_mask = np.zeros_like(mask)
    mark_mask[corner[1] // ZOOM :, corner[0] // ZOOM :][: marked.shape[0], : marked.shape[1]] = marked
    return Patch(layer, badge, corner, mask | mark_mask, mark_mask)


def draw_ground(rng: np.random.Generator, size: tuple[int, int], unit: float, clutter: float) -> Image.Image:
    """A cluttered meadow as an RGB canvas: soft patches of colour, strewn with leaves, pebbles and twigs.

    Args:
        rng: the only source of randomness.
        size: (height, width) in image pixels; the canvas is `ZOOM` times as large.
        unit: the length, in image pixels, to which patches and litter are proportional.
        clutter: 0 is a plain colour; 1 scatters about 24 objects over a square unit, on strong patches.

    >>> draw_ground(np.random.default_rng(0), (24, 32), unit=24, clutter=0.5).size
    (64, 48)
    """
    height, width = size
    base, other = _GROUND[rng.integers(len(_GROUND), size=2)]
    shape = tuple(3 + round(6 * side / unit) for side in size)
    field = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    # a palette from dark patches of the base colour to bright patches that lean towards the other one
    steps = (np.arange(256) - 128)[:, None] * ((other - base) // 2 + 48)
    palette = np.clip(base + (steps * round(clutter * 256) >> 15), 0, 255).astype(np.uint8)
    field.putpalette(palette.tobytes())
    canvas = field.convert("RGB").resize((ZOOM * width, ZOOM * height), Image.Resampling.NEAREST)
    objects = rng.integers(0, 1 + round(48 * clutter * height * width / unit**2))
    rolls = rng.random((objects, 7))
    kinds = rolls[:, 4]
    colours = _LITTER[(rolls[:, 0] * len(_LITTER)).astype(np.int64)] + rng.integers(-40, 41, (objects, 3))
    centres = rolls[:, 1:3] * (ZOOM * width, ZOOM * height)
    halves = ZOOM * unit * (0.03 + 0.17 * rolls[:, 3] ** 2)
    slim = np.where(kinds < 0.6, 0.12, 0.3 + 0.3 * rolls[:, 6])
    leaves = _leaves(centres, 1.6 * halves, rolls[:, 5] * math.tau, slim).tolist()
    radii = halves[:, None] * np.stack([np.ones(objects), 0.5 + 0.5 * rolls[:, 6]], axis=1)
    pebbles = np.rint(np.hstack([centres - radii, centres + radii])).astype(np.int64).tolist()
    pen = ImageDraw.Draw(canvas)
    for fill, kind, pebble, leaf in zip(np.clip(colours, 0, 255).tolist(), kinds, pebbles, leaves, strict=True):
        if kind < 0.4:
            pen.ellipse(pebble, tuple(fill))
        else:
            pen.polygon(leaf, tuple(fill))
    return canvas


def draw_cover(
    canvas: Image.Image, box: tuple[int, int, int, int], rolls: NDArray[np.float64], fraction: float
) -> Image.Image:
    """Draws a leaf over part of a box of the canvas; returns its alpha channel, of the canvas's size.

    Args:
        canvas: is drawn upon.
        box: left, top, right, bottom, canvas pixels.
        rolls: (3,) numbers in [0, 1): position of the leaf, its tilt, its shade.
        fraction: width of the leaf relative to the box's width.

    >>> draw_cover(Image.new("RGB", (64, 48)), (8, 8, 56, 40), np.array([0.5, 0.5, 0.5]), fraction=0.3).getextrema()
    (0, 255)
    """
    left, top, right, bottom = box
    centre = np.array([[left + rolls[0] * (right - left), (top + bottom) / 2]])
    half = 0.62 * (bottom - top)
    slim = np.array([fraction * (right - left) / (2 * half)])
    leaf = _leaves(centre, np.array([half]), math.pi / 2 + (rolls[1:2] - 0.5) * 0.8, slim)[0].tolist()
    shade = 80 + round(80 * float(rolls[2]))
    ImageDraw.Draw(canvas).polygon(leaf, (shade // 2, shade, shade // 3))
    alpha = Image.new("L", canvas.size)
    ImageDraw.Draw(alpha).polygon(leaf, 255)
    return alpha


def _leaves(
    centres: NDArray[np.float64], halves: NDArray[np.float64], turns: NDArray[np.float64], slim: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Vertices x, y, x, y, ... of pointed leaves, from their centres, half lengths, angles, and width over length."""
    cos, sin = (halves * np.cos(turns))[:, None], (halves * np.sin(turns))[:, None]
    along, across = _LEAF[:, 0], slim[:, None] * _LEAF[:, 1]
    corners = np.stack([cos * along - sin * across, sin * along + cos * across], axis=2) + centres[:, None]
    return np.rint(corners).astype(np.int64).reshape(len(centres), _LEAF.size)


def covered(layer: Image.Image) -> NDArray[np.bool_]:
    """Image pixels of which at least half is covered, from a canvas-resolution layer's alpha channel (the last).

    >>> covered(Image.new("L", (4, 2), 255))
    array([[ True,  True]])
    """
    return np.asarray(layer.getchannel(layer.getbands()[-1]).reduce(ZOOM)) >= 128
