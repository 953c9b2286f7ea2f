"""Maps against masks, pixel by pixel: precision, recall and PxAP at all thresholds, from running histograms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from wsolnb.boxes.components import in_threads
from wsolnb.metrics._checks import check_maps, threshold_grid, threshold_index
from wsolnb.metrics._state import ColumnMetric
from wsolnb.metrics.bootstrap import Statistic


class PxAP(ColumnMetric):
    """Pixel average precision of the field's protocol (``evaluation.py`` of ``clovaai/wsolevaluation``).

    The scores of all pixels of all images are counted in two histograms, foreground and background, with the bins
    ``[t0, t1), ... [t_last, 1), [1, 2), [2, 3]``. Cumulative sums from above give precision and recall at each left
    edge, and ``PxAP = sum over edges, from above, of precision * (increase of recall)``. Images are pooled: an image
    counts by its pixels. Memory does not grow with the number of images.

    Args:
        thresholds: Number of thresholds, ``i / thresholds`` for i from 0; the protocol's training runs use 1000.
        per_image: Keep the histograms of every image (8 kB at 1000 thresholds), which :meth:`statistic` needs.

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
            self.add_column("histograms", torch.int32, 2, bins)

    def update(self, maps: Tensor, masks: Tensor, ignore: Tensor | None = None) -> None:
        """Add a batch of images.

        Args:
            maps: Scores in [0, 1], ``(B, H, W)``, any float type, any device.
            masks: Foreground, bool (or 0 and 1) ``(B, H, W)``.
            ignore: Pixels left out unless they are foreground, bool ``(B, H, W)``.

        Raises:
            ValueError: If a map is not finite or leaves [0, 1] (the image is named), or sizes or counts differ.
        """
        check_maps(maps, seen=int(self.seen))
        truth = _check_masks(maps, masks, "masks")
        side = (~truth).to(torch.uint8)
        if ignore is not None:
            side += _check_masks(maps, ignore, "ignore regions") & ~truth  # into a third histogram, which is discarded
        scores = maps.detach().to("cpu", torch.promote_types(maps.dtype, torch.float32)).flatten(1).numpy()
        edges = torch.cat([self.thresholds, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)]).numpy()
        counts = np.zeros((len(maps), 3, len(self.foreground)), np.int32)
        in_threads(_histograms, len(maps), scores, side.flatten(1).cpu().numpy(), edges, counts)
        histograms = torch.from_numpy(counts[:, :2])
        total = histograms.sum(dim=0).to(self.foreground.device)
        self.foreground += total[0]
        self.background += total[1]
        self.seen += len(maps)
        if self.per_image:
            self.append("histograms", histograms)

    def compute(self) -> Tensor:
        """PxAP of all images so far, a float64 fraction on the CPU; undefined (ValueError) without foreground."""
        self._counts = torch.stack([self.foreground, self.background]).cpu()
        self._histograms = self.column("histograms").cpu() if self.per_image else None
        if not bool(self._counts[0].any()):
            raise ValueError("no mask has a foreground pixel: PxAP is undefined")
        return _px_ap(self._counts.double())

    def curve(self) -> dict[str, Tensor]:
        """Pooled ``precision`` (NaN without pixels), ``recall`` and ``iou`` of the cut ``score >= threshold``."""
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
        """The threshold with the best pooled IoU of the foreground; an oracle unless used on another split."""
        curve = self.curve()
        return float(curve["threshold"][curve["iou"].argmax()])

    def at(self, threshold: float) -> dict[str, Tensor]:
        """Precision, recall and IoU at one fixed threshold of the metric's."""
        index = threshold_index(self.thresholds, threshold)
        return {name: values[index] for name, values in self.curve().items()}

    def statistic(self) -> Statistic:
        """PxAP as a function of image weights, images in the order in which they came; needs ``per_image=True``."""
        return self._resampled(_px_ap)

    def iou_statistic(self, threshold: float | None = None) -> Statistic:
        """Pooled IoU at a fixed threshold or the best of each draw, as a function of image weights; as `statistic`."""
        first = 0 if threshold is None else threshold_index(self.thresholds, threshold)
        last = len(self.thresholds) if threshold is None else first + 1

        def best(counts: Tensor) -> Tensor:
            hits, misses = counts.flip(-1).cumsum(dim=-1).flip(-1).unbind(-2)
            return (hits / (hits[..., :1] + misses))[..., first:last].amax(dim=-1)

        return self._resampled(best)

    def _resampled(self, number: Callable[[Tensor], Tensor]) -> Statistic:
        """A number of histograms ``(draws, 2, bins)`` as a function of image weights."""
        if not self.per_image:
            raise ValueError("PxAP keeps no images: make it with per_image=True to bootstrap it")
        self.compute()
        histograms = self._histograms
        assert histograms is not None

        def pooled(weights: Tensor) -> Tensor:
            parts = zip(weights.cpu().double().split(512, dim=1), histograms.split(512), strict=True)
            return number(sum(torch.einsum("dn,nsb->dsb", w, part.double()) for w, part in parts))  # type: ignore[arg-type]

        return pooled


def _px_ap(counts: Tensor) -> Tensor:
    """Histograms ``(..., 2, bins)`` of foreground and background to PxAP; NaN without foreground."""
    hits, misses = counts.flip(-1).cumsum(dim=-1).unbind(-2)
    precision = hits / (hits + misses).clamp(min=1)
    recall = hits / hits[..., -1:]
    return (precision[..., 1:] * recall.diff(dim=-1)).sum(dim=-1)


@njit(cache=True, nogil=True)
def _histograms(
    scores: np.ndarray, side: np.ndarray, edges: np.ndarray, counts: np.ndarray, first: int, last: int
) -> None:
    """Add scores ``(B, P)`` to ``counts`` ``(B, 3, bins)``: the bin by multiplication, corrected against its edges."""
    steps = len(edges) - 3
    for image in range(first, last):
        for pixel in range(scores.shape[1]):
            score = np.float64(scores[image, pixel])
            index = int(score * steps)
            if score < edges[index]:
                index -= 1
            elif score >= edges[index + 1]:
                index += 1
            counts[image, side[image, pixel], index] += 1


def _check_masks(maps: Tensor, masks: Tensor, what: str) -> Tensor:
    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps but {len(masks)} {what}: there must be one of each per image")
    if maps.shape != masks.shape:
        raise ValueError(f"maps are {tuple(maps.shape)} but {what} {tuple(masks.shape)}: give both at one size")
    if masks.dtype != torch.bool and not bool(((masks == 0) | (masks == 1)).all()):
        raise ValueError(f"{what} must hold 0 and 1 only, not values from {masks.min()} to {masks.max()}")
    return masks.detach().to(torch.bool)
