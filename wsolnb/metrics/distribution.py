"""How well boxes fit: the distribution of IoU behind a localization accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from wsolnb.boxes import BoxRule
from wsolnb.metrics._images import ColumnMetric, mean_statistic
from wsolnb.metrics._maps import check_maps
from wsolnb.metrics._sweeps import Convention, best_ious, exclusive_truth
from wsolnb.metrics.bootstrap import Statistic


class IoUDistribution(ColumnMetric):
    """Best IoU of each image's boxes with its ground truth at one fixed threshold: histogram, mean, quantiles.

    Args:
        threshold: Fixed threshold, chosen elsewhere.
        bins: Number of bins over [0, 1].
        gt_convention: Whether far corners of the ground truth are exclusive or inclusive.
        rule: How maps become boxes; its threshold, resize and normalisation are not used.
        **kwargs: Passed to ``torchmetrics.Metric``.

    Example:
        >>> metric = IoUDistribution(threshold=0.5, bins=4)
        >>> maps = torch.zeros(1, 8, 12)
        >>> maps[0, 2:4, 5:9] = 1
        >>> metric.update(maps, [torch.tensor([[5.0, 2.0, 10.0, 5.0]])])
        >>> metric.compute()["share"]
        tensor([0., 0., 0., 1.], dtype=torch.float64)
    """

    def __init__(
        self,
        threshold: float,
        bins: int = 20,
        gt_convention: Convention = "exclusive",
        *,
        rule: BoxRule | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.threshold = threshold
        self.bins = bins
        self.gt_convention: Convention = gt_convention
        self.rule = replace(rule or BoxRule.preset("wsoleval"), resize=None, normalise=None)
        self.add_column("iou", torch.float32)

    def update(self, maps: Tensor, boxes: Sequence[Tensor]) -> None:
        """Add a batch of images, as :meth:`wsolnb.metrics.MaxBoxAccV2.update`.

        Raises:
            ValueError: As there.
        """
        check_maps(maps, seen=len(self.column("iou")), grey_allowed=True)
        truth = exclusive_truth(boxes, len(maps), self.gt_convention)
        self.append("iou", best_ious(maps, truth, self.rule, torch.tensor([self.threshold]))[:, 0])

    def compute(self) -> dict[str, Tensor]:
        """Distribution over all images so far.

        Returns:
            ``edges`` ``(bins + 1,)`` and ``share`` of the images between them ``(bins,)``; ``mean``, and
            the ``quartiles`` ``(3,)``; float64 on the CPU.
        """
        self._ious = self.column("iou").cpu().double()
        ious = self._ious.sort().values
        edges = torch.linspace(0, 1, self.bins + 1, dtype=torch.float64)
        place = (torch.searchsorted(edges, ious, right=True) - 1).clamp(max=self.bins - 1)
        quartiles = torch.quantile(ious, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
        share = torch.bincount(place, minlength=self.bins).double() / len(ious)
        return {"edges": edges, "share": share, "mean": ious.mean(), "quartiles": quartiles}

    def ious(self) -> Tensor:
        """IoU of every image in the order in which they came, float64 ``(n,)`` on the CPU."""
        self.compute()
        return self._ious

    def statistic(self) -> Statistic:
        """Mean IoU as a function of image weights."""
        return mean_statistic(self.ious())
