"""Maps checked, normalised and quantised to uint8, on the maps' own device: a quarter of the bytes have to leave it."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def require_finite(maps: Tensor) -> None:
    """Check that maps ``(B, ...)`` hold neither NaN nor infinity; the error names the first image that does.

    Example:
        >>> require_finite(torch.tensor([[0.0], [float("nan")]]))
        Traceback (most recent call last):
        ValueError: the map of image 1 in this batch holds NaN or infinite values
    """
    flat = maps.flatten(1)
    if flat.sum(dim=1, dtype=torch.promote_types(maps.dtype, torch.float32)).isfinite().all():
        return  # one pass over finite maps: any other value makes its sum NaN or infinite
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
    """Maps clamped to [0, 1], any shape, as uint8: ``int(255 v)`` in float64, truncated as in the protocol.

    Example:
        >>> quantise(torch.tensor([0.0, 0.5, 0.999, 1.0]))
        tensor([  0, 127, 254, 255], dtype=torch.uint8)
    """
    return _double(maps.clamp(0, 1)).mul_(255).to(torch.uint8).to(maps.device)


def cubehelix_grey(maps: Tensor) -> Tensor:
    """Maps in [0, 1], any shape, through matplotlib's ``cubehelix`` colours and back to uint8 grey, as in ADL's code.

    The luminance of the 256 colours rises, so this differs from `quantise` by a grey level at most; 48 pairs of
    neighbouring levels become one. Values outside [0, 1] are clamped.

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
    """A percentile (0 to 100) of each map ``(N, H, W)``, linear between ranks as in NumPy; float64 ``(N,)`` on the CPU.

    Example:
        >>> percentile(torch.tensor([[[0, 10], [20, 30]]], dtype=torch.uint8), 50)
        tensor([15.], dtype=torch.float64)
    """
    flat = maps.flatten(1)
    rank = percent / 100 * (flat.shape[1] - 1)
    below, part = int(rank), rank - int(rank)
    low, high = (flat.kthvalue(min(k, flat.shape[1])).values.cpu().double() for k in (below + 1, below + 2))
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)


def _double(maps: Tensor) -> Tensor:
    """The maps in float64, on the CPU where the device has none."""
    return maps.cpu().double() if maps.device.type == "mps" else maps.double()
