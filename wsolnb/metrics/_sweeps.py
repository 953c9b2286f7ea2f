"""Best IoU of a map's boxes with the ground truth, at every threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from wsolnb.boxes import BoxRule
from wsolnb.metrics._tables import check_boxes

Convention = Literal["exclusive", "inclusive"]


def padded_truth(boxes: Sequence[Tensor], images: int, convention: Convention) -> Tensor:
    """Ground truth as one tensor ``(B, G, 4)``, far corners exclusive; rows are filled up with an image's first box.

    Raises:
        ValueError: If the counts differ, a box is malformed, or an image has none.
    """
    if len(boxes) != images:
        raise ValueError(f"{images} maps but {len(boxes)} lists of boxes: there must be one of each per image")
    rows = [check_boxes(each, f"boxes of image {index} of this batch") for index, each in enumerate(boxes)]
    for index, row in enumerate(rows):
        if not len(row):
            raise ValueError(f"image {index} of this batch has no ground-truth box: there is nothing to localize in it")
    most = max(map(len, rows), default=1)
    filled = [row.cpu()[torch.arange(most).clamp(max=len(row) - 1)] for row in rows]
    truth = torch.stack(filled).double() if filled else torch.empty(0, 1, 4, dtype=torch.float64)
    return truth + torch.tensor([0.0, 0.0, 1.0, 1.0]) if convention == "inclusive" else truth


def best_ious(maps: Tensor, truth: Tensor, rule: BoxRule, thresholds: Tensor) -> Tensor:
    """Best IoU of any box of a map with any ground truth of its image.

    Args:
        maps: Float ``(B, H, W)``; boxes are cut at this size.
        truth: ``(B, G, 4)`` from :func:`padded_truth`.
        rule: Everything about the boxes but the threshold.
        thresholds: ``(T,)``.

    Returns:
        float64 ``(B, T)`` on the CPU; 0 where a rule gives no box.
    """
    best = torch.zeros(len(maps), len(thresholds), dtype=torch.float64)
    for index, threshold in enumerate(thresholds.tolist()):
        boxes, image, _ = replace(rule, threshold=threshold).every(maps.unsqueeze(1), (maps.shape[1], maps.shape[2]))
        found = _iou(boxes.cpu().double().unsqueeze(1), truth[image.cpu()]).amax(dim=1)
        best[:, index].scatter_reduce_(0, image.cpu(), found, "amax")
    return best


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes that broadcast, in float64; 0 for a union that is not positive."""
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    shared = overlap.prod(dim=-1)
    union = (a[..., 2:] - a[..., :2]).prod(dim=-1) + (b[..., 2:] - b[..., :2]).prod(dim=-1) - shared
    return torch.where(union <= 0, 0.0, shared / union)
