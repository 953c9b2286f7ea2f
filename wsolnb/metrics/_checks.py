"""Checks of what the metrics are given: maps, thresholds, boxes, labels, predictions and targets."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def check_maps(maps: Tensor, *, seen: int, grey_allowed: bool = False) -> None:
    """Check score maps ``(B, H, W)``: floating point (or uint8 if ``grey_allowed``), finite, in [0, 1].

    Errors name the first invalid image, in its batch and, after ``seen`` earlier images, of all.
    """
    if maps.ndim != 3 or 0 in maps.shape[1:]:
        raise ValueError(f"maps must have shape (images, height, width), got {tuple(maps.shape)}")
    if grey_allowed and maps.dtype == torch.uint8:
        return
    if not maps.is_floating_point():
        raise TypeError(f"maps must be floating point, not {maps.dtype}")
    if not len(maps):
        return
    low, high = torch.aminmax(maps.detach())
    if bool((low >= 0) & (high <= 1)):
        return
    flat = maps.detach().flatten(1)
    wrong = ~((flat >= 0) & (flat <= 1)).all(dim=1)
    image = int(wrong.nonzero()[0])
    values = flat[image]
    problem = (
        f"has values from {values.min():g} to {values.max():g}, outside of [0, 1]: normalise it first"
        if bool(values.isfinite().all())
        else f"holds {values[~values.isfinite()][0]:g}: maps must be finite"
    )
    raise ValueError(f"the map of image {image} of this batch (image {seen + image} of all, from 0) {problem}")


def threshold_grid(count: int) -> Tensor:
    """The protocol's thresholds ``i / count``, rounded as by ``numpy.arange(0, 1, 1 / count)``."""
    if count < 2:
        raise ValueError(f"at least 2 thresholds are needed, not {count}")
    return torch.from_numpy(np.arange(count) * (1 / count))


def threshold_index(thresholds: Tensor, threshold: float) -> int:
    """Index of a threshold on a grid; if it is not on it, the error names the nearest one."""
    index = int((thresholds - threshold).abs().argmin())
    nearest, known = float(thresholds[index]), f"this metric's {len(thresholds)} thresholds"
    if not abs(nearest - threshold) <= 1e-9:  # NaN is near to nothing
        raise ValueError(f"threshold {threshold} is not among {known}; the nearest is {nearest:g}")
    return index


