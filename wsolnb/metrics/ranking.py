"""Predictions ranked by score and matched with the ground truth: their precision, recall and average precision."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wsolnb.metrics.bootstrap import Statistic

Interpolation = Literal["coco", "voc07", "area"]

COCO_RECALLS = torch.from_numpy(np.linspace(0.0, 1.0, 101))
VOC07_RECALLS = torch.from_numpy(np.linspace(0.0, 1.0, 11))

_CHUNK_ELEMENTS = 2**22


@dataclass(frozen=True)
class Ranking:
    """Matched predictions of all classes, sorted by class, then by falling score; ties by image, then as given.

    Attributes:
        score: Scores, float64 ``(D,)``.
        right: Whether a prediction matched a positive, bool ``(D,)``.
        ignored: Whether it counts neither for nor against (crowds), bool ``(D,)``.
        image, klass: Index of its image, and its class, int64 ``(D,)``.
        positive_image, positive_class: Image and class of each positive, int64 ``(P,)``.
        images, classes: Number of images and of classes.

    Example:
        >>> right, i, zero = torch.tensor([False, True]), torch.tensor([0, 1]), torch.tensor([0, 0])
        >>> ranking = Ranking(torch.tensor([0.1, 0.9]), right, zero > 0, i, zero, i, zero, images=2, classes=1)
        >>> ranking.score
        tensor([0.9000, 0.1000])
        >>> ranking.precision(torch.tensor([0.5, 1.0]))
        tensor([[[1., 0.]]], dtype=torch.float64)
        >>> [round(ranking.average_precision(kind).item(), 3) for kind in ("coco", "voc07", "area")]
        [0.505, 0.545, 0.5]
        >>> ranking.statistic("area")(torch.tensor([[1.0, 1.0], [0.0, 2.0]]))
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """

    score: Tensor
    right: Tensor
    ignored: Tensor
    image: Tensor
    klass: Tensor
    positive_image: Tensor
    positive_class: Tensor
    _: KW_ONLY
    images: int
    classes: int

    def __post_init__(self) -> None:
        order = torch.argsort(self.image, stable=True)
        order = order[torch.argsort(self.score[order], descending=True, stable=True)]
        order = order[torch.argsort(self.klass[order], stable=True)]
        for name in ("score", "right", "ignored", "image", "klass"):
            object.__setattr__(self, name, getattr(self, name)[order])

    def pooled(self) -> Ranking:
        """All classes in one ranking, for a single precision-recall curve."""
        klass, positive_class = torch.zeros_like(self.klass), torch.zeros_like(self.positive_class)
        return replace(self, klass=klass, positive_class=positive_class, classes=1)

    def precision(self, recalls: Tensor, weights: Tensor | None = None) -> Tensor:
        """Interpolated precision: the best precision at each recall or a higher one, float64 ``(draws, C, R)``.

        It is 0 where a recall is never reached, NaN for classes without positives. The recalls ``(R,)`` are in rising
        order; ``weights`` ``(draws, n)`` say how often each resampled data set has each image, by default once.

        Raises:
            ValueError: If the weights are not of shape ``(draws, n)``.
        """
        recalls = recalls.to(torch.float64)
        return torch.cat([self._precision(recalls, *self._counts(chunk)) for chunk in self._chunks(weights)])

    def average_precision(self, interpolation: Interpolation = "coco", weights: Tensor | None = None) -> Tensor:
        """Area under the interpolated precision-recall curve, float64 ``(draws, C)``; NaN without positives.

        ``"coco"`` averages the precision at 101 recalls, ``"voc07"`` at 11, ``"area"`` is exact. Weights are those of
        :meth:`precision`.
        """
        if interpolation == "coco":
            return self.precision(COCO_RECALLS, weights).mean(dim=-1)
        if interpolation == "voc07":
            return self.precision(VOC07_RECALLS, weights).mean(dim=-1)
        if interpolation == "area":
            return torch.cat([self._area(*self._counts(chunk)) for chunk in self._chunks(weights)])
        raise ValueError(f"unknown interpolation {interpolation!r}: choose coco, voc07 or area")

    def statistic(self, interpolation: Interpolation = "coco") -> Statistic:
        """Mean average precision as a function of image weights; a draw's mean is over the classes with positives."""
        return lambda weights: self.average_precision(interpolation, weights).nanmean(dim=1)

    def _chunks(self, weights: Tensor | None) -> list[Tensor]:
        if weights is None:
            weights = torch.ones(1, self.images)
        if weights.ndim != 2 or weights.shape[1] != self.images:
            raise ValueError(f"weights must have shape (draws, {self.images}), got {tuple(weights.shape)}")
        weights = weights.to(device=self.score.device, dtype=torch.float64)
        return list(weights.split(max(1, _CHUNK_ELEMENTS // max(1, len(self.score)))))

    def _counts(self, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """True and false positives down to each prediction ``(draws, D)``, and positives ``(draws, C)``."""
        counted = weights[:, self.image] * ~self.ignored
        start = torch.searchsorted(self.klass, self.klass)
        hits = _sums_since(counted * self.right, start)
        misses = _sums_since(counted * ~self.right, start)
        positives = weights.new_zeros(len(weights), self.classes)
        positives.index_add_(1, self.positive_class, weights[:, self.positive_image])
        return hits, misses, positives

    def _precision(self, recalls: Tensor, hits: Tensor, misses: Tensor, positives: Tensor) -> Tensor:
        # each prediction raises the precision at the last recall that it reaches (cell 0: none); then from the right
        recall = hits / positives[:, self.klass]
        last = torch.searchsorted(recalls, recall, right=True) - 1
        cell = (self.klass * (len(recalls) + 1) + last + 1).expand_as(last)
        best = hits.new_zeros(len(hits), self.classes * (len(recalls) + 1))
        best.scatter_reduce_(1, cell, _precisions(hits, misses), "amax")
        best = best.unflatten(1, (self.classes, len(recalls) + 1))[..., 1:]
        best = best.flip(-1).cummax(dim=-1).values.flip(-1)
        return best.masked_fill(positives.eq(0).unsqueeze(-1), torch.nan)

    def _area(self, hits: Tensor, misses: Tensor, positives: Tensor) -> Tensor:
        lift = 2.0 * (self.classes - self.klass)  # so that the running maximum starts anew at each class
        best = (_precisions(hits, misses) + lift).flip(-1).cummax(dim=-1).values.flip(-1) - lift
        first = torch.ones_like(self.klass, dtype=torch.bool)
        first[1:] = self.klass[1:] != self.klass[:-1]
        gained = hits.diff(dim=1, prepend=hits.new_zeros(len(hits), 1)).where(~first, hits)
        return positives.new_zeros(positives.shape).index_add_(1, self.klass, gained * best) / positives


def _sums_since(values: Tensor, start: Tensor) -> Tensor:
    """Running sums ``(draws, D)`` that start anew at each class; exact, because all values are whole numbers."""
    running = torch.nn.functional.pad(values.cumsum(dim=1), (1, 0))
    return running[:, 1:] - running[:, start]


def _precisions(hits: Tensor, misses: Tensor) -> Tensor:
    return hits / (hits + misses).clamp(min=torch.finfo(torch.float64).tiny)
