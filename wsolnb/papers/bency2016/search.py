"""Beam search over windows of a feature grid (bency2016 Secs. 3.3 and 3.4, https://arxiv.org/abs/1603.00489).

A window has four children, one grid step smaller in width or in height, not in both (Eq. 6). Level by level:

    best windows of every class -> crops -> backbone (one batch) -> grids
    -> their children, resampled to L x L (one batch) -> fully connected layers (one batch) -> scores of all classes
    -> the M best children of every class

Searches share what they have in common: a window is cropped once, whoever keeps it, and so are its children scored. A
child's score depends on the crop that it is a part of, so a child of two windows is scored twice. What a search finds
therefore never depends on which other classes or images are searched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wsolnb.papers.bency2016.network import GridClassifier
from wsolnb.papers.bency2016.windows import CHILDREN, Level, SearchTree, crop_and_resize, resample, resampled_children

Scores = Callable[[Tensor], Tensor]
"""Outputs of the network `(n, K)` to comparable class scores `(n, K)`, such as an objective's `scores`."""


@dataclass(frozen=True)
class BeamSearch:
    """How to search (bency2016 Sec. 3.4). `width=1` is the greedy search; without a width the search is exhaustive.

    Args:
        width: `M`, windows kept per class and level; None: all, whose number doubles with every level.
        depth: `H`, levels below the whole image.
        recrop: Crop every kept window from the image and run the backbone on it (Sec. 3.3); otherwise all windows are
            parts of the one grid of the whole image, with fewer cells the deeper they lie.
        batch: Largest number of crops, and of grids, in one pass. Fastest while they fit into the processor's cache.

    Raises:
        ValueError: If the width, the depth or the batch is below 1.

    Example:
        >>> from wsolnb.papers.bency2016.network import grid_classifier
        >>> net = grid_classifier("tiny", 3, grid=4, hidden=(8,)).eval()
        >>> tree = BeamSearch(width=2, depth=3)(net, torch.rand(2, 3, 40, 64), lambda x: x.softmax(dim=1))
        >>> tree.windows[:2], tree.heat(16).shape
        ([2, 8], torch.Size([2, 3, 16, 16]))
    """

    width: int | None = 8
    depth: int = 10
    recrop: bool = True
    batch: int = 64

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
    ) -> SearchTree:
        """Search every wanted class in every image: RGB in [0, 1], float `(B, 3, H, W)`, on the model's device.

        The model is in evaluation mode; `scores` turns its outputs into class scores. `wanted` are classes, bool
        `(B, K)`, or the number of best-scored ones in every image; None: all.

        Raises:
            ValueError: If the images are smaller than the network's input, or `wanted` does not fit.
        """
        height, width = images.shape[2:]
        if min(height, width) < model.side:
            raise ValueError(
                f"images of {width} x {height} pixels are smaller than the network's input of {model.side} x "
                f"{model.side}: enlarge them, or take a backbone or a grid with a smaller input"
            )
        walk = _Walk(self, model, images, scores, wanted)
        for _ in range(self.depth):
            if not walk.descend():
                break
        return SearchTree(walk.pairs, walk.scores, walk.levels)


