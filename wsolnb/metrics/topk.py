"""Localization scored together with classification: Top-1 and Top-5 localization error, and CorLoc."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from wsolnb.metrics._best_iou import Convention
from wsolnb.metrics._checks import check_labels
from wsolnb.metrics._state import ThresholdCounts, oracle_statistic
from wsolnb.metrics.bootstrap import Statistic


def select_class_maps(maps: Tensor, scores: Tensor, labels: Tensor, reading: Literal["predicted", "true"]) -> Tensor:
    """The map ``(B, h, w)`` of one class per image, the predicted or the true one, of maps ``(B, C, h, w)``.

    Papers differ in this. Top-1 is the same for both readings, because an image with a wrong prediction is wrong in
    either. Top-5 is not: with ``"predicted"`` the box of the best class has to fit, with ``"true"`` that of the
    ground-truth class, if it is among the five. ``scores`` are ``(B, C)``, ``labels`` the true classes, int ``(B,)``.

    Raises:
        ValueError: If the reading is unknown, counts differ or a label is out of range.

    Example:
        >>> maps = torch.arange(2.0).reshape(1, 2, 1, 1)
        >>> select_class_maps(maps, torch.tensor([[0.9, 0.1]]), torch.tensor([1]), "true").item()
        1.0
    """
    _check_scores(scores, labels, len(maps), maps.shape[1])
    if reading not in ("predicted", "true"):
        raise ValueError(f"unknown reading {reading!r}: choose 'predicted' or 'true'")
    klass = scores.argmax(dim=1) if reading == "predicted" else labels
    return maps[torch.arange(len(maps), device=maps.device), klass.to(maps.device)]


class TopLocalization(ThresholdCounts):
    """GT-known localization and Top-k localization error in one pass, at the oracle and at a fixed threshold.

    An image is right for Top-k if its class is among the k best-scored classes and the box of its map overlaps a
    ground-truth box; :func:`select_class_maps` selects the map. GT-known ignores the scores; its name is justified only
    for maps of the ground-truth class.

    Args:
        threshold: A fixed threshold, chosen on other images, to report beside the oracle.
        gt_convention: Whether far corners of the ground truth are exclusive or inclusive.
        **options: ``rule``, ``thresholds``, ``per_image`` and the rest, as for :class:`wsolnb.metrics.MaxBoxAcc`.

    Example:
        >>> metric = TopLocalization(threshold=0.5, ks=(1, 2), thresholds=10)
        >>> maps = torch.zeros(1, 8, 12)
        >>> maps[0, 2:4, 5:9] = 1
        >>> metric.update(maps, [torch.tensor([[5.0, 2.0, 9.0, 4.0]])], torch.tensor([[0.3, 0.7]]), torch.tensor([0]))
        >>> {name: value.item() for name, value in metric.compute().items() if "error@" in name}
        {'top1_error@best': 1.0, 'top1_error@0.5': 1.0, 'top2_error@best': 0.0, 'top2_error@0.5': 0.0}
    """

    named: Tensor

    def __init__(
        self,
        threshold: float | None = None,
        ks: Sequence[int] = (1, 5),
        iou_threshold: float = 0.5,
        gt_convention: Convention = "exclusive",
        **options: Any,
    ) -> None:
        super().__init__(iou_thresholds=(iou_threshold,), groups=1 + len(ks), gt_convention=gt_convention, **options)
        if any(k < 1 for k in ks):
            raise ValueError(f"ks must be at least 1, got {tuple(ks)}")
        self.ks = tuple(ks)
        self.names = ("gt_known", *(f"top{k}_error" for k in ks))
        self.threshold = threshold
        if threshold is not None:
            self.index_of(threshold)
        self.add_state("named", torch.zeros(len(ks), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, maps: Tensor, boxes: Sequence[Tensor], scores: Tensor, labels: Tensor) -> None:
        """Add a batch: maps and boxes as for :class:`wsolnb.metrics.MaxBoxAcc`, scores ``(B, C)``, labels ``(B,)``.

        Raises:
            ValueError: As for :class:`wsolnb.metrics.MaxBoxAcc`, and if a label is out of range.
        """
        _check_scores(scores, labels, len(maps), None)
        column = labels.to(scores.device).unsqueeze(1)
        score = scores.gather(1, column)
        earlier = torch.arange(scores.shape[1], device=scores.device) < column  # of tied classes the first ranks higher
        rank = ((scores > score) | ((scores == score) & earlier)).sum(dim=1)
        named = torch.stack([rank < k for k in self.ks], dim=1).cpu()
        members = torch.ones(len(maps), 1 + len(self.ks), dtype=torch.bool)
        self.count(maps, boxes, members, torch.cat([members[:, :1], named], dim=1))
        self.named += named.sum(dim=0).to(self.named.device)

    def compute(self) -> dict[str, Tensor]:
        """All numbers, float64 fractions on the CPU.

        ``gt_known@best`` (an accuracy) and ``topk_error@best``, each at its own best threshold (oracle); the same with
        ``@threshold`` if one was given; ``topk_classification_error``.
        """
        accuracy = self.collect()[:, 0]
        result = {}
        for row, name in enumerate(self.names):
            numbers = {"best": accuracy[row].max()}
            if self.threshold is not None:
                numbers[f"{self.threshold:g}"] = accuracy[row, self.index_of(self.threshold)]
            for label, value in numbers.items():
                result[f"{name}@{label}"] = value if row == 0 else 1 - value
        for k, named in zip(self.ks, self.named.cpu().double() / self.seen.cpu(), strict=True):
            result[f"top{k}_classification_error"] = 1 - named
        return result

    def at(self, threshold: float) -> dict[str, Tensor]:
        """``gt_known`` and ``topk_error`` at a fixed threshold of the metric's."""
        pairs = zip(self.names, self.accuracy()[:, 0, self.index_of(threshold)], strict=True)
        return {name: value if row == 0 else 1 - value for row, (name, value) in enumerate(pairs)}

    def best_threshold(self, of: str = "gt_known") -> float:
        """The best threshold for one of the numbers, for :meth:`at` of another split's metric."""
        return float(self.thresholds[self.accuracy()[self._row(of), 0].argmax()])

    def statistic(self, of: str = "gt_known", threshold: float | None = None) -> Statistic:
        """A number as a function of image weights, at a threshold or each draw's best; needs ``per_image``."""
        row = self._row(of)
        accuracy = oracle_statistic(self, row, threshold)
        return accuracy if row == 0 else lambda weights: 1 - accuracy(weights)

    def _row(self, of: str) -> int:
        if of not in self.names:
            raise ValueError(f"no number {of!r}: choose one of {', '.join(self.names)}")
        return self.names.index(of)


