"""Several classes in one image: from maps and scores of all classes to detections, one box per class.

Maps are computed once, at feature resolution: tuning or dragging a threshold needs no further forward pass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

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
    return _predictions(found.scores, boxes, score_threshold)


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


def _predictions(scores: Tensor, boxes: Sequence[Tensor], score_threshold: float = 0.0) -> list[Prediction]:
    result: list[Prediction] = []
    for box, score in zip(boxes, scores, strict=True):
        labels = ((score > score_threshold) & box.isfinite().all(dim=1)).nonzero().flatten()
        result.append({"boxes": box[labels], "scores": score[labels], "labels": labels})
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
    count, classes = len(thresholds), found.scores.shape[1]
    boxes = [torch.cat(at) for at in zip(*_boxes(found, rule, thresholds), strict=True)]
    # every pair of threshold and class is a class to the metric, which so matches all thresholds at once
    metric = DetectionAP(count * classes, iou_thresholds=(iou,), sync_on_compute=False)
    targets = [_at_each_threshold(target, count, classes) for target in found.targets]
    metric.update(_predictions(found.scores.repeat(1, count), boxes), targets)
    per_class = metric.compute()[f"AP@{iou:g}"].view(count, classes)
    return dict(zip(thresholds, per_class.nanmean(dim=1).tolist(), strict=True))


def _at_each_threshold(target: Mapping[str, Any], count: int, classes: int) -> dict[str, Any]:
    """An image's truth, once for each of `count` thresholds."""
    repeated = {
        name: torch.cat([torch.as_tensor(target[name]).as_subclass(Tensor)] * count)
        for name in _TRUTH
        if name in target
    }
    shift = classes * torch.arange(count, device=repeated["labels"].device)
    return {**target, **repeated, "labels": repeated["labels"] + shift.repeat_interleave(len(target["labels"]))}


_TRUTH = ("boxes", "labels", "crowd")  # fields with a row per object


def choose_classes(classes: str | int | Sequence[Any] | Tensor, scores: Tensor) -> Tensor:
    """Class indices per image, int64 `(B, K)`, for a choice of classes as in `localize` and scores `(B, C)`.

    Raises:
        ValueError: If it is no choice of classes, or there is no such class.

    Example:
        >>> choose_classes(2, torch.tensor([[0.1, 0.3, 0.2]]))
        tensor([[1, 2]])
    """
    images, count = scores.shape
    if isinstance(classes, str):
        if classes != "all":
            raise ValueError(f"classes is {classes!r}; give 'all', a number of classes or a list of class indices")
        return torch.arange(count, device=scores.device).expand(images, count)
    if isinstance(classes, int) and not isinstance(classes, bool):
        if not 1 <= classes <= count:
            raise ValueError(f"classes={classes} asks for that many of the best, but the model has {count} classes")
        return scores.topk(classes, dim=1).indices
    rows = class_indices(classes)
    if rows.ndim == 2 and len(rows) != images:
        raise ValueError(f"classes has {len(rows)} rows for {images} images")
    rows = (rows if rows.ndim == 2 else rows[None]).expand(images, -1)
    outside = rows[(rows < 0) | (rows >= count)]
    if len(outside):
        raise ValueError(f"class {int(outside[0])} is not one of the model's {count} classes, 0 to {count - 1}")
    ordered = rows.sort(dim=1).values
    twice = ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]]
    if len(twice):
        raise ValueError(f"class {int(twice[0])} is asked for twice")
    return rows.long().to(scores.device)


def class_indices(classes: Any) -> Tensor:
    """A list of class indices as an integer tensor, `(K,)` or `(B, K)`.

    Raises:
        ValueError: If it is no such list.

    Example:
        >>> class_indices([2, 0])
        tensor([2, 0])
    """
    try:
        rows = classes if isinstance(classes, Tensor) else torch.as_tensor(classes)
    except (ValueError, TypeError, RuntimeError):
        rows = torch.empty(0)
    if rows.is_floating_point() or rows.dtype == torch.bool or rows.ndim not in (1, 2) or rows.numel() == 0:
        raise ValueError(f"classes must be 'all', a number, or class indices (K,) or (B, K), not {classes!r}")
    return rows


def detection_rows(
    maps: Tensor, scores: Tensor, labels: Tensor, rule: BoxRule, size: tuple[int, int]
) -> list[dict[str, Tensor]]:
    """One dictionary per image, with a row per box and at least one per class.

    Args:
        maps: Of the chosen classes, float `(B, K, h, w)`.
        scores: Of all classes `(B, C)`.
        labels: The chosen classes, int64 `(B, K)`.
        rule: How a map becomes boxes.
        size: Height and width of the images.

    Returns:
        `boxes` `(n, 4)` xyxy in pixels, NaN where there is none; `scores` and `labels` `(n,)`; `maps` `(n, h, w)`.

    Example:
        >>> maps = torch.tensor([[[[0.0, 1.0]], [[1.0, 0.0]]]])
        >>> rows = detection_rows(maps, torch.tensor([[0.7, 0.3]]), torch.tensor([[0, 1]]), BoxRule(0.5), (10, 20))
        >>> rows[0]["boxes"].tolist(), rows[0]["scores"].tolist()
        ([[10.0, 0.0, 20.0, 10.0], [0.0, 0.0, 10.0, 10.0]], [0.699999988079071, 0.30000001192092896])
    """
    images, count = labels.shape
    scores = scores.gather(1, labels)
    if "all" not in rule.component:
        rows = zip(*(column.unbind() for column in (rule(maps, size), scores, labels, maps)), strict=True)
        return [dict(zip(_KEYS, row, strict=True)) for row in rows]
    boxes, image, place = rule.all_boxes(maps, size)
    index = image * count + place
    # classes without a box get one of NaN; then all boxes are sorted by image and class
    missing = (torch.bincount(index, minlength=images * count) == 0).nonzero()[:, 0]
    boxes = torch.cat([boxes, boxes.new_full((len(missing), 4), torch.nan)])
    index, order = torch.cat([index, missing]).sort(stable=True)
    columns = (boxes[order], scores.flatten()[index], labels.flatten()[index], maps.flatten(0, 1)[index])
    parts = torch.bincount(index // count, minlength=images).tolist()
    rows = zip(*(column.split(parts) for column in columns), strict=True)
    return [dict(zip(_KEYS, row, strict=True)) for row in rows]


_KEYS = ("boxes", "scores", "labels", "maps")
