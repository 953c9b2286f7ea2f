"""Lists of predictions and targets, checked and laid out as flat columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def check_boxes(boxes: Tensor, what: str) -> Tensor:
    """Check boxes xyxy ``(n, 4)``: shape, finite values, no negative size.

    Raises:
        ValueError: With the first offending box.
    """
    boxes = torch.as_tensor(boxes)
    if boxes.numel() == 0:
        return boxes.reshape(0, 4).float()
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{what}: boxes must have shape (n, 4), got {tuple(boxes.shape)}")
    boxes = boxes.as_subclass(Tensor).float()
    size = boxes[:, 2:] - boxes[:, :2]
    for bad, why in (
        (~boxes.isfinite().all(dim=1), "has values that are not finite"),
        ((size < 0).any(dim=1), "has negative size: expected x0, y0, x1, y1"),
    ):
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            raise ValueError(f"{what}: box {first} {boxes[first].tolist()} {why}")
    return boxes


def check_each_boxes(boxes: Sequence[Tensor], what: Callable[[int], str]) -> list[Tensor]:
    """`check_boxes` for the boxes of many images, looked at together; `what` names an image by its place."""
    rows = [torch.as_tensor(each) for each in boxes]
    if all(row.ndim == 2 and row.shape[1] == 4 for row in rows) and len({row.device for row in rows}) == 1:
        rows = [row.as_subclass(Tensor).float() for row in rows]
        every = torch.cat(rows)
        if bool(every.isfinite().all() & (every[:, 2:] >= every[:, :2]).all()):
            return rows
    return [check_boxes(row, what(index)) for index, row in enumerate(rows)]


def check_labels(labels: Tensor, count: int, classes: int, what: str) -> Tensor:
    """Check labels: integers, one per box, each in ``[0, classes)``.

    Raises:
        ValueError: With the first offending label.
    """
    labels = torch.as_tensor(labels)
    if labels.shape != (count,):
        raise ValueError(f"{what}: {count} boxes but labels of shape {tuple(labels.shape)}")
    if labels.numel() and (labels.is_floating_point() or labels.dtype == torch.bool):
        raise ValueError(f"{what}: labels must be integers, got {labels.dtype}")
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise ValueError(f"{what}: label {int(outside[0])} is out of range for {classes} classes (0 to {classes - 1})")
    return labels.to(torch.int64)


def check_predictions(predictions: Sequence[Mapping[str, Tensor]], targets: int, classes: int) -> dict[str, Tensor]:
    """Lay out predictions as columns ``predicted_boxes``, ``_labels``, ``_scores`` and ``_count``.

    Raises:
        ValueError: As :meth:`wsolnb.metrics.DetectionAP.update`.
    """
    if len(predictions) != targets:
        raise ValueError(f"{len(predictions)} predictions but {targets} targets: give one of each per image")
    boxes = _boxes_of(predictions, ("boxes", "scores", "labels"), "prediction")
    labels, scores = [], []
    for index, entry in enumerate(predictions):
        what, count = f"prediction {index}", len(boxes[index])
        labels.append(check_labels(entry["labels"], count, classes, what))
        score = torch.as_tensor(entry["scores"]).float()
        if score.shape != (count,):
            raise ValueError(f"{what}: {count} boxes but scores of shape {tuple(score.shape)}")
        if not bool(score.isfinite().all()):
            raise ValueError(f"{what}: score {score[~score.isfinite()][0].item()} is not finite")
        scores.append(score)
    return _columns("predicted", boxes=boxes, labels=labels, scores=scores)


def check_targets(targets: Sequence[Mapping[str, Any]], classes: int) -> dict[str, Tensor]:
    """Lay out targets as columns ``true_boxes``, ``_labels``, ``_crowd``, ``_count`` and ``image_id`` (-1: unknown).

    Raises:
        ValueError: As :meth:`wsolnb.metrics.DetectionAP.update`.
    """
    boxes = _boxes_of(targets, ("boxes", "labels"), "target")
    labels, crowds, ids = [], [], []
    for index, entry in enumerate(targets):
        what, count = f"target {index}", len(boxes[index])
        labels.append(check_labels(entry["labels"], count, classes, what))
        crowd = torch.as_tensor(entry.get("crowd", torch.zeros(count, dtype=torch.bool)))
        if crowd.shape != (count,):
            raise ValueError(f"{what}: {count} boxes but crowd of shape {tuple(crowd.shape)}")
        crowds.append(crowd)
        ids.append(int(entry.get("image_id", -1)))
    columns = _columns("true", boxes=boxes, labels=labels, crowd=crowds)
    return columns | {"image_id": torch.tensor(ids, dtype=torch.int64)}


def _boxes_of(entries: Sequence[Mapping[str, Any]], keys: Sequence[str], side: str) -> list[Tensor]:
    """Boxes of all entries, each of which must have all keys."""
    for index, entry in enumerate(entries):
        missing = [key for key in keys if key not in entry]
        if missing:
            has = ", ".join(map(str, entry)) or "nothing"
            raise ValueError(f"{side} {index} lacks {', '.join(missing)}: it has {has}")
    return check_each_boxes([entry["boxes"] for entry in entries], lambda index: f"{side} {index}")


def _columns(side: str, **parts: list[Tensor]) -> dict[str, Tensor]:
    columns = {f"{side}_{name}": torch.cat(rows) for name, rows in parts.items() if rows}
    counts = torch.tensor([len(rows) for rows in parts["boxes"]], dtype=torch.int64)
    return columns | {f"{side}_count": counts}


def first_of_each(keys: Tensor) -> Tensor:
    """Where each distinct key first appears, in rising order of the keys."""
    order = torch.argsort(keys, stable=True)
    first = torch.ones_like(keys, dtype=torch.bool)
    first[1:] = keys[order].diff() != 0
    return order[first]
