"""The explorer's colours, for the browser and for the picture alike."""

from __future__ import annotations

import numpy as np
import seaborn as sns
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL.ImageColor import getrgb

from wsolnb.boxes.quantise import cubehelix_grey
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
