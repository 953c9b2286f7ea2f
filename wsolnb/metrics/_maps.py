"""Maps and thresholds, checked once for all metrics that take them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def check_maps(maps: Tensor, *, seen: int, grey_allowed: bool = False) -> None:
    """Check score maps ``(B, H, W)``: floating point, finite, in [0, 1].

    Args:
        maps: The maps of a batch.
        seen: Number of images before this batch, to name the image at fault.
        grey_allowed: Whether uint8 will do as well.

    Raises:
        TypeError: If the maps are no floats.
        ValueError: If the shape is wrong, or with the first image whose values are.
    """
    if maps.ndim != 3 or 0 in maps.shape[1:]:
        raise ValueError(f"maps must have shape (images, height, width), got {tuple(maps.shape)}")
    if grey_allowed and maps.dtype == torch.uint8:
        return
    if not maps.is_floating_point():
        raise TypeError(f"maps must be floating point, not {maps.dtype}")
    if not len(maps):
        return
    low, high = torch.aminmax(maps.detach())
    if bool((low >= 0) & (high <= 1)):
        return
    flat = maps.detach().flatten(1)
    wrong = ~((flat >= 0) & (flat <= 1)).all(dim=1)
    image = int(wrong.nonzero()[0])
    values = flat[image]
    problem = (
        f"has values from {values.min():g} to {values.max():g}, outside of [0, 1]: normalise it first"
        if bool(values.isfinite().all())
        else f"holds {values[~values.isfinite()][0]:g}: maps must be finite"
    )
    raise ValueError(f"the map of image {image} of this batch (image {seen + image} of all, from 0) {problem}")


def threshold_grid(count: int) -> Tensor:
    """The protocol's thresholds ``i / count``, with the rounding of ``numpy.arange(0, 1, 1 / count)``.

    Raises:
        ValueError: If ``count`` is below 2.
    """
    if count < 2:
        raise ValueError(f"at least 2 thresholds are needed, not {count}")
    return torch.from_numpy(np.arange(count) * (1 / count))


def threshold_index(thresholds: Tensor, threshold: float) -> int:
    """Index of a threshold on a grid.

    Raises:
        ValueError: If it is not there; the nearest one is named.
    """
    index = int((thresholds - threshold).abs().argmin())
    if abs(float(thresholds[index]) - threshold) > 1e-9:
        raise ValueError(
            f"threshold {threshold} is not among this metric's {len(thresholds)} thresholds; the nearest is "
            f"{float(thresholds[index]):g}"
        )
    return index


def require_shape(tensor: Tensor, shape: tuple[int | None, ...], what: str) -> None:
    """Check a shape in which None stands for any size but 0.

    Raises:
        ValueError: If it is another.
    """
    fits = tensor.ndim == len(shape) and all(
        size > 0 if wanted is None else size == wanted for size, wanted in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{what} must have shape ({wanted}), got {tuple(tensor.shape)}")
