"""Windows cut out of images and of grids, brought to one size by bilinear interpolation, all of them at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

CHILDREN = torch.tensor([[0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 1, 0, 0]])
"""The four children of a window (bency2016 Eq. 6): how many steps their corners lie from its own, xyxy."""


def cut_out(images: Tensor, image: Tensor, windows: Tensor, side: int) -> Tensor:
    """Crops of images, brought to one size by bilinear interpolation.

    Where a window has twice the pixels of the crop, each pixel of the crop is the mean of 2 x 2 places, and so on.

    Args:
        images: `(B, 3, H, W)`.
        image: Number of the image of every window, int64 `(n,)`.
        windows: xyxy as fractions of the image, `(n, 4)`.
        side: Side of the crops in pixels.

    Returns:
        `(n, 3, side, side)`, laid out as `channels_last`.

    Example:
        >>> corner = torch.tensor([[0.0, 0.0, 0.5, 0.25]])
        >>> cut_out(torch.arange(8.0).view(1, 1, 2, 4), torch.tensor([0]), corner, 1).item()
        0.5
    """
    pixels = windows.new_tensor([*images.shape[:1:-1]])
    places = ((windows[:, 2:] - windows[:, :2]) * pixels / side).amax(dim=1).round().clamp(min=1).long()
    order = places.argsort(stable=True)
    crops: list[Tensor] = []
    for count, size in zip(*(x.tolist() for x in places.unique(return_counts=True)), strict=True):
        mine = order[sum(len(crop) for crop in crops) :][:size]
        spots = ((torch.arange(side * count, device=windows.device) + 0.5) / (side * count)).view(side, count).T
        found = [_look_up(images, image[mine], windows[mine], x, y) for x in spots for y in spots]
        crops.append(found[0] if count == 1 else torch.stack(found).mean(dim=0))
    return (crops[0] if len(crops) == 1 else torch.cat(crops)[order.argsort()]).permute(0, 3, 1, 2)


def _look_up(images: Tensor, image: Tensor, windows: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Colours at places of windows, `(n, down, across, 3)`; the places are fractions of the window.

    Windows of the same image stand below one another in one grid of places, so that no image is copied for a window.
    """
    numbers, own, counts = image.unique(return_inverse=True, return_counts=True)
    order = own.argsort(stable=True)
    row = torch.empty_like(own)
    row[order] = torch.arange(len(own), device=own.device) - (counts.cumsum(0) - counts)[own[order]]
    grid = images.new_zeros(len(numbers), int(counts.max()), len(down), len(across), 2)
    for k, spots in enumerate((across, down)):
        at = 2 * (windows[:, k, None] + (windows[:, k + 2] - windows[:, k])[:, None] * spots) - 1
        grid[own, row, :, :, k] = at.to(images).unsqueeze(1 + k)
    found = F.grid_sample(images[numbers], grid.flatten(1, 2), padding_mode="border", align_corners=False)
    return found.unflatten(2, (-1, len(down))).permute(0, 2, 3, 4, 1)[own, row]


def stretch(grids: Tensor, source: Tensor, regions: Tensor, cells: int) -> Tensor:
    """Windows of grids, stretched to `cells` x `cells` by bilinear interpolation between the cells inside them.

    The first and the last cell of a window become the first and the last of the result (align_corners=True).

    Args:
        grids: `(N, T, L, L)`.
        source: Which of them each window lies in, `(n,)`.
        regions: xyxy in cells, far corner exclusive, `(n, 4)`.
        cells: `L`.

    Example:
        >>> row = torch.tensor([[[[1.0, 2.0, 9.0]] * 3]])
        >>> stretch(row, torch.tensor([0]), torch.tensor([[0.0, 0.0, 2.0, 3.0]]), 3)[0, 0, 0]
        tensor([1.0000, 1.5000, 2.0000])
    """
    step = (regions[:, 2:] - regions[:, :2] - 1) / (cells - 1)
    corner = regions[:, :2] + 0.5 - step / 2
    rows = torch.cat([source[:, None].to(corner), corner, corner + cells * step], dim=1).to(grids)
    return roi_align(grids, rows, cells, sampling_ratio=1, aligned=True)


def stretched_children(grids: Tensor) -> Tensor:
    """The four `CHILDREN` of whole grids `(N, T, L, L)`, as `stretch` gives them: `(N, 4, T, L, L)`.

    Example:
        >>> stretched_children(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))[0, :, 0].tolist()[1]
        [[2.0, 2.0], [4.0, 4.0]]
    """
    cells = grids.shape[-1]
    parts = [grids[:, :, y0 : cells + y1, x0 : cells + x1] for x0, y0, x1, y1 in CHILDREN.tolist()]
    return torch.stack([F.interpolate(part, (cells, cells), mode="bilinear", align_corners=True) for part in parts], 1)
