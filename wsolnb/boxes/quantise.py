"""Maps as uint8 images, made where the maps live: a quarter of the bytes has to leave the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def require_finite(maps: Tensor) -> None:
    """Raises if a map holds NaN or infinity.

    Args:
        maps: ``(B, ...)``, any device.

    Raises:
        ValueError: Names the first image at fault.

    Example:
        >>> require_finite(torch.tensor([[0.0], [float("nan")]]))
        Traceback (most recent call last):
        ValueError: the map of image 1 in this batch holds NaN or infinite values
    """
    flat = maps.flatten(1)
    if flat.sum(dim=1, dtype=torch.promote_types(maps.dtype, torch.float32)).isfinite().all():
        return  # one pass, which anything that is not finite spoils
    bad = ~flat.isfinite().all(dim=1)
    if bad.any():
        image = int(bad.nonzero()[0])
        raise ValueError(f"the map of image {image} in this batch holds NaN or infinite values")


def minmax_normalise(maps: Tensor) -> Tensor:
    """Each map ``(N, H, W)`` scaled to [0, 1] by its own minimum and maximum; a constant map becomes zero.

    Example:
        >>> minmax_normalise(torch.tensor([[[1.0, 3.0]], [[2.0, 2.0]]]))
        tensor([[[0., 1.]],
        <BLANKLINE>
                [[0., 0.]]])
    """
    shifted = maps - maps.amin(dim=(1, 2), keepdim=True)
    highest = shifted.amax(dim=(1, 2), keepdim=True)
    return shifted / torch.where(highest > 0, highest, 1)


def quantise(maps: Tensor) -> Tensor:
    """Maps in [0, 1] as uint8, truncated and never rounded: ``int(255 v)`` in float64, as the protocol does.

    Args:
        maps: Float, any shape; values outside [0, 1] are clamped.

    Returns:
        uint8, the same shape and device.

    Example:
        >>> quantise(torch.tensor([0.0, 0.5, 0.999, 1.0]))
        tensor([  0, 127, 254, 255], dtype=torch.uint8)
    """
    return _double(maps.clamp(0, 1)).mul_(255).to(torch.uint8).to(maps.device)


def cubehelix_grey(maps: Tensor) -> Tensor:
    """Maps in [0, 1] through matplotlib's ``cubehelix`` colours and back to grey: what the code of ADL cuts.

    The 256 colours have rising luminance, so that this is the identity up to one grey level: 48 pairs of neighbouring
    levels become one.

    Args:
        maps: Float, any shape; values outside [0, 1] are clamped.

    Returns:
        uint8, the same shape and device.

    Example:
        >>> cubehelix_grey(torch.tensor([0.0, 0.0125, 0.5, 1.0]))
        tensor([  0,   2, 128, 255], dtype=torch.uint8)
    """
    x = torch.linspace(0, 1, 256, dtype=torch.float64)
    angle = 2 * math.pi * (0.5 / 3 - 1.5 * x)
    cosine, sine = angle.cos(), angle.sin()
    weights = torch.tensor([[-0.14861, 1.78277], [-0.29227, -0.90649], [1.97294, 0.0]], dtype=torch.float64)
    colours = x + x * (1 - x) / 2 * (weights[:, :1] * cosine + weights[:, 1:] * sine)
    red, green, blue = (colours.clamp(0, 1).float() * 255).to(torch.uint8).long()
    grey = (red * 9798 + green * 19235 + blue * 3735 + (1 << 14)) >> 15  # OpenCV's fixed-point luminance
    index = _double(maps.clamp(0, 1)).mul_(256).long().clamp(max=255)
    return grey.to(torch.uint8)[index.cpu()].to(maps.device)


def percentile(maps: Tensor, percent: float) -> Tensor:
    """A percentile of each map, linear between ranks as NumPy computes it.

    Args:
        maps: ``(N, H, W)``.
        percent: 0 to 100.

    Returns:
        float64 ``(N,)`` on the CPU.

    Example:
        >>> percentile(torch.tensor([[[0, 10], [20, 30]]], dtype=torch.uint8), 50)
        tensor([15.], dtype=torch.float64)
    """
    flat = maps.flatten(1)
    place = percent / 100 * (flat.shape[1] - 1)
    below, part = int(place), place - int(place)
    low, high = (flat.kthvalue(min(k, flat.shape[1])).values.cpu().double() for k in (below + 1, below + 2))
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)


def _double(maps: Tensor) -> Tensor:
    """The maps in float64, on the CPU where the device has none."""
    return maps.cpu().double() if maps.device.type == "mps" else maps.double()
