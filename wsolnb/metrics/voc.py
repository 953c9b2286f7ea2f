"""Average precision as Pascal VOC computes it: every prediction is compared with its best instance only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision.ops import box_iou

from wsolnb.metrics._checks import check_predictions, check_targets, first_of_each
from wsolnb.metrics._state import RankedMetric, image_order
from wsolnb.metrics.ranking import Ranking


class VOCAP(RankedMetric):
    """VOC detection AP, 11-point (VOC07) or the exact area (VOC10 and later).

    A prediction belongs to the instance of its class that it overlaps most. If their IoU reaches the threshold it is
    right, unless a better-scored prediction holds that instance: then it is wrong, even where another instance is free
    (COCO would give it that one). If the instance is difficult (``crowd`` in the targets) the prediction is ignored.

    The devkit's inclusive pixel coordinates give the same IoU as this package's exclusive far corners.

    Args:
        classes: Number of classes.
        iou_threshold: Smallest IoU that counts, above 0.
        interpolation: ``"area"`` or ``"voc07"``.
        **kwargs: Passed to ``torchmetrics.Metric``.

    Example:
        >>> metric = VOCAP(classes=1)
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
        >>> metric.update(
        ...     [{"boxes": boxes, "scores": torch.tensor([0.9]), "labels": torch.tensor([0])}],
        ...     [{"boxes": boxes, "labels": torch.tensor([0])}],
        ... )
        >>> metric.compute()["mAP"]
        tensor(1., dtype=torch.float64)
    """

    def __init__(
        self,
        classes: int,
        iou_threshold: float = 0.5,
        interpolation: Literal["area", "voc07"] = "area",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold must lie in (0, 1], not {iou_threshold}")
        if interpolation not in ("area", "voc07"):
            raise ValueError(f"VOC knows the interpolations 'area' and 'voc07', not {interpolation!r}")
        self.classes = classes
        self.iou_threshold = iou_threshold
        self.interpolation = interpolation
        for name in ("labels", "verdict", "instance", "count"):
            self.add_column(name, torch.int64)
        self.add_column("scores", torch.float32)
        self.add_column("positives", torch.int64, classes)
        self.add_column("image_id", torch.int64)

    def update(self, predictions: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Any]]) -> None:
        """Add a batch of images, as :meth:`wsolnb.metrics.DetectionAP.update`.

        Raises:
            ValueError: As there.
        """
        predicted = check_predictions(predictions, len(targets), self.classes)
        true = check_targets(targets, self.classes)
        if not targets:
            return
        judged = [self._judge(*pair) for pair in zip(predictions, targets, strict=True)]
        self.append("image_id", true["image_id"])
        self.append("count", predicted["predicted_count"])
        names = ("labels", "scores", "verdict", "instance", "positives")
        for name, rows in zip(names, zip(*judged, strict=True), strict=True):
            self.append(name, torch.cat(rows) if name != "positives" else torch.stack(rows))

    def _rank(self) -> Ranking:
        rows = {name: self.column(name).cpu() for name in self._empty}
        rank = torch.argsort(image_order(rows["image_id"]))
        image, scores = rank.repeat_interleave(rows["count"]), rows["scores"].double()
        order = torch.argsort(image, stable=True)
        order = order[torch.argsort(scores[order], descending=True, stable=True)]
        key = (image * (int(rows["instance"].max()) + 1 if len(image) else 1) + rows["instance"])[order]
        again = torch.ones_like(key, dtype=torch.bool)
        again[first_of_each(key)] = False
        hit = rows["verdict"][order] == _HIT
        shown = rows["positives"].new_empty(rows["positives"].shape)
        shown[rank] = rows["positives"]
        pairs = torch.stack(torch.meshgrid(*map(torch.arange, shown.shape), indexing="ij"), dim=-1).flatten(0, 1)
        positive_image, positive_class = pairs.repeat_interleave(shown.flatten(), dim=0).unbind(1)
        return Ranking.of(
            scores[order],
            hit & ~again,
            rows["verdict"][order] == _IGNORED,
            image[order],
            rows["labels"][order],
            positive_image,
            positive_class,
            images=len(rank),
            classes=self.classes,
        )

    def _judge(
        self, prediction: Mapping[str, Tensor], target: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Labels, scores, verdicts and best instances of an image's predictions; its positives per class."""
        labels, truth = torch.as_tensor(prediction["labels"]).long(), torch.as_tensor(target["labels"]).long()
        crowd = torch.as_tensor(target.get("crowd", torch.zeros(len(truth)))).bool()
        positives = torch.bincount(truth[~crowd], minlength=self.classes)
        scores = torch.as_tensor(prediction["scores"])
        if not len(truth) or not len(labels):
            return labels, scores, torch.full_like(labels, _MISS), torch.zeros_like(labels), positives
        boxes = torch.as_tensor(prediction["boxes"]).float().double()
        overlap = box_iou(boxes, torch.as_tensor(target["boxes"]).float().double())
        overlap = overlap.masked_fill(labels.unsqueeze(1) != truth.unsqueeze(0), -1.0)
        best, instance = overlap.max(dim=1)
        verdict = torch.where(crowd[instance], _IGNORED, _HIT).where(best >= self.iou_threshold, _MISS)
        # only hits can claim an instance; all others get a place of their own
        instance = torch.where(verdict == _HIT, instance, len(truth) + torch.arange(len(labels), device=labels.device))
        return labels, scores, verdict, instance, positives


_MISS, _HIT, _IGNORED = 0, 1, 2
