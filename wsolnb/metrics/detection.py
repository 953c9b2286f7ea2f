"""Average precision of boxes at any IoU, on ``pycocotools``, in two readings of what has to be found."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from wsolnb.metrics._checks import check_predictions, check_targets, first_of_each
from wsolnb.metrics._state import ColumnMetric, image_order
from wsolnb.metrics.bootstrap import Statistic
from wsolnb.metrics.ranking import COCO_RECALLS, Interpolation, Ranking

Matching = Literal["instances", "image-class"]


class DetectionAP(ColumnMetric):
    """Mean average precision at any IoU threshold, 0 and 0.25 among them (barz2022 section 4.4 and Fig. 4).

    Two matchings answer two questions.

    - ``"instances"``: every ground-truth box is a positive, as in COCO. A method that gives one box per class cannot
      pass a recall of (pairs of image and class) / (boxes), however good its boxes are.
    - ``"image-class"``: a pair of image and class is one positive, found at IoU ``t`` if the best-scored box of the
      class overlaps any of its instances with at least ``t``; further boxes of the pair are not looked at. At IoU 0
      this is multi-label classification: is the class there?

    Matching is COCOeval's. At IoU 0 every box of a class in an image matches the class's instances there, disjoint or
    not, and by the same rule an image with a crowd of the class ignores all its boxes that no instance claims: the
    class is there, nobody counted how often. At higher IoU a crowd ignores the boxes that lie in it (intersection over
    the area of the prediction). A pair that is only a crowd is no positive. No prediction is ever cut off by a limit
    per image, and ``-1`` for classes without positives becomes NaN, left out of the mean.

    Args:
        classes: Number of classes; labels run from 0 to ``classes - 1``.
        iou_thresholds: The IoU thresholds, each in [0, 1].
        matching: ``"instances"`` or ``"image-class"``.
        interpolation: ``"coco"`` (101 recalls), ``"voc07"`` (11) or ``"area"``.
        **kwargs: Passed to ``torchmetrics.Metric``.

    Example:
        >>> metric = DetectionAP(classes=2, iou_thresholds=(0, 0.5))
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
        >>> metric.update(
        ...     [{"boxes": boxes + 50, "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}],
        ...     [{"boxes": boxes, "labels": torch.tensor([1])}],
        ... )
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
            self.add_column(f"{side}_boxes", torch.float32, 4)
            self.add_column(f"{side}_labels", torch.int64)
            self.add_column(f"{side}_count", torch.int64)
        self.add_column("predicted_scores", torch.float32)
        self.add_column("true_crowd", torch.uint8)
        self.add_column("image_id", torch.int64)

    def update(self, predictions: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Any]]) -> None:
        """Add a batch of images.

        Args:
            predictions: One per image: ``boxes`` float ``(m, 4)`` xyxy, ``scores`` ``(m,)``, ``labels`` int ``(m,)``.
            targets: One per image: ``boxes`` ``(n, 4)``, ``labels`` ``(n,)``, and where known ``crowd`` bool ``(n,)``
                and ``image_id``, a non-negative int that fixes the order of images.

        Raises:
            ValueError: If the lists differ in length, an entry lacks a key, shapes disagree, a label is out of range, a
                value is not finite, or a box has negative size; in compute(), if an image was given twice.
        """
        predicted = check_predictions(predictions, len(targets), self.classes)
        true = check_targets(targets, self.classes)
        for name, rows in (*predicted.items(), *true.items()):
            self.append(name, rows)

    def compute(self) -> dict[str, Tensor]:
        """Score all images so far.

        Returns:
            ``mAP@t`` (scalar) and ``AP@t`` ``(classes,)`` for each threshold ``t``, float64 fractions on the CPU; NaN
            where there is no positive.
        """
        self._rankings = dict(zip(self.iou_thresholds, self._match(), strict=True))
        result = {}
        for threshold, ranking in self._rankings.items():
            each = ranking.average_precision(self.interpolation)[0]
            result[f"mAP@{threshold:g}"] = each.nanmean()
            result[f"AP@{threshold:g}"] = each
        return result

    def ranking(self, iou: float) -> Ranking:
        """The judged predictions at one IoU threshold, images sorted by ``image_id``.

        Raises:
            ValueError: If the threshold is none of the metric's.
        """
        if iou not in self.iou_thresholds:
            raise ValueError(f"IoU {iou} is not among this metric's thresholds {self.iou_thresholds}")
        self.compute()
        return self._rankings[float(iou)]

    def curve(self, iou: float, *, per_class: bool = False) -> tuple[Tensor, Tensor]:
        """Precision over recall (barz2022 Fig. 4), all classes pooled into one ranking, or each alone.

        Returns:
            The 101 recalls ``(101,)`` and the interpolated precision, ``(101,)`` pooled or ``(classes, 101)``.
        """
        ranking = self.ranking(iou)
        precision = (ranking if per_class else ranking.pooled()).precision(COCO_RECALLS)[0]
        return COCO_RECALLS.clone(), precision if per_class else precision[0]

    def precision_at(self, recall: float, iou: float) -> Tensor:
        """Best precision, all classes pooled, at this recall or a higher one (barz2022 section 4.4.3 takes 0.3)."""
        return self.ranking(iou).pooled().precision(torch.tensor([recall]))[0, 0, 0]

    def statistic(self, iou: float) -> Statistic:
        """Mean average precision as a function of image weights, for :mod:`wsolnb.metrics.bootstrap`.

        Equals COCOeval on a data set with the images repeated, also where scores of different images tie.
        """
        return self.ranking(iou).statistic(self.interpolation)

    @property
    def images(self) -> int:
        """Number of images seen by this process."""
        return len(self.column("image_id"))

    def _match(self) -> list[Ranking]:
        columns = {name: self.column(name).cpu() for name in self._empty}
        rank = torch.argsort(image_order(columns["image_id"]))
        predicted = torch.stack(
            [rank.repeat_interleave(columns["predicted_count"]), columns["predicted_labels"]], dim=1
        )
        true = torch.stack([rank.repeat_interleave(columns["true_count"]), columns["true_labels"]], dim=1)
        boxes, scores = columns["predicted_boxes"].double(), columns["predicted_scores"].double()
        truth, crowd = columns["true_boxes"].double(), columns["true_crowd"].bool()
        if self.matching == "image-class":
            best, kept = _one_per_pair(predicted, scores, boxes, true, truth, crowd, self.classes)
            predicted, boxes, scores = predicted[best], boxes[best], scores[best]
            true, truth, crowd = true[kept], truth[kept], crowd[kept]
        # COCOeval is slow, and where an image lacks a class nothing can be matched
        known = torch.isin(_pair(predicted, self.classes), _pair(true, self.classes))
        found = _coco_eval(
            _annotations(true, truth, crowd=crowd),
            _annotations(predicted[known], boxes[known], scores=scores[known]),
            images=len(rank),
            classes=self.classes,
            thresholds=self.iou_thresholds,
        )
        wrong = (predicted[~known], scores[~known])
        return _rankings(found, *wrong, images=len(rank), classes=self.classes, thresholds=len(self.iou_thresholds))


