"""The explorer's view as a picture, for places that run no widget: a README, a notebook on a web page, a report."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image, ImageDraw, ImageFont
from PIL.ImageColor import getrgb
from torch.nn import functional

from wsolnb.boxes.quantise import cubehelix_grey
from wsolnb.explorer.payload import ANY
from wsolnb.papers.barz2022.maps import dense_class_map
from wsolnb.plots import style

HEAT = [to_hex(colour) for colour in colormaps[style.HEAT](np.linspace(0, 1, 17))]
"""From low to high at equal steps, between which the browser interpolates."""

ANY_COLOUR = "#3fd0ff"
"""For maps that belong to no class; the same as in scene.js."""


def class_colours(count: int) -> list[str]:
    """A colour for every class: the ten of the colour-blind palette, then darker and lighter ones.

    Example:
        >>> class_colours(12)[::11]
        ['#0173b2', '#6f4802']
    """
    palette, rounds = sns.color_palette("colorblind").as_hex(), ((1.0, 255), (0.5, 0), (0.5, 255))
    colours = []
    for k in range(count):
        keep, other = rounds[k // len(palette) % len(rounds)]
        mixed = [round(keep * channel + (1 - keep) * other) for channel in getrgb(palette[k % len(palette)])]
        colours.append("#" + "".join(f"{channel:02x}" for channel in mixed))
    return colours


def heat(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as colours, uint8 `(..., 3)`.

    Example:
        >>> heat(np.array([0.0, 1.0])).tolist()
        [[0, 0, 4], [252, 255, 164]]
    """
    table = np.array([getrgb(colour) for colour in HEAT], float)
    steps = np.linspace(0, 1, len(table))
    return np.stack([np.interp(values, steps, table[:, k]) for k in range(3)], axis=-1).round().astype(np.uint8)


def greys() -> list[int]:
    """Grey values of the 256 levels of a map under the colour map of ADL's rule.

    Example:
        >>> len(greys()), min(greys()), max(greys())
        (256, 0, 255)
    """
    grey: list[int] = cubehelix_grey((torch.arange(256) + 0.5) / 256).tolist()
    return grey


if TYPE_CHECKING:
    from wsolnb.explorer import Explorer

_GAP = 6
_WHITE = (255, 255, 255)


def draw(explorer: Explorer, image: int, height: int = 300) -> Image.Image:
    """Image number `image` with its truth, and beside it map and boxes of every method shown, `height` pixels high.

    Example:
        >>> from wsolnb.explorer import Explorer
        >>> images = torch.zeros(1, 3, 30, 40, dtype=torch.uint8)
        >>> explorer = Explorer(images, {"cam": torch.rand(1, 2, 5, 7)}, ["cat", "dog"])
        >>> draw(explorer, 0, height=60).size  # the image and a map, each 80 wide
        (166, 84)
    """
    shown = explorer._pictures[image]
    scale = height / shown["size"][0]
    photo = Image.open(io.BytesIO(shown["jpeg"])).convert("RGB")
    photo = photo.resize((max(1, round(shown["size"][1] * scale)), height))
    first = photo.copy()
    for box, label in zip(shown["boxes"], shown["labels"], strict=True):
        _box(first, box, scale, _colour(explorer, label), explorer._classes[label])
    panels = {"image": first}
    for method in explorer.methods:
        panel = _overlaid(explorer, method, image, photo)
        for box in shown["boxes"] if explorer.truth else []:
            _box(panel, box, scale, _WHITE, "")
        for label, score, corners in explorer._boxes(method, image):
            name = "" if label == ANY else explorer._classes[label]
            text = name if np.isnan(score) else f"{name} {score:.2f}"
            _box(panel, corners.tolist(), scale, _colour(explorer, label), text)
        panels[method] = panel
    return _row(panels)


def sheet(explorer: Explorer, count: int = 12, height: int = 150) -> Image.Image:
    """A contact sheet: `draw` for the first `count` images at most, one below the other.

    Example:
        >>> from wsolnb.explorer import Explorer
        >>> images = torch.zeros(3, 3, 30, 40, dtype=torch.uint8)
        >>> explorer = Explorer(images, {"cam": torch.rand(3, 2, 5, 7)}, ["cat", "dog"])
        >>> sheet(explorer, count=2, height=60).size
        (166, 168)
    """
    rows = [draw(explorer, image, height) for image in range(min(count, len(explorer._pictures)))]
    page = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), _WHITE)
    top = 0
    for row in rows:
        page.paste(row, (0, top))
        top += row.height
    return page


def _overlaid(explorer: Explorer, method: str, image: int, photo: Image.Image) -> Image.Image:
    """The photo under a method's dense class map, or under the largest value of its classes shown."""
    shipped = explorer._shipped[method]
    maps = shipped.maps[image]
    if explorer.view == "classes" and shipped.dense:
        cells = dense_class_map(maps[None], explorer.presences[method], explorer.sim_threshold)[0].numpy()
        palette = np.array([(0, 0, 0), *map(getrgb, explorer._colours)], np.uint8)
        alpha = np.where(cells > 0, round(255 * explorer.opacity), 0).astype(np.uint8)
        layer, mask = Image.fromarray(palette[cells]), Image.fromarray(alpha)
    else:
        labels = explorer._labels(method, image)
        if not labels:
            return photo.copy()
        values = (maps if shipped.agnostic else maps[labels]).amax(dim=0)
        if shipped.rule.resize:
            size = (photo.height, photo.width)
            values = functional.interpolate(values[None, None], size, mode="bilinear")[0, 0]
        low, high = float(values.min()), float(values.max())
        if shipped.dense:
            low, high = min(low, 0.0), max(high, 1.0)
        unit = (values - low) / (high - low) if high > low else torch.zeros_like(values)
        layer = Image.fromarray(heat(unit.numpy()))
        mask = Image.new("L", layer.size, round(255 * explorer.opacity))
    nearest = Image.Resampling.NEAREST
    return Image.composite(layer.resize(photo.size, nearest), photo, mask.resize(photo.size, nearest))


def _box(panel: Image.Image, box: list[float], scale: float, colour: tuple[int, ...], text: str) -> None:
    pen = ImageDraw.Draw(panel)
    x0, y0, x1, y1 = (round(value * scale) for value in box)
    x1, y1 = max(x0, x1 - 1), max(y0, y1 - 1)
    pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=(0, 0, 0), width=4)
    pen.rectangle((x0, y0, x1, y1), outline=colour, width=2)
    if text:
        font = ImageFont.load_default(size=11)
        width = round(pen.textlength(text, font=font)) + 6
        left, top = max(0, min(x0, panel.width - width)), max(0, y0 - 15)
        pen.rectangle((left, top, left + width, top + 14), fill=colour)
        ink = (0, 0, 0) if sum(colour) > 380 else _WHITE
        pen.text((left + 3, top), text, fill=ink, font=font)


def _row(panels: dict[str, Image.Image]) -> Image.Image:
    height = max(panel.height for panel in panels.values())
    width = sum(panel.width for panel in panels.values()) + _GAP * (len(panels) - 1)
    page = Image.new("RGB", (width, height + 18 + _GAP), _WHITE)
    pen, left = ImageDraw.Draw(page), 0
    for name, panel in panels.items():
        pen.text((left + 1, 1), name, fill=(0, 0, 0), font=ImageFont.load_default(size=12))
        page.paste(panel, (left, 18))
        left += panel.width + _GAP
    return page


def _colour(explorer: Explorer, label: int) -> tuple[int, ...]:
    return getrgb(ANY_COLOUR if label == ANY else explorer._colours[label])
