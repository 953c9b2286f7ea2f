"""The explorer's colours, for the browser and for the picture alike."""

from __future__ import annotations

import numpy as np
import torch

from wsolnb.boxes.quantise import cubehelix_grey

HEAT = [
    "#000004", "#0b0724", "#210c4a", "#3d0965", "#57106e", "#71196e", "#8a226a", "#a32c61", "#bc3754", "#d24644",
    "#e45a31", "#f1731d", "#f98e09", "#fcac11", "#f9cb35", "#f2ea69", "#fcffa4",
]  # fmt: skip
"""From low to high, at equal steps; rises evenly in lightness."""

_CLASSES = [
    "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9",
]  # fmt: skip


ANY_COLOUR = "#3fd0ff"
"""Of what belongs to no class."""


def class_colours(count: int) -> list[str]:
    """A colour for every class: ten that colour-blind readers can tell apart, then darker and lighter ones.

    Example:
        >>> class_colours(12)[::11]
        ['#0173b2', '#6f4802']
    """
    rounds = ((1.0, 255), (0.5, 0), (0.5, 255))
    colours = []
    for k in range(count):
        keep, other = rounds[k // len(_CLASSES) % len(rounds)]
        mixed = [round(keep * channel + (1 - keep) * other) for channel in rgb(_CLASSES[k % len(_CLASSES)])]
        colours.append("#" + "".join(f"{channel:02x}" for channel in mixed))
    return colours


def rgb(colour: str) -> tuple[int, int, int]:
    """Channels of a colour `#rrggbb`.

    Example:
        >>> rgb("#0173b2")
        (1, 115, 178)
    """
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def heat(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as colours, uint8 `(..., 3)`.

    Example:
        >>> heat(np.array([0.0, 1.0])).tolist()
        [[0, 0, 4], [252, 255, 164]]
    """
    table = np.array([rgb(colour) for colour in HEAT], float)
    places = np.linspace(0, 1, len(table))
    return np.stack([np.interp(values, places, table[:, k]) for k in range(3)], axis=-1).round().astype(np.uint8)


def greys() -> list[int]:
    """The grey value to which the colour map of ADL's rule turns each of its 256 levels.

    Example:
        >>> len(greys()), min(greys()), max(greys())
        (256, 0, 255)
    """
    levels = (torch.arange(256) + 0.5) / 256
    grey: list[int] = cubehelix_grey(levels).tolist()
    return grey