def _pair(where: Tensor, classes: int) -> Tensor:
    """One number per pair of image and class, from rows of both."""
    return where[:, 0] * classes + where[:, 1]


def _one_per_pair(
    predicted: Tensor, scores: Tensor, boxes: Tensor, true: Tensor, truth: Tensor, crowd: Tensor, classes: int
) -> tuple[Tensor, Tensor]:
    """Indices of each pair's best-scored box, and of the instance that it overlaps most (crowds are all kept)."""
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
    """IoU of rows of boxes, one by one."""
    shared = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)
    area = (a[:, 2:] - a[:, :2]).prod(dim=1) + (b[:, 2:] - b[:, :2]).prod(dim=1)
    return shared / (area - shared).clamp(min=torch.finfo(torch.float64).tiny)


def _annotations(
    pairs: Tensor, boxes: Tensor, *, scores: Tensor | None = None, crowd: Tensor | None = None
) -> list[dict[str, Any]]:
    """COCO annotations; their ids start at 1, because COCOeval writes 0 for "no match"."""
    size = boxes[:, 2:] - boxes[:, :2]
    fields = {
        "image_id": pairs[:, 0].tolist(),
        "category_id": pairs[:, 1].tolist(),
        "bbox": torch.cat([boxes[:, :2], size], dim=1).tolist(),
        "area": size.prod(dim=1).tolist(),
        "score": [0.0] * len(pairs) if scores is None else scores.tolist(),
        "iscrowd": [0] * len(pairs) if crowd is None else crowd.int().tolist(),
    }
    rows = zip(*fields.values(), strict=True)
    return [{"id": number, **dict(zip(fields, row, strict=True))} for number, row in enumerate(rows, start=1)]


def _coco_eval(
    truth: list[dict[str, Any]],
    predictions: list[dict[str, Any]],
    *,
    images: int,
    classes: int,
    thresholds: Sequence[float],
) -> list[dict[str, Any] | None]:
    tables = []
    with contextlib.redirect_stdout(io.StringIO()):
        for annotations in (truth, predictions):
            table = COCO()
            table.dataset = {
                "images": [{"id": image} for image in range(images)],
                "categories": [{"id": klass} for klass in range(classes)],
                "annotations": annotations,
            }
            table.createIndex()
            tables.append(table)
        judge = COCOeval(*tables, iouType="bbox")
        judge.params.iouThrs = list(thresholds)
        judge.params.areaRng = [[0, float("inf")]]
        judge.params.areaRngLbl = ["all"]
        judge.params.maxDets = [max(1, len(predictions))]
        judge.evaluate()
    return judge.evalImgs


def _rankings(
    found: list[dict[str, Any] | None],
    wrong: Tensor,
    wrong_scores: Tensor,
    *,
    images: int,
    classes: int,
    thresholds: int,
) -> list[Ranking]:
    """Flatten COCOeval's cells, one per class and image, and the wrong predictions, into one ranking per threshold."""
    cells = [cell for cell in found if cell is not None]
    where = torch.tensor([(cell["image_id"], cell["category_id"]) for cell in cells], dtype=torch.int64).view(-1, 2)
    sizes = torch.tensor([len(cell["dtIds"]) for cell in cells], dtype=torch.int64)
    positives = torch.tensor([int((cell["gtIgnore"] == 0).sum()) for cell in cells], dtype=torch.int64)
    image, klass = torch.cat([where.repeat_interleave(sizes, dim=0), wrong]).unbind(1)
    positive_image, positive_class = where.repeat_interleave(positives, dim=0).unbind(1)
    score = torch.tensor([value for cell in cells for value in cell["dtScores"]], dtype=torch.float64)
    score = torch.cat([score, wrong_scores])
    flags = [
        torch.stack([torch.as_tensor(cell["dtMatches"]) > 0, torch.as_tensor(cell["dtIgnore"]) > 0]) for cell in cells
    ]
    flags.append(torch.zeros(2, thresholds, len(wrong), dtype=torch.bool))
    matched, ignored = torch.cat(flags, dim=2)
    return [
        Ranking.of(
            score,
            matched[t] & ~ignored[t],
            ignored[t],
            image,
            klass,
            positive_image,
            positive_class,
            images=images,
            classes=classes,
        )
        for t in range(thresholds)
    ]
