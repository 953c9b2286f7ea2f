"""Average precision as Pascal VOC computes it: a prediction is compared with its best-overlapping instance only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision.ops import box_iou

from wsolnb.metrics._checks import check_predictions, check_targets
from wsolnb.metrics._state import RankedMetric, first_of_each, image_order
from wsolnb.metrics.ranking import Ranking


class VOCAP(RankedMetric):
    """VOC detection AP, 11-point (VOC07) or the exact area (VOC10 and later).

    A prediction belongs to the instance of its class that it overlaps most. If their IoU reaches the threshold, it is
    right, unless a better-scored prediction already has that instance: then it is wrong, even if another one (which
    COCO would assign to it) is free. If it is difficult (``crowd`` in the targets), the prediction is ignored.

    This package's exclusive far corners give the same IoU as the devkit's inclusive pixel coordinates.

    Example:
        >>> metric = VOCAP(classes=1)
        >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 20.0]]), "labels": torch.tensor([0])}
        >>> metric.update([truth | {"scores": torch.tensor([0.9])}], [truth])
        >>> metric.compute()["mAP"]
        tensor(1., dtype=torch.float64)
    """

    def __init__(
        self, classes: int, iou_threshold: float = 0.5, interpolation: Literal["area", "voc07"] = "area", **kwargs: Any
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
        self.add_column("scores", torch.float64)
        self.add_column("positives", torch.int64, classes)
        self.add_column("image_id", torch.int64)

    def update(self, predictions: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Any]]) -> None:
        """Add a batch of images; arguments and errors are those of :meth:`wsolnb.metrics.DetectionAP.update`."""
        predicted = check_predictions(predictions, len(targets), self.classes)
        true = check_targets(targets, self.classes)
        if not targets:
            return
        matched = [self._match(*pair) for pair in zip(predictions, targets, strict=True)]
        self.append("image_id", true["image_id"])
        self.append("count", predicted["predicted_count"])
        names = ("labels", "scores", "verdict", "instance", "positives")
        for name, rows in zip(names, zip(*matched, strict=True), strict=True):
            self.append(name, torch.cat(rows) if name != "positives" else torch.stack(rows))

    def _rank(self) -> Ranking:
        rows = {name: self.column(name).cpu() for name in self._empty}
        rank = torch.argsort(image_order(rows["image_id"]))
        image, scores = rank.repeat_interleave(rows["count"]), rows["scores"]
        order = torch.argsort(image, stable=True)
        order = order[torch.argsort(scores[order], descending=True, stable=True)]
        key = (image * (int(rows["instance"].max()) + 1 if len(image) else 1) + rows["instance"])[order]
        repeated = torch.ones_like(key, dtype=torch.bool)
        repeated[first_of_each(key)] = False
        hit, ignored = (rows["verdict"][order] == verdict for verdict in (_HIT, _IGNORED))
        positives = torch.empty_like(rows["positives"])
        positives[rank] = rows["positives"]
        pairs = torch.stack(torch.meshgrid(*map(torch.arange, positives.shape), indexing="ij"), dim=-1).flatten(0, 1)
        positive = pairs.repeat_interleave(positives.flatten(), dim=0).unbind(1)
        common = (image[order], rows["labels"][order], *positive)
        return Ranking(scores[order], hit & ~repeated, ignored, *common, images=len(rank), classes=self.classes)

    def _match(self, prediction: Mapping[str, Tensor], target: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Labels, scores, verdicts and best instances of an image's predictions; the image's positives per class."""
        labels, truth = torch.as_tensor(prediction["labels"]).long(), torch.as_tensor(target["labels"]).long()
        crowd = torch.as_tensor(target.get("crowd", torch.zeros(len(truth)))).bool()
        positives = torch.bincount(truth[~crowd], minlength=self.classes)
        scores = torch.as_tensor(prediction["scores"], dtype=torch.float64)
        if not len(truth) or not len(labels):
            return labels, scores, torch.full_like(labels, _MISS), torch.zeros_like(labels), positives
        boxes = torch.as_tensor(prediction["boxes"]).double()
        overlap = box_iou(boxes, torch.as_tensor(target["boxes"]).double())
        overlap = overlap.masked_fill(labels.unsqueeze(1) != truth.unsqueeze(0), -1.0)
        best, instance = overlap.max(dim=1)
        verdict = torch.where(crowd[instance], _IGNORED, _HIT).where(best >= self.iou_threshold, _MISS)
        # only hits claim an instance; every other prediction gets a number of its own
        instance = torch.where(verdict == _HIT, instance, len(truth) + torch.arange(len(labels), device=labels.device))
        return labels, scores, verdict, instance, positives


_MISS, _HIT, _IGNORED = 0, 1, 2
