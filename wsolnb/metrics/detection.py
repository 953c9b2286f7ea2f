"""Average precision of boxes at any IoU, with ``pycocotools``: of all instances, or of pairs of image and class."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from wsolnb.metrics._checks import check_predictions, check_targets
from wsolnb.metrics._state import ColumnMetric, first_of_each, image_order
from wsolnb.metrics.bootstrap import Statistic
from wsolnb.metrics.ranking import COCO_RECALLS, Interpolation, Ranking

Matching = Literal["instances", "image-class"]
_Annotations = list[dict[str, Any]]


class DetectionAP(ColumnMetric):
    """Mean average precision at any IoU threshold, 0 and 0.25 among them (barz2022 section 4.4 and Fig. 4).

    - ``"instances"``: every ground-truth box is a positive, as in COCO. A method with one box per class cannot exceed a
      recall of (pairs of image and class) / (boxes), however good its boxes are.
    - ``"image-class"``: every pair of image and class is one positive, found at IoU ``t`` if the best-scored box of the
      class overlaps any of its instances with at least ``t``; further boxes are not looked at. At IoU 0 this is
      multi-label classification.

    The matching is COCOeval's. At IoU 0 every box of a class matches the class's instances in its image, even where
    disjoint; by the same rule a crowd ignores all boxes of its class that no instance claims. At higher IoU a crowd
    ignores the boxes that lie in it (intersection over the area of the prediction). A pair that is only a crowd is no
    positive. The number of predictions per image is not limited. Classes without positives give NaN and are left out
    of the mean.

    Args:
        classes: Number of classes; labels run from 0 to ``classes - 1``.
        iou_thresholds: The IoU thresholds, each in [0, 1].
        interpolation: ``"coco"`` (101 recalls), ``"voc07"`` (11) or ``"area"``.

    Example:
        >>> metric = DetectionAP(classes=2, iou_thresholds=(0, 0.5))
        >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 20.0]]), "labels": torch.tensor([1])}
        >>> metric.update([truth | {"boxes": truth["boxes"] + 50, "scores": torch.tensor([0.9])}], [truth])
        >>> {key: value.item() for key, value in metric.compute().items() if key.startswith("mAP")}
        {'mAP@0': 1.0, 'mAP@0.5': 0.0}
    """

    def __init__(
        self,
        classes: int,
        iou_thresholds: Sequence[float] = (0, 0.25, 0.5),
        matching: Matching = "instances",
        interpolation: Interpolation = "coco",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if classes < 1:
            raise ValueError(f"classes must be at least 1, not {classes}")
        if matching not in ("instances", "image-class"):
            raise ValueError(f"unknown matching {matching!r}: choose 'instances' or 'image-class'")
        if not iou_thresholds or not all(0 <= t <= 1 for t in iou_thresholds):
            raise ValueError(f"iou_thresholds must lie in [0, 1], got {tuple(iou_thresholds)}")
        self.classes = classes
        self.iou_thresholds = tuple(float(t) for t in iou_thresholds)
        self.matching = matching
        self.interpolation: Interpolation = interpolation
        self._rankings: dict[float, Ranking] = {}
        for side in ("predicted", "true"):
            self.add_column(f"{side}_boxes", torch.float64, 4)
            self.add_column(f"{side}_labels", torch.int64)
            self.add_column(f"{side}_count", torch.int64)
        self.add_column("predicted_scores", torch.float64)
        self.add_column("true_crowd", torch.uint8)
        self.add_column("image_id", torch.int64)

    def update(self, predictions: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Any]]) -> None:
        """Add a batch of images.

        Args:
            predictions: One per image: ``boxes`` float ``(m, 4)`` xyxy, ``scores`` ``(m,)``, ``labels`` int ``(m,)``.
            targets: One per image: ``boxes`` ``(n, 4)``, ``labels`` ``(n,)``; optionally ``crowd`` bool ``(n,)`` and
                ``image_id``, a non-negative int that fixes the order of images.

        Raises:
            ValueError: If the lists differ in length, an entry lacks a key, shapes disagree, a label is out of range, a
                value is not finite, or a box has negative size; in ``compute``, if an image was given twice.
        """
        predicted = check_predictions(predictions, len(targets), self.classes)
        true = check_targets(targets, self.classes)
        for name, rows in (*predicted.items(), *true.items()):
            self.append(name, rows)

    def compute(self) -> dict[str, Tensor]:
        """``mAP@t`` and ``AP@t`` ``(classes,)`` for each threshold ``t``, float64 on the CPU; NaN without positives."""
        self._rankings = dict(zip(self.iou_thresholds, self._match(), strict=True))
        result = {}
        for threshold, ranking in self._rankings.items():
            per_class = ranking.average_precision(self.interpolation)[0]
            result[f"mAP@{threshold:g}"] = per_class.nanmean()
            result[f"AP@{threshold:g}"] = per_class
        return result

    def ranking(self, iou: float) -> Ranking:
        """The matched predictions at one of the metric's IoU thresholds, images sorted by ``image_id``."""
        if iou not in self.iou_thresholds:
            raise ValueError(f"IoU {iou} is not among this metric's thresholds {self.iou_thresholds}")
        self.compute()
        return self._rankings[float(iou)]

    def curve(self, iou: float, *, per_class: bool = False) -> tuple[Tensor, Tensor]:
        """Precision over recall (barz2022 Fig. 4), of all classes pooled into one ranking or per class.

        Given are the 101 recalls ``(101,)`` and the interpolated precision, ``(101,)`` pooled or ``(classes, 101)``.
        """
        ranking = self.ranking(iou)
        precision = (ranking if per_class else ranking.pooled()).precision(COCO_RECALLS)[0]
        return COCO_RECALLS.clone(), precision if per_class else precision[0]

    def precision_at(self, recall: float, iou: float) -> Tensor:
        """Best precision at this recall or a higher one, all classes pooled (barz2022 section 4.4.3 takes 0.3)."""
        return self.ranking(iou).pooled().precision(torch.tensor([recall]))[0, 0, 0]

    def statistic(self, iou: float) -> Statistic:
        """Mean average precision as a function of image weights, equal to COCOeval's on repeated images."""
        return self.ranking(iou).statistic(self.interpolation)

    @property
    def images(self) -> int:
        """Number of images that this process has seen."""
        return len(self.column("image_id"))

    def _match(self) -> list[Ranking]:
        columns = {name: self.column(name).cpu() for name in self._empty}
        rank = torch.argsort(image_order(columns["image_id"]))
        predicted, true = (  # rows of image and class
            torch.stack([rank.repeat_interleave(columns[f"{side}_count"]), columns[f"{side}_labels"]], dim=1)
            for side in ("predicted", "true")
        )
        boxes, scores = columns["predicted_boxes"], columns["predicted_scores"]
        truth, crowd = columns["true_boxes"], columns["true_crowd"].bool()
        if self.matching == "image-class":
            best, kept = _one_per_pair(predicted, scores, boxes, true, truth, crowd, self.classes)
            predicted, boxes, scores = predicted[best], boxes[best], scores[best]
            true, truth, crowd = true[kept], truth[kept], crowd[kept]
        # COCOeval is slow: it is spared the pairs of image and class that have no truth, whose predictions are wrong
        keys, possible_keys = (rows[:, 1] * len(rank) + rows[:, 0] for rows in (true, predicted))
        present, true_cell = keys.unique(return_inverse=True)
        possible = torch.isin(possible_keys, present)
        cell = torch.searchsorted(present, possible_keys[possible])
        cells = self._coco_eval(
            _annotations(true_cell, truth, crowd=crowd),
            _annotations(cell, boxes[possible], scores=scores[possible]),
            cells=len(present),
        )
        pairs = torch.stack([present % len(rank), present // len(rank)], dim=1)
        return self._ranked(cells, pairs, predicted[~possible], scores[~possible], images=len(rank))

    def _coco_eval(self, truth: _Annotations, predictions: _Annotations, cells: int) -> list[dict[str, Any]]:
        """COCOeval's results for each cell, a pair of image and class; to COCOeval an image of one category."""
        tables = []
        with contextlib.redirect_stdout(io.StringIO()):
            for annotations in (truth, predictions):
                table = COCO()
                table.dataset = {
                    "images": [{"id": cell} for cell in range(cells)],
                    "categories": [{"id": 0}],
                    "annotations": annotations,
                }
                table.createIndex()
                tables.append(table)
            evaluation = COCOeval(*tables, iouType="bbox")
            evaluation.params.iouThrs = list(self.iou_thresholds)
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, float("inf")]], ["all"]
            evaluation.params.maxDets = [max(1, len(predictions))]
            evaluation.evaluate()
        return list(evaluation.evalImgs)

    def _ranked(
        self, cells: _Annotations, pairs: Tensor, wrong: Tensor, wrong_scores: Tensor, images: int
    ) -> list[Ranking]:
        """One ranking per threshold, from COCOeval's results for pairs of image and class, and wrong predictions."""
        sizes = torch.tensor([len(cell["dtIds"]) for cell in cells], dtype=torch.int64)
        positives = torch.tensor([int((cell["gtIgnore"] == 0).sum()) for cell in cells], dtype=torch.int64)
        score = torch.tensor([value for cell in cells for value in cell["dtScores"]], dtype=torch.float64)
        flags = [
            torch.stack([torch.as_tensor(cell["dtMatches"]) > 0, torch.as_tensor(cell["dtIgnore"]) > 0])
            for cell in cells
        ]
        flags.append(torch.zeros(2, len(self.iou_thresholds), len(wrong), dtype=torch.bool))
        common = (
            *torch.cat([pairs.repeat_interleave(sizes, dim=0), wrong]).unbind(1),
            *pairs.repeat_interleave(positives, dim=0).unbind(1),
        )
        return [
            Ranking(
                torch.cat([score, wrong_scores]), hit & ~ignored, ignored, *common, images=images, classes=self.classes
            )
            for hit, ignored in torch.cat(flags, dim=2).unbind(1)
        ]