def require_shape(tensor: Tensor, shape: tuple[int | None, ...], what: str) -> None:
    """Check a tensor's shape; None stands for any size but 0."""
    fits = tensor.ndim == len(shape) and all(
        size > 0 if expected is None else size == expected for size, expected in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{what} must have shape ({sizes}), got {tuple(tensor.shape)}")


def _check_boxes(boxes: Tensor, what: str) -> Tensor:
    """Check boxes xyxy ``(n, 4)``: shape, finite values, no negative size. Raises with the first invalid one."""
    boxes = torch.as_tensor(boxes)
    if boxes.numel() == 0:
        return boxes.reshape(0, 4).to(torch.promote_types(boxes.dtype, torch.float32))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{what}: boxes must have shape (n, 4), got {tuple(boxes.shape)}")
    boxes = boxes.as_subclass(Tensor).to(torch.promote_types(boxes.dtype, torch.float32))
    size = boxes[:, 2:] - boxes[:, :2]
    for bad, why in (
        (~boxes.isfinite().all(dim=1), "has values that are not finite"),
        ((size < 0).any(dim=1), "has negative size: expected x0, y0, x1, y1"),
    ):
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            raise ValueError(f"{what}: box {first} {boxes[first].tolist()} {why}")
    return boxes


def check_box_lists(boxes: Sequence[Tensor], what: Callable[[int], str]) -> list[Tensor]:
    """Check boxes xyxy ``(n_i, 4)`` of many images, returned as float; ``what`` gives an image's name in errors."""
    rows = [torch.as_tensor(row) for row in boxes]
    # all at once, which is much faster; one by one only to name the invalid one
    if all(row.ndim == 2 and row.shape[1] == 4 for row in rows) and len({row.device for row in rows}) == 1:
        rows = [row.as_subclass(Tensor).to(torch.promote_types(row.dtype, torch.float32)) for row in rows]
        stacked = torch.cat(rows)
        if bool(stacked.isfinite().all() & (stacked[:, 2:] >= stacked[:, :2]).all()):
            return rows
    return [_check_boxes(row, what(index)) for index, row in enumerate(rows)]


def check_labels(labels: Tensor, count: int, classes: int, what: str) -> Tensor:
    """Check labels: ``count`` integers in ``[0, classes)``; returned as int64."""
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
    """Check predictions and concatenate them: ``predicted_boxes``, ``_labels``, ``_scores`` and ``_count``."""
    if len(predictions) != targets:
        raise ValueError(f"{len(predictions)} predictions but {targets} targets: give one of each per image")
    boxes = _boxes_of(predictions, ("boxes", "scores", "labels"), "prediction")
    labels, scores = [], []
    for index, entry in enumerate(predictions):
        what, count = f"prediction {index}", len(boxes[index])
        labels.append(check_labels(entry["labels"], count, classes, what))
        score = torch.as_tensor(entry["scores"], dtype=torch.float64)
        if score.shape != (count,):
            raise ValueError(f"{what}: {count} boxes but scores of shape {tuple(score.shape)}")
        if not bool(score.isfinite().all()):
            raise ValueError(f"{what}: score {score[~score.isfinite()][0].item()} is not finite")
        scores.append(score)
    return _columns("predicted", boxes=boxes, labels=labels, scores=scores)


def check_targets(targets: Sequence[Mapping[str, Any]], classes: int) -> dict[str, Tensor]:
    """Check targets and concatenate them: ``true_boxes``, ``_labels``, ``_crowd``, ``_count`` and ``image_id``."""
    boxes = _boxes_of(targets, ("boxes", "labels"), "target")
    labels, crowds, ids = [], [], []
    for index, entry in enumerate(targets):
        what, count = f"target {index}", len(boxes[index])
        labels.append(check_labels(entry["labels"], count, classes, what))
        crowd = torch.as_tensor(entry.get("crowd", torch.zeros(count, dtype=torch.bool)))
        if crowd.shape != (count,):
            raise ValueError(f"{what}: {count} boxes but crowd of shape {tuple(crowd.shape)}")
        crowds.append(crowd)
        ids.append(_image_id(entry, what))
    columns = _columns("true", boxes=boxes, labels=labels, crowd=crowds)
    return columns | {"image_id": torch.tensor(ids, dtype=torch.int64)}


def _image_id(target: Mapping[str, Any], what: str) -> int:
    """The `image_id` of a target, -1 without one."""
    if "image_id" not in target:
        return -1
    try:
        number = operator.index(target["image_id"])
    except TypeError:
        raise ValueError(f"{what}: image_id {target['image_id']!r:.40} is no whole number") from None
    if not 0 <= number < 2**63:
        raise ValueError(f"{what}: image_id {number} must lie between 0 and 2**63 - 1")
    return number


def _boxes_of(entries: Sequence[Mapping[str, Any]], keys: Sequence[str], side: str) -> list[Tensor]:
    """Boxes of all entries, after a check that all keys are there."""
    for index, entry in enumerate(entries):
        missing = [key for key in keys if key not in entry]
        if missing:
            has = ", ".join(map(str, entry)) or "nothing"
            raise ValueError(f"{side} {index} lacks {', '.join(missing)}: it has {has}")
    return check_box_lists([entry["boxes"] for entry in entries], lambda index: f"{side} {index}")


def _columns(side: str, **parts: list[Tensor]) -> dict[str, Tensor]:
    columns = {f"{side}_{name}": torch.cat(rows) for name, rows in parts.items() if rows}
    counts = torch.tensor([len(rows) for rows in parts["boxes"]], dtype=torch.int64)
    return columns | {f"{side}_count": counts}
