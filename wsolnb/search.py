"""Beam search over windows of a feature grid (bency2016 Secs. 3.3 and 3.4).

A window is a part of the image. Its children are one grid step smaller in width or in height, not in both (Eq. 6), and
lie in it, so there are four. Level by level:

    best windows of every class -> crops -> backbone (one batch) -> grids
    -> their children, stretched to L x L (one batch) -> fully connected layers (one batch) -> scores of all classes
    -> the M best children of every class

All classes and images of a level share their windows: whoever asks for a window, it is scored once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import roi_align

from wsolnb.models.beam import GridClassifier
from wsolnb.window_tree import Level, Tree

Scores = Callable[[Tensor], Tensor]
"""Outputs of the network `(n, K)` to comparable class scores `(n, K)`, such as an objective's `scores`."""


@dataclass(frozen=True)
class BeamSearch:
    """How to search (bency2016 Sec. 3.4). `width=1` is the greedy search; without a width the search is exhaustive.

    Args:
        width: `M`, windows kept for every class at every level; None keeps all: their number doubles with every level.
        depth: `H`, levels below the whole image.
        recrop: Cut every kept window out of the image and run the backbone on it (Sec. 3.3); otherwise all windows are
            parts of the one grid of the whole image, which fewer cells tell apart the deeper they lie.
        batch: Largest number of crops or grids in one pass.

    Raises:
        ValueError: If the width, the depth or the batch is below 1.

    Example:
        >>> from wsolnb.models.beam import grid_classifier
        >>> net = grid_classifier("tiny", 3, grid=4, hidden=(8,)).eval()
        >>> tree = BeamSearch(width=2, depth=3)(net, torch.rand(2, 3, 40, 64), lambda x: x.softmax(dim=1))
        >>> tree.windows[:2], tree.heat(16).shape
        ([2, 8], torch.Size([2, 3, 16, 16]))
    """

    width: int | None = 8
    depth: int = 10
    recrop: bool = True
    batch: int = 256

    def __post_init__(self) -> None:
        for name in ("width", "depth", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        if self.depth > 60:
            raise ValueError(f"depth={self.depth}: more than 60 levels are not kept apart")

    @torch.inference_mode()
    def __call__(
        self, model: GridClassifier, images: Tensor, scores: Scores, wanted: Tensor | int | None = None
    ) -> Tree:
        """Search every wanted class in every image.

        Args:
            model: In evaluation mode.
            images: RGB in [0, 1], float `(B, 3, H, W)`, on the model's device.
            scores: From outputs to class scores.
            wanted: Which classes to search in which images, bool `(B, K)`; or the number of classes, the best-scored
                of every image; None: all.

        Raises:
            ValueError: If the images are smaller than the network's input, or `wanted` does not fit.
        """
        height, width = images.shape[2:]
        if min(height, width) < model.side:
            raise ValueError(
                f"images of {width} x {height} pixels are smaller than the network's input of {model.side} x "
                f"{model.side}: enlarge them, or take a backbone or a grid with a smaller input"
            )
        walk = _Walk(self, model, images, scores)
        pairs = _pairs(wanted, walk.levels[0].scores)
        tree = Tree(pairs, walk.levels[0].scores, walk.levels)
        walk.levels[0] = _kept(walk.levels[0], pairs[:, :1].clone())
        for _ in range(self.depth):
            if not walk.descend(pairs):
                break
        return tree


def cut_out(images: Tensor, image: Tensor, windows: Tensor, side: int) -> Tensor:
    """Crops of images, brought to one size by bilinear interpolation.

    Where a window has twice the pixels of the crop, each pixel of the crop is the mean of 2 x 2 places, and so on.

    Args:
        images: `(B, 3, H, W)`.
        image: Number of the image of every window, `(n,)`.
        windows: xyxy as fractions of the image, `(n, 4)`.
        side: Side of the crops in pixels.

    Returns:
        `(n, 3, side, side)`, laid out as `channels_last`.

    Example:
        >>> corner = torch.tensor([[0.0, 0.0, 0.5, 0.25]])
        >>> cut_out(torch.arange(8.0).view(1, 1, 2, 4), torch.tensor([0]), corner, 1).item()
        0.5
    """
    height, width = images.shape[2:]
    pixels = windows * torch.tensor([width, height] * 2, device=windows.device)
    places = ((pixels[:, 2:] - pixels[:, :2]) / side).amax(dim=1).round().clamp(min=1).int()
    rows = torch.cat([image[:, None].to(pixels), pixels], dim=1).to(images)
    crops = images.new_empty(len(rows), images.shape[1], side, side).contiguous(memory_format=torch.channels_last)
    for count in places.unique().tolist():
        mine = places == count
        crops[mine] = roi_align(images, rows[mine], side, sampling_ratio=count, aligned=True)
    return crops


class _Walk:
    """The state between two levels: what was found, and the codes by which equal windows are known."""

    def __init__(self, search: BeamSearch, model: GridClassifier, images: Tensor, scores: Scores) -> None:
        self.search, self.model, self.images, self.scores = search, model, images, scores
        count, device = len(images), images.device
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64, device=device).repeat(count, 1)
        number = torch.arange(count, device=device)
        self.grids = self._grids(number, whole)
        none = torch.full((count,), -1, device=device)
        self.levels = [Level(number, whole, none, self._classify(self.grids), none[:, None], count)]
        self.codes = torch.ones(count, 2, dtype=torch.int64, device=device)

    def descend(self, pairs: Tensor) -> bool:
        """Score the children of all kept windows and keep the best for every search; whether there were any."""
        last, search, cells = self.levels[-1], self.search, self.model.grid
        parents = last.kept[last.kept >= 0].unique()
        image, windows = last.image[parents], last.windows[parents]
        if search.recrop:
            deeper = len(self.levels) > 1
            grids = self._grids(image, windows) if deeper else self.grids[parents]
            source, crops = torch.arange(len(parents), device=image.device), len(parents) if deeper else 0
            unit = (windows[:, 2:] - windows[:, :2]) / cells
            frame = torch.tensor([0.0, 0.0, cells, cells], dtype=torch.float64, device=image.device)
            frame = frame.expand(len(parents), 4)
        else:
            grids, source, crops = self.grids, image, 0
            unit = torch.full((len(parents), 2), 1 / cells, dtype=torch.float64, device=image.device)
            frame = (windows * cells).round()
        sides = frame[:, 2:] - frame[:, :2]
        cut = _CUTS.to(frame)
        valid = (sides[:, None] + cut[:, 2:] - cut[:, :2] >= 1).all(dim=2)
        codes = _codes(self.codes[parents], search.recrop)
        of = torch.arange(len(parents), device=image.device)[:, None].expand(-1, 4)[valid]
        if not len(of):
            return False
        child_codes = codes[valid]
        first, place = _distinct(image[of], child_codes)
        chosen = of[first]
        step = cut.expand(len(parents), 4, 4)[valid][first]
        children = windows[chosen] + step * unit[chosen].repeat(1, 2)
        regions = frame[chosen] + step
        found = torch.cat(
            [
                self._classify(_stretch(grids, source[chosen[part]], regions[part], cells))
                for part in torch.arange(len(chosen), device=image.device).split(search.batch)
            ]
        )
        table = torch.full((len(parents), 4), -1, dtype=torch.int64, device=image.device)
        table[valid] = place
        rank = torch.full((len(last.image),), -1, dtype=torch.int64, device=image.device)
        rank[parents] = torch.arange(len(parents), device=image.device)
        mine = table[rank[last.kept.clamp(min=0)]].masked_fill((last.kept < 0)[..., None], -1).flatten(1)
        kept = _best(mine, found, pairs[:, 1], search.width)
        self.levels.append(Level(image[chosen], children, parents[chosen], found, kept, crops))
        self.codes = child_codes[first]
        return True

    def _grids(self, image: Tensor, windows: Tensor) -> Tensor:
        """Grids of windows of the images: cut out, brought to the network's input, through the backbone."""
        parts = zip(image.split(self.search.batch), windows.split(self.search.batch), strict=True)
        grids = [self.model.features(cut_out(self.images, i, w, self.model.side)) for i, w in parts]
        return torch.cat(grids).contiguous()

    def _classify(self, grids: Tensor) -> Tensor:
        return torch.cat([self.scores(self.model.classify(g).double()) for g in grids.split(self.search.batch)])