class _Walk:
    """State between two levels: the windows so far, and codes that identify equal windows."""

    def __init__(
        self, search: BeamSearch, model: GridClassifier, images: Tensor, scores: Scores, wanted: Tensor | int | None
    ) -> None:
        self.search, self.model, self.class_scores = search, model, scores
        self.features, self.images = model.frozen_features(), model.backbone.normalise(images)
        number = torch.arange(len(images), device=images.device)
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64, device=images.device)
        self.whole = whole.expand(len(images), 4)
        self.grids = torch.cat([self._grids(part, self.whole[part]) for part in number.split(search.batch)])
        self.scores = self._classify(self.grids)
        self.pairs = _pairs(wanted, self.scores)
        kept = self.pairs[:, :1].clone()
        self.levels = [Level(number, self.whole, torch.full_like(number, -1), self.scores, kept, len(number))]
        self.codes = torch.ones(len(number), 2, dtype=torch.int64, device=images.device)

    def descend(self) -> bool:
        """Score the children of all kept windows and keep the best of every search; False if there are none."""
        last, recrop, cells = self.levels[-1], self.search.recrop, self.model.grid
        kept = last.kept[last.kept >= 0].unique()
        if not len(kept):
            return False
        first, place = _distinct(last.image[kept], self.codes[kept])
        parents = kept[first]  # one row of every kept window
        rank = torch.full_like(last.image, -1)
        rank[kept] = place
        image, windows = last.image[parents], last.windows[parents]
        frame = (windows * cells).round()  # in cells of the grid
        if recrop:
            frame = torch.tensor([0.0, 0.0, cells, cells]).to(windows).expand(len(parents), 4)
        sides = frame[:, 2:] - frame[:, :2]
        unit, cut = (windows[:, 2:] - windows[:, :2]) / sides, CHILDREN.to(frame)
        valid = (sides[:, None] + cut[:, 2:] - cut[:, :2] >= 1).all(dim=2)
        of, which = valid.nonzero(as_tuple=True)
        if not len(of):
            return False
        codes = _codes(self.codes[parents], recrop)[valid]
        first, window = _distinct(image[of], codes)
        table = torch.full((len(parents), 4), -1, dtype=torch.int64, device=image.device)
        if recrop:  # a part of two crops has two scores
            table[valid] = torch.arange(len(of), device=image.device)
            found = self._children(parents)
        else:  # on one grid a window has one score, whoever its parent is
            table[valid] = window
            of, which, codes, window = of[first], which[first], codes[first], window[first]
            found = self._parts(image[of], frame[of] + cut[which])
        asked = table[rank[last.kept.clamp(min=0)]].masked_fill((last.kept < 0)[..., None], -1).flatten(1)
        kept = _best(asked, found, self.pairs[:, 1], window, self.search.width)
        children = windows[of] + cut[which] * unit[of].repeat(1, 2)
        crops = len(parents) if recrop and len(self.levels) > 1 else 0
        self.levels.append(Level(image[of], children, parents[of], found, kept, crops))
        self.codes = codes
        return True

    def _children(self, parents: Tensor) -> Tensor:
        """Scores of the four children of windows, given by their rows in the last level."""
        last, found = self.levels[-1], []
        for part in parents.split(self.search.batch):
            grids = self._grids(last.image[part], last.windows[part]) if len(self.levels) > 1 else self.grids[part]
            found.append(self._classify(resampled_children(grids).flatten(0, 1)))
        return torch.cat(found)

    def _parts(self, image: Tensor, regions: Tensor) -> Tensor:
        """Scores of parts of the grids of the whole images."""
        pieces = zip(image.split(4 * self.search.batch), regions.split(4 * self.search.batch), strict=True)
        grids = self.grids.contiguous()
        return torch.cat([self._classify(resample(grids, i, r, self.model.grid)) for i, r in pieces])

    def _grids(self, image: Tensor, windows: Tensor) -> Tensor:
        """Grids of windows of the images: cropped, resized to the network's input, passed through the backbone."""
        return self.features(crop_and_resize(self.images, image, windows, self.model.side))

    def _classify(self, grids: Tensor) -> Tensor:
        return self.class_scores(self.model.classify(grids).double())


def _codes(codes: Tensor, recrop: bool) -> Tensor:
    """Codes of the four children: equal windows of an image get equal codes.

    With recropping, the steps along each axis are bits behind a leading 1, as their order matters. On one grid only the
    numbers of steps to either side matter.
    """
    x, y = codes.unbind(1)
    if recrop:
        shorter = [(2 * x, y), (2 * x + 1, y), (x, 2 * y), (x, 2 * y + 1)]
    else:
        shorter = [(x + 1, y), (x + 128, y), (x, y + 1), (x, y + 128)]
    return torch.stack([torch.stack(pair, dim=1) for pair in shorter], dim=1)


def _distinct(image: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the first of each distinct window, and for every window the index of its distinct one."""
    numbers = [image, *(codes[:, k].unique(return_inverse=True)[1] for k in (0, 1))]
    key = torch.zeros_like(image)
    for number in numbers:
        key = key * (int(number.max()) + 1) + number
    distinct, place = key.unique(return_inverse=True)
    first = torch.full((len(distinct),), len(key), device=key.device)
    first.scatter_reduce_(0, place, torch.arange(len(key), device=key.device), "amin")
    return first, place


def _best(candidates: Tensor, scores: Tensor, klass: Tensor, window: Tensor, width: int | None) -> Tensor:
    """The best candidates of every search, best first, a window once by its best score; -1 where there are fewer.

    Candidates `(P, n)` are indices into `scores` `(N, K)` and `window` `(N,)`, equal for equal windows; -1 for none.
    `klass` `(P,)` is the class of every search.
    """
    value = scores[candidates.clamp(min=0), klass[:, None]].masked_fill(candidates < 0, -torch.inf)
    ordered = candidates.gather(1, value.sort(dim=1, descending=True, stable=True).indices)
    number, place = window[ordered.clamp(min=0)].masked_fill(ordered < 0, -1).sort(dim=1, stable=True)
    again = torch.zeros_like(place, dtype=torch.bool)
    again.scatter_(1, place[:, 1:], number[:, 1:] == number[:, :-1])
    ordered = ordered.masked_fill(again, -1)
    best = ordered.gather(1, (ordered < 0).sort(dim=1, stable=True).indices)
    most = int((best >= 0).sum(dim=1).max()) if width is None and len(best) else width
    return best[:, :most]


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
