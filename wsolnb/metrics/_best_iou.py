"""Best IoU of a map's boxes with the ground truth, at every threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from wsolnb.boxes import BoxRule
from wsolnb.boxes.quantise import cubehelix_grey, quantise
from wsolnb.boxes.threshold_sweep import levels, sweep_ious
from wsolnb.metrics._checks import check_each_boxes

Convention = Literal["exclusive", "inclusive"]

_RANKS = 255  # thresholds whose ranks fit into a byte


def exclusive_truth(boxes: Sequence[Tensor], images: int, convention: Convention) -> list[Tensor]:
    """Ground truth with far corners exclusive, float64 ``(n_i, 4)`` per image on the CPU.

    Raises:
        ValueError: If the counts differ, a box is malformed, or an image has none.
    """
    if len(boxes) != images:
        raise ValueError(f"{images} maps but {len(boxes)} lists of boxes: there must be one of each per image")
    rows = check_each_boxes(boxes, lambda index: f"boxes of image {index} of this batch")
    for index, row in enumerate(rows):
        if not len(row):
            raise ValueError(f"image {index} of this batch has no ground-truth box: there is nothing to localize in it")
    further = torch.tensor([0.0, 0.0, 1.0, 1.0] if convention == "inclusive" else [0.0] * 4, dtype=torch.float64)
    return [row.cpu().double() + further for row in rows]


def best_ious(maps: Tensor, truth: Sequence[Tensor], rule: BoxRule, thresholds: Tensor) -> Tensor:
    """Best IoU of any box of a map with any ground truth of its image, boxes cut at the map's own size.

    A map is swept over all thresholds at once: over its own 256 levels where the rule quantises, else over the ranks
    of its values among the limits at which the thresholds cut it.

    Args:
        maps: Float ``(B, H, W)`` in [0, 1], or uint8 as the rule would quantise them; any device.
        truth: Boxes of each image, ``(n_i, 4)``, far corners exclusive.
        rule: Everything about the boxes but the threshold.
        thresholds: ``(T,)``.

    Returns:
        float64 ``(B, T)`` on the CPU; 0 where a rule gives no box.

    Raises:
        TypeError: If the maps are uint8 and the rule does not quantise.
    """
    if rule.quantise and rule.strict:
        grey = maps if maps.dtype == torch.uint8 else (cubehelix_grey if rule.colour_map else quantise)(maps)
        return sweep_ious(grey, truth, rule).gather(1, levels(grey, thresholds, rule))
    if maps.dtype == torch.uint8:
        raise TypeError("maps are uint8 but the box rule does not quantise: give floats in [0, 1]")
    values = rule.prepared(maps, maps.shape[1:])
    parts = [_ranked_ious(values, truth, rule, each) for each in thresholds.double().split(_RANKS)]
    return torch.cat(parts, dim=1)


def _ranked_ious(values: Tensor, truth: Sequence[Tensor], rule: BoxRule, thresholds: Tensor) -> Tensor:
    """As `best_ious`, for prepared maps and few thresholds: "beyond the k-th lowest limit" is "of a rank above k"."""
    limits, order = rule.limits(values, thresholds).sort(dim=1)
    flat = values.to(limits.dtype).flatten(1).contiguous()
    ranks = torch.searchsorted(limits, flat, right=not rule.strict).to(torch.uint8).view_as(values)
    swept = sweep_ious(ranks, truth, replace(rule, strict=True))[:, : len(thresholds)]
    return torch.empty_like(swept).scatter_(1, order.cpu(), swept)
