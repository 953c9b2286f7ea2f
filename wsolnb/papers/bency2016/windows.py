"""Windows of a search: tree, crops, parts of grids, heat maps (bency2016, https://arxiv.org/abs/1603.00489)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align


@dataclass(frozen=True)
class Level:
    """The windows of one level of the tree; with recropping once for every window that they are cut from.

    Args:
        image: Index of every window's image, int64 `(n,)`.
        windows: xyxy as fractions of the image, float64 `(n, 4)`.
        parent: The window it is a part of, as an index in the previous level, int64 `(n,)`.
        scores: Of every window for every class, `(n, K)`.
        kept: Indices of the best windows of every search, best first, int64 `(P, m)`; -1 where there are fewer.
        crops: Images that went through the backbone for this level.
    """

    image: Tensor
    windows: Tensor
    parent: Tensor
    scores: Tensor
    kept: Tensor
    crops: int


@dataclass(frozen=True)
class SearchTree:
    """All windows that a search scored, and those it kept.

    `pairs`, int64 `(P, 2)`, are image and class of every search, `scores` `(B, K)` those of the whole images; `levels`
    go down from the whole image (level 0).
    """

    pairs: Tensor
    scores: Tensor
    levels: list[Level] = field(default_factory=list)

    @property
    def windows(self) -> list[int]:
        """Number of windows scored at every level."""
        return [len(level.windows) for level in self.levels]

    @property
    def crops(self) -> list[int]:
        """Number of crops that went through the backbone for every level."""
        return [level.crops for level in self.levels]

    def survivors(self, depth: int | None = None) -> tuple[Tensor, Tensor]:
        """The kept windows of every search, from level 1 to `depth`; None: all levels.

        A search of depth 10 contains all shallower ones. Windows `(P, n, 4)` and their scores for the class searched
        `(P, n)`; a score of 0 where there is none.
        """
        windows, scores = [], []
        for level in self.levels[1 : None if depth is None else depth + 1]:
            place = level.kept.clamp(min=0)
            windows.append(level.windows[place])
            scores.append(level.scores[place, self.pairs[:, 1:]].masked_fill(level.kept < 0, 0))
        if not windows:
            return torch.zeros(len(self.pairs), 0, 4), torch.zeros(len(self.pairs), 0)
        return torch.cat(windows, dim=1), torch.cat(scores, dim=1)

    def best(self, depth: int | None = None) -> tuple[Tensor, Tensor]:
        """The best-scored window of every search, the whole image included, `(P, 4)`, and its score `(P,)`."""
        windows, scores = self.survivors(depth)
        root = self.scores[self.pairs[:, 0], self.pairs[:, 1]]
        whole = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=windows.dtype, device=windows.device)
        windows = torch.cat([whole.expand(len(windows), 1, 4), windows], dim=1)
        scores = torch.cat([root[:, None].to(scores), scores], dim=1)
        value, place = scores.max(dim=1)
        return windows[torch.arange(len(windows)), place], value

    def heat(self, cells: int = 32, depth: int | None = None) -> Tensor:
        """Heat maps: the scores of the kept windows of all levels, summed over the area of each (Sec. 3.4).

        float32 `(B, K, cells, cells)`, 0 for classes not searched. The whole image is left out, as it adds a constant.
        """
        windows, scores = self.survivors(depth)
        return heat_maps(windows, scores, self.pairs, (*self.scores.shape,), cells)


def heat_maps(windows: Tensor, scores: Tensor, pairs: Tensor, shape: tuple[int, ...], cells: int = 32) -> Tensor:
    """Scores of windows, summed over the area of each (bency2016 Sec. 3.4): float32 `(B, K, cells, cells)`.

    Every search has windows `(P, n, 4)`, xyxy as fractions of the image, scores `(P, n)`, and an image and class
    `pairs` `(P, 2)`; `shape` is `(B, K)`. A cell is weighted by its covered fraction.

    Example:
        >>> left = torch.tensor([[[0.0, 0.0, 0.5, 1.0]]])
        >>> heat_maps(left, torch.tensor([[0.8]]), torch.tensor([[0, 0]]), (1, 1), 2)[0, 0, 0]
        tensor([0.8000, 0.0000])
    """
    heat = torch.zeros(*shape, cells, cells, device=windows.device)
    spread = torch.arange(cells, dtype=windows.dtype, device=windows.device)
    pieces = zip(windows.split(_PIECE), scores.to(windows).split(_PIECE), pairs.split(_PIECE), strict=True)
    for mine, score, (image, klass) in ((w, s, p.unbind(1)) for w, s, p in pieces):
        low, high = (cells * mine[..., k : k + 2, None] for k in (0, 2))
        covered = (torch.minimum(high, spread + 1) - torch.maximum(low, spread)).clamp(min=0)
        across, down = covered.unbind(2)
        heat[image, klass] = ((down * score[..., None]).transpose(1, 2) @ across).float()
    return heat


_PIECE = 1024  # searches whose heat is summed at once

CHILDREN = torch.tensor([[0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 1, 0, 0]])
"""The four children of a window (bency2016 Eq. 6): offsets of their corners in grid steps, xyxy."""


def crop_and_resize(images: Tensor, image: Tensor, windows: Tensor, side: int) -> Tensor:
    """Crops of images, resized by bilinear interpolation: `(n, 3, side, side)`, laid out as `channels_last`.

    `image` `(n,)` is the index of every window's image; windows `(n, 4)` are xyxy as fractions of it. Where a window
    has twice the pixels of the crop, each pixel of the crop is the mean of 2 x 2 samples, and so on.

    Example:
        >>> corner = torch.tensor([[0.0, 0.0, 0.5, 0.25]])
        >>> crop_and_resize(torch.arange(8.0).view(1, 1, 2, 4), torch.tensor([0]), corner, 1).item()
        0.5
    """
    pixels = windows.new_tensor([*images.shape[:1:-1]])
    places = ((windows[:, 2:] - windows[:, :2]) * pixels / side).amax(dim=1).round().clamp(min=1).long()
    regions = torch.cat([image[:, None], windows * pixels.repeat(2)], dim=1).to(images)
    crops = images.new_empty(len(image), images.shape[1], side, side)
    for count in places.unique().tolist():
        mine = places == count
        crops[mine] = roi_align(images, regions[mine], side, sampling_ratio=count, aligned=True)
    return crops.contiguous(memory_format=torch.channels_last)


def resample(grids: Tensor, source: Tensor, regions: Tensor, cells: int) -> Tensor:
    """Windows of grids, resampled to `cells` x `cells` by bilinear interpolation between the cells inside them.

    The first and last cell of a window become the first and last of the result (align_corners=True). Grids are
    `(N, T, L, L)`; `source` `(n,)` is the index of every window's grid, `regions` `(n, 4)` are xyxy in cells, far
    corner exclusive.

    Example:
        >>> row = torch.tensor([[[[1.0, 2.0, 9.0]] * 3]])
        >>> resample(row, torch.tensor([0]), torch.tensor([[0.0, 0.0, 2.0, 3.0]]), 3)[0, 0, 0]
        tensor([1.0000, 1.5000, 2.0000])
    """
    step = (regions[:, 2:] - regions[:, :2] - 1) / (cells - 1)
    corner = regions[:, :2] + 0.5 - step / 2
    rows = torch.cat([source[:, None].to(corner), corner, corner + cells * step], dim=1).to(grids)
    return roi_align(grids, rows, cells, sampling_ratio=1, aligned=True)


def resampled_children(grids: Tensor) -> Tensor:
    """The four `CHILDREN` of whole grids `(N, T, L, L)`, as `stretch` gives them: `(N, 4, T, L, L)`.

    Example:
        >>> resampled_children(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))[0, :, 0].tolist()[1]
        [[2.0, 2.0], [4.0, 4.0]]
    """
    cells = grids.shape[-1]
    parts = [grids[:, :, y0 : cells + y1, x0 : cells + x1] for x0, y0, x1, y1 in CHILDREN.tolist()]
    return torch.stack([F.interpolate(part, (cells, cells), mode="bilinear", align_corners=True) for part in parts], 1)
