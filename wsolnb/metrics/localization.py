"""Localization of one object class per image: is a box of the map right?

Every number here is one of two kinds, and says which. An *oracle* number (``compute`` of the protocol's metrics, keys
ending in ``@best``) takes the threshold that is best on the images it is reported on. A *fixed* number (``at``, keys
such as ``@0.2``) takes a threshold that was chosen elsewhere: ``test.at(validation.best_threshold())``.
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

    An image is right at a threshold if any box of its map overlaps any ground-truth box of the image with at least the
    IoU. The value is the largest accuracy over all thresholds, an oracle, averaged over the three IoUs.

    Args:
        gt_convention: ``"exclusive"`` or, for the protocol's own files, ``"inclusive"`` far corners.
        iou_thresholds: Smallest IoUs that count.
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
            maps: Float ``(B, H, W)`` in [0, 1], any device: the map of each image's ground-truth class. They are
                quantised on their device; uint8 from ``wsolnb.boxes.quantise`` is taken as it is, so that a thread can
                sweep it during the next forward pass.
            boxes: Ground truth of each image, ``(n_i, 4)`` xyxy in pixels of the map, at least one.

        Raises:
            ValueError: If a map is not finite or leaves [0, 1] (which image), counts differ, a box has negative
                size, or an image has no box.
        """
        everyone = torch.ones(len(maps), 1, dtype=torch.bool)
        self.count(maps, boxes, everyone, everyone)

    def compute(self) -> Tensor:
        """Accuracy at each IoU's best threshold (oracle), averaged over the IoUs: a float64 fraction on the CPU."""
        return mean_of_best(self.collect()[0])

    def curve(self) -> tuple[Tensor, Tensor]:
        """Accuracy versus threshold: thresholds ``(T,)`` and accuracies ``(D, T)``, one row per IoU."""
        return self.thresholds.clone(), self.accuracy()[0]

    def best_thresholds(self) -> tuple[float, ...]:
        """The best threshold at each IoU, to be handed to :meth:`at` of another split's metric."""
        return tuple(self.thresholds[self.accuracy()[0].argmax(dim=-1)].tolist())

    def at(self, threshold: float | Sequence[float]) -> Tensor:
        """Accuracy at a fixed threshold (or one per IoU), averaged over the IoUs: a float64 fraction on the CPU.

        Raises:
            ValueError: If a threshold is not among the metric's, or there is not one per IoU.
        """
        each = [threshold] * len(self.iou_thresholds) if isinstance(threshold, int | float) else list(threshold)
        if len(each) != len(self.iou_thresholds):
            raise ValueError(f"{len(each)} thresholds for {len(self.iou_thresholds)} IoUs: give one, or one per IoU")
        accuracy = self.accuracy()[0]
        return torch.stack([accuracy[row, self.index_of(value)] for row, value in enumerate(each)]).mean()

    def statistic(self, threshold: float | None = None) -> Statistic:
        """The value as a function of image weights, images in the order in which they came.

        Args:
            threshold: A fixed threshold, or None for the best in every draw, as :meth:`compute` takes it.

        Raises:
            ValueError: If the metric was made without ``per_image=True``.
        """
        return oracle_statistic(self, 0, threshold)


class MaxBoxAcc(MaxBoxAccV2):
    """MaxBoxAcc of ``clovaai/wsolevaluation``: the box of the largest contour, one IoU, the best threshold.

    This is GT-known localization at an oracle threshold; :meth:`at` gives it at a fixed one.

    Args:
        iou_threshold: Smallest IoU that counts.
        gt_convention: ``"exclusive"`` or, for the protocol's own files, ``"inclusive"`` far corners.
        rule: Another way from maps to boxes; its threshold, resize and normalisation are not used.
        **options: ``thresholds``, ``per_image`` and the rest, as for :class:`MaxBoxAccV2`.

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
        """The best threshold, to be handed to :meth:`at` of another split's metric."""
        return self.best_thresholds()[0]
