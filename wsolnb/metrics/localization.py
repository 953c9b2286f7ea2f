"""Localization of one object class per image: is a box of the map right?

Numbers are of two kinds. An *oracle* number (``compute``, keys ending in ``@best``) is taken at the threshold that is
best on the very images it is reported on, as in the field's protocol. A *fixed* number (``at``, keys such as ``@0.2``)
is taken at a threshold chosen on other images: ``test.at(validation.best_threshold())``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from wsolnb.boxes import BoxRule
from wsolnb.metrics._best_iou import Convention
from wsolnb.metrics._state import ThresholdCounts, mean_of_best, oracle_statistic
from wsolnb.metrics.bootstrap import Statistic


class MaxBoxAccV2(ThresholdCounts):
    """MaxBoxAccV2 of ``clovaai/wsolevaluation``: all contours, IoUs 0.3, 0.5, 0.7, each at its best threshold.

    An image is right at a threshold if any box of its map overlaps any of its ground-truth boxes with at least the IoU.
    The value is the accuracy at the best threshold (an oracle), averaged over the IoUs.

    Args:
        gt_convention: ``"exclusive"`` or, for the protocol's own files, ``"inclusive"`` far corners.
        rule: Another way from maps to boxes; its threshold, resize and normalisation are not used.
        **options: ``thresholds``: number of thresholds ``i / thresholds``, 1000 (the default) in the protocol's
            training runs, 100 in its stand-alone evaluator; ``per_image=True``: keep a bit per image, IoU and threshold
            (0.4 kB an image), which :meth:`statistic` needs; and those of ``torchmetrics.Metric``.

    Example:
        >>> metric = MaxBoxAccV2(thresholds=100)
        >>> maps = torch.zeros(1, 8, 12)
        >>> maps[0, 2:4, 5:9] = 1
        >>> metric.update(maps, [torch.tensor([[5.0, 2.0, 10.0, 5.0]])])
        >>> metric.compute()
        tensor(1., dtype=torch.float64)
    """

    def __init__(
        self,
        gt_convention: Convention = "exclusive",
        *,
        iou_thresholds: Sequence[float] = (0.3, 0.5, 0.7),
        rule: BoxRule | None = None,
        **options: Any,
    ) -> None:
        rule = rule or BoxRule.preset("wsoleval_multi")
        super().__init__(iou_thresholds=iou_thresholds, groups=1, gt_convention=gt_convention, rule=rule, **options)

    def update(self, maps: Tensor, boxes: Sequence[Tensor]) -> None:
        """Add a batch of images.

        Args:
            maps: The map of each image's ground-truth class, ``(B, H, W)``, any device: float in [0, 1], or uint8 from
                ``wsolnb.boxes.quantise``.
            boxes: Ground truth of each image, ``(n_i, 4)`` xyxy in pixels of the map, at least one.

        Raises:
            ValueError: If a map is not finite or leaves [0, 1] (the image is named), counts differ, a box has negative
                size, or an image has no box.
        """
        members = torch.ones(len(maps), 1, dtype=torch.bool)
        self.count(maps, boxes, members, members)

    def compute(self) -> Tensor:
        """Accuracy at each IoU's best threshold (oracle), averaged over the IoUs: a float64 fraction on the CPU."""
        return mean_of_best(self.collect()[0])

    def curve(self) -> tuple[Tensor, Tensor]:
        """Accuracy versus threshold: thresholds ``(T,)`` and accuracies ``(D, T)``, one row per IoU."""
        return self.thresholds.clone(), self.accuracy()[0]

    def best_thresholds(self) -> tuple[float, ...]:
        """The best threshold at each IoU, for :meth:`at` of another split's metric."""
        return tuple(self.thresholds[self.accuracy()[0].argmax(dim=-1)].tolist())

    def at(self, threshold: float | Sequence[float]) -> Tensor:
        """Accuracy at a fixed threshold (or one per IoU) of the metric's, averaged over the IoUs, float64."""
        per_iou = [threshold] * len(self.iou_thresholds) if isinstance(threshold, int | float) else list(threshold)
        if len(per_iou) != len(self.iou_thresholds):
            raise ValueError(f"{len(per_iou)} thresholds for {len(self.iou_thresholds)} IoUs: give one, or one per IoU")
        accuracy = self.accuracy()[0]
        return torch.stack([accuracy[row, self.index_of(value)] for row, value in enumerate(per_iou)]).mean()

    def statistic(self, threshold: float | None = None) -> Statistic:
        """The value as a function of image weights, at a fixed threshold or each draw's best; needs ``per_image``."""
        return oracle_statistic(self, 0, threshold)


class MaxBoxAcc(MaxBoxAccV2):
    """MaxBoxAcc of ``clovaai/wsolevaluation``: the box of the largest contour, one IoU, the best threshold.

    This is GT-known localization at an oracle threshold; :meth:`at` gives it at a fixed one. ``iou_threshold`` is the
    smallest IoU that counts; the other arguments are those of :class:`MaxBoxAccV2`.

    Example:
        >>> metric = MaxBoxAcc(thresholds=100)
        >>> maps = torch.zeros(1, 8, 12)
        >>> maps[0, 2:4, 5:9] = 1
        >>> metric.update(maps, [torch.tensor([[5.0, 2.0, 10.0, 5.0]])])
        >>> metric.at(metric.best_threshold())
        tensor(1., dtype=torch.float64)
    """

    def __init__(
        self,
        iou_threshold: float = 0.5,
        gt_convention: Convention = "exclusive",
        *,
        rule: BoxRule | None = None,
        **options: Any,
    ) -> None:
        rule = rule or BoxRule.preset("wsoleval")
        super().__init__(gt_convention, iou_thresholds=(iou_threshold,), rule=rule, **options)

    def curve(self) -> tuple[Tensor, Tensor]:
        """Accuracy versus threshold: thresholds and accuracies, ``(T,)`` each."""
        return self.thresholds.clone(), self.accuracy()[0, 0]

    def best_threshold(self) -> float:
        """The best threshold, for :meth:`at` of another split's metric."""
        return self.best_thresholds()[0]
