"""Several classes in one image: read every class's map and score from a classifier, then turn them into detections.

    scenes -> features -> readout (maps of all classes, one score per class) -> box rule -> detections

Maps are computed once and kept at feature resolution, so that a threshold can be tuned or dragged without running the
network again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from wsolnb._utils.progress import track
from wsolnb.boxes import BoxRule
from wsolnb.localization.maps import SceneMaps
from wsolnb.metrics.detection import DetectionAP

Prediction = dict[str, Tensor]
"""Torchvision's form: `boxes` `(m, 4)`, `scores` `(m,)`, `labels` `(m,)`."""


def detections(found: SceneMaps, rule: BoxRule, *, score_threshold: float = 0.0) -> list[Prediction]:
    """One box per class and image: the rule applied to the class's own map (barz2022 Sec. 3.3).

    Args:
        found: Maps and scores.
        rule: How a map becomes a box.
        score_threshold: Classes scoring at most this get no box (`ϑ_score`, strict). At its default 0 a dense class
            map leaves out just the classes without a cell.

    Returns:
        Per image `boxes` (xyxy in pixels of the original image), `scores`, `labels`.

    Example:
        >>> maps = torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]]])  # two classes, 1 x 2 cells
        >>> found = SceneMaps([maps], torch.tensor([[0.7, 0.3]]), torch.tensor([[10, 20]]), [{}])
        >>> detections(found, BoxRule(0.5))
        [{'boxes': tensor([[10.,  0., 20., 10.]]), 'scores': tensor([0.7000]), 'labels': tensor([0])}]
    """
    (boxes,) = _boxes(found, rule, [rule.threshold])
    return _predictions(found, boxes, score_threshold)


def _boxes(found: SceneMaps, rule: BoxRule, thresholds: Sequence[float]) -> list[list[Tensor]]:
    """For every threshold, the boxes of all classes of every image, `(K, 4)` each."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, (maps, size) in enumerate(zip(found.maps, found.sizes.tolist(), strict=True)):
        groups[(*maps.shape, *size)].append(index)
    result: list[list[Tensor]] = [[torch.empty(0)] * len(found.maps) for _ in thresholds]
    for indices in groups.values():
        at = rule.at_thresholds(torch.stack([found.maps[i] for i in indices]), found.sizes[indices], thresholds)
        for row, boxes in zip(result, at.to(found.scores.device), strict=True):
            for index, box in zip(indices, boxes, strict=True):
                row[index] = box
    return result


def _predictions(found: SceneMaps, boxes: Sequence[Tensor], score_threshold: float = 0.0) -> list[Prediction]:
    result: list[Prediction] = []
    for box, scores in zip(boxes, found.scores, strict=True):
        labels = ((scores > score_threshold) & box.isfinite().all(dim=1)).nonzero().flatten()
        result.append({"boxes": box[labels], "scores": scores[labels], "labels": labels})
    return result


def tune_threshold(
    found: SceneMaps, rule: BoxRule, thresholds: Sequence[float], *, iou: float = 0.25
) -> dict[float, float]:
    """Mean average precision for every threshold of the box rule (`ϑ_bbox` of barz2022 Sec. 4.4.2).

    Give it training scenes: the threshold that is best here is then used, unchanged, on the test scenes.

    Returns:
        Threshold to mAP at the given IoU, in the order given; the best is `max(curve, key=curve.get)`.

    Example:
        >>> maps = torch.tensor([[[0.4, 1.0]]])
        >>> truth = {"boxes": torch.tensor([[10.0, 0.0, 20.0, 10.0]]), "labels": torch.tensor([0])}
        >>> found = SceneMaps([maps], torch.tensor([[0.7]]), torch.tensor([[10, 20]]), [truth])
        >>> tune_threshold(found, BoxRule(), [0.2, 0.6], iou=0.6)
        {0.2: 0.0, 0.6: 1.0}
    """
    curve = {}
    every = _boxes(found, rule, thresholds)
    for threshold, boxes in zip(thresholds, track(every, "thresholds"), strict=True):
        metric = DetectionAP(classes=found.scores.shape[1], iou_thresholds=(iou,))
        metric.update(_predictions(found, boxes), found.targets)
        curve[threshold] = float(metric.compute()[f"mAP@{iou:g}"])
    return curve