def _pair(rows: Tensor, classes: int) -> Tensor:
    """One number per row of image and class."""
    return rows[:, 0] * classes + rows[:, 1]


def _one_per_pair(
    predicted: Tensor, scores: Tensor, boxes: Tensor, true: Tensor, truth: Tensor, crowd: Tensor, classes: int
) -> tuple[Tensor, Tensor]:
    """Indices of each pair's best-scored box, and of the instance that it overlaps most together with all crowds."""
    pair = _pair(predicted, classes)
    order = torch.argsort(scores, descending=True, stable=True)
    best = order[first_of_each(pair[order])]
    instance = torch.nonzero(~crowd).squeeze(1)
    true_pair = _pair(true[instance], classes)
    overlap = torch.zeros(len(instance), dtype=torch.float64)
    if len(best):
        partner = torch.searchsorted(pair[best], true_pair).clamp(max=len(best) - 1)
        matched = pair[best][partner] == true_pair
        overlap = _iou(boxes[best[partner]], truth[instance]).where(matched, 0.0)
    order = torch.argsort(overlap, descending=True, stable=True)
    instance = instance[order[first_of_each(true_pair[order])]]
    return best, torch.cat([instance, torch.nonzero(crowd).squeeze(1)])


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of corresponding rows of boxes."""
    shared = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)
    area = (a[:, 2:] - a[:, :2]).prod(dim=1) + (b[:, 2:] - b[:, :2]).prod(dim=1)
    return shared / (area - shared).clamp(min=torch.finfo(torch.float64).tiny)


def _annotations(
    cells: Tensor, boxes: Tensor, *, scores: Tensor | None = None, crowd: Tensor | None = None
) -> _Annotations:
    """COCO annotations; ids start at 1, because 0 means "no match" to COCOeval."""
    size = boxes[:, 2:] - boxes[:, :2]
    fields = {
        "image_id": cells,
        "category_id": torch.zeros_like(cells),
        "bbox": torch.cat([boxes[:, :2], size], dim=1),
        "area": size.prod(dim=1),
        "score": torch.zeros(len(cells)) if scores is None else scores,
        "iscrowd": torch.zeros(len(cells), dtype=torch.int) if crowd is None else crowd.int(),
    }
    rows = zip(*(column.tolist() for column in fields.values()), strict=True)
    return [{"id": number, **dict(zip(fields, row, strict=True))} for number, row in enumerate(rows, start=1)]
