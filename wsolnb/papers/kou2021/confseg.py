"""Confidence segmentation (kou2021 Sec. 3.1): one map supervises another where it is confident.

Cells further from their map's mean than the mean distance are *confident*, on the object or on the background; there
the inner map has to follow. Both thresholds come from the map itself, where zhang2018 (SPG) fixes one pair for all
images. Paper: https://arxiv.org/abs/1911.07160
"""

from __future__ import annotations

from typing import Literal

import torch  # noqa: F401 (for the examples)
from torch import Tensor

from wsolnb.boxes.quantise import minmax_normalise

Over = Literal["sum", "mean"]


def confidence(maps: Tensor) -> Tensor:
    """Distance of every cell from its map's mean, `|S - μ1|` (kou2021 Eq. 2), for `S_L` of one class, `(B, h, w)`.

    Example:
        >>> confidence(torch.tensor([[[0.0, 0.0, 3.0]]]))
        tensor([[[1., 1., 2.]]])
    """
    if maps.ndim != 3 or not maps.is_floating_point():
        raise ValueError(f"maps must be float (B, h, w), one class each, got {maps.dtype} {tuple(maps.shape)}")
    return (maps - maps.mean(dim=(1, 2), keepdim=True)).abs()


def confidence_mask(maps: Tensor) -> Tensor:
    """Confident cells: those further from the mean than the mean distance `μ2` (kou2021 Eqs. 3 and 4).

    Maps `(B, h, w)` to bool `(B, h, w)`; nothing is confident in a constant map.

    Example:
        >>> confidence_mask(torch.tensor([[[0.0, 0.0, 3.0]]]))
        tensor([[[False, False,  True]]])
    """
    distance = confidence(maps)
    return distance > distance.mean(dim=(1, 2), keepdim=True)


def thresholds(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The thresholds of background and foreground, `μ1 - μ2` and `μ1 + μ2`, `(B,)` each (kou2021 Eq. 7).

    Below the first or above the second is the same as `confidence_mask`, up to rounding at equality.

    Example:
        >>> [float(each) for each in thresholds(torch.tensor([[[0.0, 0.0, 3.0, 3.0]]]))]
        [0.0, 3.0]
    """
    middle, spread = maps.mean(dim=(1, 2)), confidence(maps).mean(dim=(1, 2))
    return middle - spread, middle + spread


def fixed_mask(maps: Tensor, low: float, high: float) -> Tensor:
    """Confident cells by fixed thresholds on the map stretched to [0, 1], as in SPG; bool `(B, h, w)`.

    A cell is background below `low` (0.05 or 0.1 in SPG), foreground above `high` (0.5 or 0.7). Nothing is confident in
    a constant map.

    Raises:
        ValueError: Unless `0 <= low <= high <= 1`.

    Example:
        >>> fixed_mask(torch.tensor([[[0.0, 2.0, 10.0]]]), low=0.1, high=0.7)
        tensor([[[ True, False,  True]]])
    """
    if not 0 <= low <= high <= 1:
        raise ValueError(f"thresholds must satisfy 0 <= low <= high <= 1, got low={low}, high={high}")
    normalised = minmax_normalise(maps)
    return ((normalised < low) | (normalised > high)) & (maps.amax(dim=(1, 2)) > maps.amin(dim=(1, 2)))[:, None, None]


def inner_loss(inner: Tensor, last: Tensor, mask: Tensor, *, over: Over = "mean") -> Tensor:
    """Distance of the inner map from the last one where that is confident (kou2021 Eq. 5).

    `L_inner = sum_ij |S_F - S_L| ⊙ mask`, averaged over the batch, for `inner` `S_F` and `last` `S_L` of the true
    class, `(B, h, w)` each. No gradient reaches `S_L`. Printed is the `sum`, which grows with the size of the map: at
    `α = 1`, as in the paper, and 200 cells it far outweighs the cross-entropy. The `mean` over all cells does not.

    Raises:
        ValueError: If shapes differ or `over` is unknown.

    Example:
        >>> inner, last = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[4.0, 9.0]]])
        >>> inner_loss(inner, last, torch.tensor([[[True, False]]]))
        tensor(1.5000)
    """
    if not inner.shape == last.shape == mask.shape:
        shapes = ", ".join(str(tuple(each.shape)) for each in (inner, last, mask))
        raise ValueError(f"inner map, last map and mask must have one shape, got {shapes}")
    if over not in ("sum", "mean"):
        raise ValueError(f"over must be 'sum' or 'mean', not {over!r}")
    far = (inner - last.detach()).abs() * mask
    return (far.sum(dim=(1, 2)) if over == "sum" else far.mean(dim=(1, 2))).mean()