_CUTS = torch.tensor([[0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 1, 0, 0]])  # the four children


def _codes(codes: Tensor, recrop: bool) -> Tensor:
    """Codes of the four children: equal windows of an image get equal codes.

    Along each axis, where windows are cropped again, the steps are written as bits behind a leading 1: their order
    counts. On one grid only the numbers of steps to either side count.
    """
    x, y = codes.unbind(1)
    if recrop:
        shorter = [(2 * x, y), (2 * x + 1, y), (x, 2 * y), (x, 2 * y + 1)]
    else:
        shorter = [(x + 1, y), (x + 128, y), (x, y + 1), (x, y + 128)]
    return torch.stack([torch.stack(pair, dim=1) for pair in shorter], dim=1)


def _distinct(image: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Where each distinct window first stands, and for all of them which distinct one they are."""
    numbers = [image, *(codes[:, k].unique(return_inverse=True)[1] for k in (0, 1))]
    key = torch.zeros_like(image)
    for number in numbers:
        key = key * (int(number.max()) + 1) + number
    distinct, place = key.unique(return_inverse=True)
    first = torch.full((len(distinct),), len(key), device=key.device)
    first.scatter_reduce_(0, place, torch.arange(len(key), device=key.device), "amin")
    return first, place


def _stretch(grids: Tensor, source: Tensor, regions: Tensor, cells: int) -> Tensor:
    """Windows of grids, stretched to `cells` x `cells` by bilinear interpolation between the cells inside them.

    The first and the last cell of a window become the first and the last of the result (align_corners=True).

    Args:
        grids: `(N, T, L, L)`.
        source: Which of them each window lies in, `(n,)`.
        regions: xyxy in cells, far corner exclusive, `(n, 4)`.
        cells: `L`.
    """
    step = (regions[:, 2:] - regions[:, :2] - 1) / (cells - 1)
    corner = regions[:, :2] + 0.5 - step / 2
    rows = torch.cat([source[:, None].to(corner), corner, corner + cells * step], dim=1).to(grids)
    return roi_align(grids, rows, cells, sampling_ratio=1, aligned=True)


def _best(candidates: Tensor, scores: Tensor, klass: Tensor, width: int | None) -> Tensor:
    """The best of the candidates of every search, each once, best first; -1 where there are fewer.

    Args:
        candidates: Places in `scores`, -1 for none, `(P, n)`.
        scores: `(N, K)`.
        klass: Class of every search, `(P,)`.
        width: How many to keep; None: all.
    """
    ordered = candidates.sort(dim=1).values
    again = torch.zeros_like(ordered, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    ordered = ordered.masked_fill(again, -1)
    value = scores[ordered.clamp(min=0), klass[:, None]].masked_fill(ordered < 0, -torch.inf)
    value, place = value.sort(dim=1, descending=True, stable=True)
    best = ordered.gather(1, place)
    most = int((best >= 0).sum(dim=1).max()) if width is None else width
    return best[:, : min(most, best.shape[1])]


def _pairs(wanted: Tensor | int | None, scores: Tensor) -> Tensor:
    """Images and classes to search, `(P, 2)`."""
    if wanted is None:
        mask = torch.ones_like(scores, dtype=torch.bool)
    elif isinstance(wanted, int):
        if wanted < 1:
            raise ValueError(f"wanted={wanted}: search at least one class of every image")
        top = scores.topk(min(wanted, scores.shape[1]), dim=1).indices
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, top, True)
    else:
        if wanted.shape != scores.shape or wanted.dtype != torch.bool:
            raise ValueError(f"wanted must be bool {tuple(scores.shape)}, got {wanted.dtype} {tuple(wanted.shape)}")
        mask = wanted.to(scores.device)
    return mask.nonzero()


def _kept(level: Level, kept: Tensor) -> Level:
    return Level(level.image, level.windows, level.parent, level.scores, kept, level.crops)
