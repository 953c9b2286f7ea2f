"""Several classes in one image: from maps and scores of all classes to detections, one box per class.

Maps are computed once, at feature resolution: tuning or dragging a threshold needs no further forward pass.
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
        score_threshold: Classes scoring at most this get no box (`ϑ_score`, strict). The default 0 excludes exactly the
            classes without a cell in a dense class map.

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
    """Per threshold and image, the boxes of all classes, `(K, 4)`."""
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
    """Mean average precision at one IoU for every threshold of the box rule (`ϑ_bbox` of barz2022 Sec. 4.4.2).

    Meant for training scenes; the best threshold, `max(curve, key=curve.get)`, is then used on the test scenes.

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