class CorLoc(ThresholdCounts):
    """CorLoc: the fraction of a class's images in which its box is right, averaged over classes.

    All arguments but the number of classes are those of :class:`TopLocalization`.

    Example:
        >>> metric = CorLoc(classes=3, thresholds=10)
        >>> maps = torch.zeros(2, 8, 12)
        >>> maps[:, 2:4, 5:9] = 1
        >>> boxes = [torch.tensor([[5.0, 2.0, 9.0, 4.0]]), torch.tensor([[0.0, 0.0, 2.0, 2.0]])]
        >>> metric.update(maps, boxes, torch.tensor([0, 2]))
        >>> metric.compute()
        {'corloc@best': tensor(0.5000, dtype=torch.float64)}
    """

    def __init__(
        self,
        classes: int,
        threshold: float | None = None,
        iou_threshold: float = 0.5,
        gt_convention: Convention = "exclusive",
        **options: Any,
    ) -> None:
        super().__init__(iou_thresholds=(iou_threshold,), groups=classes, gt_convention=gt_convention, **options)
        self.classes = classes
        self.threshold = threshold
        if threshold is not None:
            self.index_of(threshold)

    def update(self, maps: Tensor, boxes: Sequence[Tensor], labels: Tensor) -> None:
        """Add a batch of pairs of an image and a class that it shows, each with its map and the class's boxes.

        Raises:
            ValueError: As for :class:`wsolnb.metrics.MaxBoxAcc`, and if a label is out of range.
        """
        labels = check_labels(labels, len(maps), self.classes, "labels of this batch").cpu()
        member = torch.nn.functional.one_hot(labels, self.classes).bool()
        self.count(maps, boxes, member, member)

    def compute(self) -> dict[str, Tensor]:
        """``corloc@best`` (one threshold for all classes, an oracle) and ``corloc@threshold`` if one was given."""
        mean = self.collect()[:, 0].nanmean(dim=0)
        fixed = {} if self.threshold is None else {f"corloc@{self.threshold:g}": mean[self.index_of(self.threshold)]}
        return {"corloc@best": mean.max(), **fixed}

    def per_class(self, threshold: float) -> Tensor:
        """CorLoc of each class at a fixed threshold, float64 ``(classes,)``; NaN for classes without images."""
        return self.accuracy()[:, 0, self.index_of(threshold)]

    def at(self, threshold: float) -> Tensor:
        """CorLoc at a fixed threshold, a float64 fraction on the CPU."""
        return self.per_class(threshold).nanmean()

    def best_threshold(self) -> float:
        """The threshold of ``corloc@best``, for :meth:`at` of another split's metric."""
        return float(self.thresholds[self.accuracy()[:, 0].nanmean(dim=0).argmax()])

    def statistic(self, threshold: float | None = None) -> Statistic:
        """CorLoc as a function of the pairs' weights, at a threshold or each draw's best; needs ``per_image``."""
        self.require_images()
        classes = range(self.classes)
        return lambda weights: self.resampled(classes, weights, threshold)[:, :, 0].nanmean(dim=1).amax(dim=-1)


def _check_scores(scores: Tensor, labels: Tensor, images: int, classes: int | None) -> None:
    if scores.ndim != 2 or len(scores) != images or classes not in (None, scores.shape[1]):
        shape = f"({images}, {'classes' if classes is None else classes})"
        raise ValueError(f"class scores must have shape {shape} for {images} maps, got {tuple(scores.shape)}")
    if not bool(scores.isfinite().all()):
        image = int((~scores.isfinite()).any(dim=1).nonzero()[0])
        raise ValueError(f"class scores of image {image} of this batch are not finite")
    check_labels(labels, images, scores.shape[1], "labels of this batch")
