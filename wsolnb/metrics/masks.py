"""Maps against masks, pixel by pixel: precision, recall and PxAP at all thresholds from streaming histograms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wsolnb.metrics._images import ColumnMetric
from wsolnb.metrics._maps import check_maps, threshold_grid, threshold_index
from wsolnb.metrics.bootstrap import Statistic


class PxAP(ColumnMetric):
    """Pixel average precision of the field's protocol (``evaluation.py`` of ``clovaai/wsolevaluation``).

    Scores of all pixels of all images fall into two histograms, foreground and background, over the bins
    ``[t0, t1), ... [t_last, 1), [1, 2), [2, 3]``. Precision and recall at each left edge follow from sums of the
    histograms from above, and ``PxAP = sum over edges, from above, of precision * (increase of recall)``. Images are
    pooled, so an image counts by its pixels. Memory does not grow with the number of images.

    Args:
        thresholds: Number of thresholds, ``i / thresholds`` for i from 0; the protocol's training runs use 1000.
        per_image: Keep histograms of every image (8 kB each at 1000 thresholds) so that :meth:`statistic` works.
        **kwargs: Passed to ``torchmetrics.Metric``.

    Example:
        >>> metric = PxAP()
        >>> metric.update(torch.tensor([[[0.9, 0.8, 0.1]]]), torch.tensor([[[True, False, False]]]))
        >>> metric.compute()
        tensor(1., dtype=torch.float64)
    """

    foreground: Tensor
    background: Tensor
    seen: Tensor

    def __init__(self, thresholds: int = 1000, *, per_image: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.thresholds = threshold_grid(thresholds)
        self.per_image = per_image
        bins = thresholds + 2
        self.add_state("foreground", torch.zeros(bins, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("background", torch.zeros(bins, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("seen", torch.tensor(0), dist_reduce_fx="sum")
        if per_image:
            self.add_column("each", torch.int32, 2, bins)

    def update(self, maps: Tensor, masks: Tensor, ignore: Tensor | None = None) -> None:
        """Add a batch of images.

        Args:
            maps: Scores in [0, 1], ``(B, H, W)``, any float type, any device.
            masks: Foreground, bool (or 0 and 1) ``(B, H, W)``.
            ignore: Pixels that count for nothing unless they are foreground, bool ``(B, H, W)``.

        Raises:
            ValueError: If a map is not finite or leaves [0, 1] (which image), or sizes or counts differ.
        """
        check_maps(maps, seen=int(self.seen))
        truth = _check_masks(maps, masks, "masks")
        side = (~truth).to(torch.int64)
        if ignore is not None:
            side += (_check_masks(maps, ignore, "ignore regions") & ~truth).long()  # a third histogram, thrown away
        bins = len(self.foreground)
        scores = maps.detach().to(torch.float64) if maps.device.type != "mps" else maps.detach().cpu().double()
        cell = _bin_of(scores, self.thresholds.to(scores.device)).add_(side.to(scores.device), alpha=bins)
        cell += torch.arange(0, len(maps) * 3 * bins, 3 * bins, device=scores.device)[:, None, None]
        each = torch.bincount(cell.flatten(), minlength=len(maps) * 3 * bins).view(len(maps), 3, bins)[:, :2]
        total = each.sum(dim=0).to(self.foreground.device)
        self.foreground += total[0]
        self.background += total[1]
        self.seen += len(maps)
        if self.per_image:
            self.append("each", each)

    def compute(self) -> Tensor:
        """PxAP of all images so far, a float64 fraction on the CPU.

        Raises:
            ValueError: If there is no foreground pixel.
        """
        self._counts = torch.stack([self.foreground, self.background]).cpu()
        self._each = self.column("each").cpu() if self.per_image else None
        if not bool(self._counts[0].any()):
            raise ValueError("no mask has a foreground pixel: PxAP is undefined")
        return _px_ap(self._counts.double())

    def curve(self) -> dict[str, Tensor]:
        """Pooled ``precision``, ``recall`` and ``iou`` of the cut ``score >= threshold`` at each ``threshold``.

        Precision is NaN where no pixel is left.
        """
        self.compute()
        hits, misses = self._counts.double().flip(1).cumsum(dim=1).flip(1)[:, : len(self.thresholds)]
        positives = self._counts[0].sum()
        return {
            "threshold": self.thresholds.clone(),
            "precision": hits / (hits + misses),
            "recall": hits / positives,
            "iou": hits / (positives + misses),
        }

    def best_threshold(self) -> float:
        """Threshold with the best pooled IoU of foreground; an oracle, unless it is used on another split."""
        curve = self.curve()
        return float(curve["threshold"][curve["iou"].argmax()])

    def at(self, threshold: float) -> dict[str, Tensor]:
        """Precision, recall and IoU at one fixed threshold.

        Raises:
            ValueError: If the threshold is not among the metric's.
        """
        index = threshold_index(self.thresholds, threshold)
        return {name: values[index] for name, values in self.curve().items()}

    def statistic(self) -> Statistic:
        """PxAP as a function of image weights, images in the order in which they came.

        Raises:
            ValueError: If the metric was made without ``per_image=True``.
        """
        if not self.per_image:
            raise ValueError("PxAP keeps no images: make it with per_image=True to bootstrap it")
        self.compute()
        each = self._each
        assert each is not None

        def pooled(weights: Tensor) -> Tensor:
            parts = zip(weights.cpu().double().split(512, dim=1), each.split(512), strict=True)
            return _px_ap(sum(torch.einsum("dn,nsb->dsb", w, part.double()) for w, part in parts))  # type: ignore[arg-type]

        return pooled


def _px_ap(counts: Tensor) -> Tensor:
    """Histograms ``(..., 2, bins)`` of foreground and background to PxAP; NaN without foreground."""
    hits, misses = counts.flip(-1).cumsum(dim=-1).unbind(-2)
    precision = hits / (hits + misses).clamp(min=1)
    recall = hits / hits[..., -1:]
    return (precision[..., 1:] * recall.diff(dim=-1)).sum(dim=-1)


def _bin_of(scores: Tensor, thresholds: Tensor) -> Tensor:
    """Index of the last edge at or below each score: a first guess by multiplication, put right against the edges."""
    edges = torch.cat([thresholds, thresholds.new_tensor([1.0, 2.0, 3.0])])
    guess = (scores * len(thresholds)).long()
    guess -= (scores < edges[guess]).long()
    return guess + (scores >= edges[guess + 1]).long()


def _check_masks(maps: Tensor, masks: Tensor, what: str) -> Tensor:
    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps but {len(masks)} {what}: there must be one of each per image")
    if maps.shape != masks.shape:
        raise ValueError(f"maps are {tuple(maps.shape)} but {what} {tuple(masks.shape)}: give both at one size")
    if masks.dtype != torch.bool and not bool(((masks == 0) | (masks == 1)).all()):
        raise ValueError(f"{what} must hold 0 and 1 only, not values from {masks.min()} to {masks.max()}")
    return masks.detach().to(torch.bool)
