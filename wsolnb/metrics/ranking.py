"""Ranked, judged predictions: from who is right to precision, recall and average precision.

A matching decides once which predictions are right; what follows (interpolation, weighting of images, pooling of
classes) is the same for every detection metric and lives here, as tensor expressions over all classes and draws.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    """Judged predictions of all classes, sorted by class and then by falling score.

    Attributes:
        score: Scores, float64 ``(D,)``.
        right: Whether a prediction matched a positive, bool ``(D,)``.
        ignored: Whether it counts neither for nor against (crowds), bool ``(D,)``.
        image: Index of its image, int64 ``(D,)``.
        klass: Its class, int64 ``(D,)``.
        positive_image: Image of each positive that could be found, int64 ``(P,)``.
        positive_class: Class of each positive, int64 ``(P,)``.
        images: Number of images.
        classes: Number of classes.
    """

    score: Tensor
    right: Tensor
    ignored: Tensor
    image: Tensor
    klass: Tensor
    positive_image: Tensor
    positive_class: Tensor
    images: int
    classes: int

    @classmethod
    def of(
        cls,
        score: Tensor,
        right: Tensor,
        ignored: Tensor,
        image: Tensor,
        klass: Tensor,
        positive_image: Tensor,
        positive_class: Tensor,
        *,
        images: int,
        classes: int,
    ) -> Ranking:
        """Sort predictions by class, falling score and, where scores tie, by image.

        Example:
            >>> none = torch.zeros(2, dtype=torch.bool)
            >>> i = torch.tensor([0, 1])
            >>> r = Ranking.of(torch.tensor([0.1, 0.9]), none, none, i, i * 0, i, i * 0, images=2, classes=1)
            >>> r.score
            tensor([0.9000, 0.1000])
        """
        order = torch.argsort(image, stable=True)
        order = order[torch.argsort(score[order], descending=True, stable=True)]
        order = order[torch.argsort(klass[order], stable=True)]
        score, right, ignored = score[order], right[order], ignored[order]
        return cls(score, right, ignored, image[order], klass[order], positive_image, positive_class, images, classes)

    def pooled(self) -> Ranking:
        """Throw all classes into one ranking, as a single precision-recall curve of a method needs.

        Example:
            >>> none = torch.zeros(2, dtype=torch.bool)
            >>> i = torch.tensor([0, 1])
            >>> r = Ranking.of(torch.tensor([0.1, 0.9]), none, none, i, i, i, i, images=2, classes=2)
            >>> r.pooled().classes
            1
        """
        return Ranking.of(
            self.score,
            self.right,
            self.ignored,
            self.image,
            torch.zeros_like(self.klass),
            self.positive_image,
            torch.zeros_like(self.positive_class),
            images=self.images,
            classes=1,
        )

    def precision(self, recalls: Tensor, weights: Tensor | None = None) -> Tensor:
        """Interpolated precision: the best precision at this recall or a higher one.

        Args:
            recalls: Recalls in rising order, ``(R,)``.
            weights: How often each image stands in each resampled data set, ``(draws, n)``; once each by default.

        Returns:
            float64 ``(draws, C, R)``: 0 where a recall is never reached, NaN for classes without positives.

        Raises:
            ValueError: If the weights are not of shape ``(draws, n)``.

        Example:
            >>> yes, i = torch.tensor([True, False]), torch.tensor([0, 1])
            >>> r = Ranking.of(torch.tensor([0.9, 0.1]), yes, ~yes & yes, i, i * 0, i, i * 0, images=2, classes=1)
            >>> r.precision(torch.tensor([0.5, 1.0]))
            tensor([[[1., 0.]]], dtype=torch.float64)
        """
        recalls = recalls.to(torch.float64)
        chunks = self._chunks(weights)
        return torch.cat([self._precision(recalls, *self._counts(chunk)) for chunk in chunks])

    def average_precision(self, interpolation: Interpolation = "coco", weights: Tensor | None = None) -> Tensor:
        """Area under the interpolated precision-recall curve of each class.

        Args:
            interpolation: ``"coco"`` averages the precision at 101 recalls, ``"voc07"`` at 11, ``"area"`` is exact.
            weights: As for :meth:`precision`.

        Returns:
            float64 ``(draws, C)``, NaN for classes without positives.

        Raises:
            ValueError: If the interpolation is unknown or the weights are not of shape ``(draws, n)``.

        Example:
            >>> yes, i = torch.tensor([True, False]), torch.tensor([0, 1])
            >>> r = Ranking.of(torch.tensor([0.9, 0.1]), yes, ~yes & yes, i, i * 0, i, i * 0, images=2, classes=1)
            >>> [round(r.average_precision(kind).item(), 3) for kind in ("coco", "voc07", "area")]
            [0.505, 0.545, 0.5]
        """
        if interpolation == "coco":
            return self.precision(COCO_RECALLS, weights).mean(dim=-1)
        if interpolation == "voc07":
            return self.precision(VOC07_RECALLS, weights).mean(dim=-1)
        if interpolation == "area":
            return torch.cat([self._area(*self._counts(chunk)) for chunk in self._chunks(weights)])
        raise ValueError(f"unknown interpolation {interpolation!r}: choose coco, voc07 or area")

    def statistic(self, interpolation: Interpolation = "coco") -> Statistic:
        """Mean average precision as a function of image weights, for the bootstrap.

        Classes without a positive in a draw are left out of its mean, as in a data set that lacks them.

        Example:
            >>> yes, i = torch.tensor([True, False]), torch.tensor([0, 1])
            >>> r = Ranking.of(torch.tensor([0.9, 0.1]), yes, ~yes & yes, i, i * 0, i, i * 0, images=2, classes=1)
            >>> r.statistic("area")(torch.tensor([[1.0, 1.0], [2.0, 0.0]]))
            tensor([0.5000, 1.0000], dtype=torch.float64)
        """
        return lambda weights: self.average_precision(interpolation, weights).nanmean(dim=1)

    def _chunks(self, weights: Tensor | None) -> list[Tensor]:
        if weights is None:
            weights = torch.ones(1, self.images)
        if weights.ndim != 2 or weights.shape[1] != self.images:
            raise ValueError(f"weights must have shape (draws, {self.images}), got {tuple(weights.shape)}")
        weights = weights.to(device=self.score.device, dtype=torch.float64)
        return list(weights.split(max(1, _CHUNK_ELEMENTS // max(1, len(self.score)))))

    def _counts(self, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """True and false positives down to each prediction (draws, D), and positives (draws, C)."""
        each = weights[:, self.image] * ~self.ignored
        start = torch.searchsorted(self.klass, self.klass)
        hits = _sums_since(each * self.right, start)
        misses = _sums_since(each * ~self.right, start)
        positives = weights.new_zeros(len(weights), self.classes)
        positives.index_add_(1, self.positive_class, weights[:, self.positive_image])
        return hits, misses, positives

    def _precision(self, recalls: Tensor, hits: Tensor, misses: Tensor, positives: Tensor) -> Tensor:
        recall = hits / positives[:, self.klass]
        last = torch.searchsorted(recalls, recall, right=True) - 1
        cell = (self.klass * (len(recalls) + 1) + last + 1).expand_as(last)
        best = hits.new_zeros(len(hits), self.classes * (len(recalls) + 1))
        best.scatter_reduce_(1, cell, _precisions(hits, misses), "amax")
        best = best.unflatten(1, (self.classes, len(recalls) + 1))[..., 1:]
        best = best.flip(-1).cummax(dim=-1).values.flip(-1)
        return best.masked_fill(positives.eq(0).unsqueeze(-1), torch.nan)

    def _area(self, hits: Tensor, misses: Tensor, positives: Tensor) -> Tensor:
        lift = 2.0 * (self.classes - self.klass)  # a later class never outranks an earlier one in the running maximum
        best = (_precisions(hits, misses) + lift).flip(-1).cummax(dim=-1).values.flip(-1) - lift
        first = torch.ones_like(self.klass, dtype=torch.bool)
        first[1:] = self.klass[1:] != self.klass[:-1]
        found = hits.diff(dim=1, prepend=hits.new_zeros(len(hits), 1)).where(~first, hits)
        return positives.new_zeros(positives.shape).index_add_(1, self.klass, found * best) / positives


def _sums_since(values: Tensor, start: Tensor) -> Tensor:
    """Running sums that begin anew at each class; exact, as all values are whole numbers."""
    running = torch.nn.functional.pad(values.cumsum(dim=1), (1, 0))
    return running[:, 1:] - running[:, start]


def _precisions(hits: Tensor, misses: Tensor) -> Tensor:
    return hits / (hits + misses).clamp(min=torch.finfo(torch.float64).tiny)
