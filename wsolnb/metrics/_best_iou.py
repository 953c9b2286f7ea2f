"""The best IoU of a map's boxes with the ground truth at every threshold; imports no torchmetrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from wsolnb.boxes import BoxRule
from wsolnb.boxes.quantise import cubehelix_grey, quantise
from wsolnb.boxes.threshold_sweep import levels, sweep_ious
from wsolnb.metrics._checks import check_box_lists

Convention = Literal["exclusive", "inclusive"]

_RANKS = 255  # thresholds whose ranks fit into a byte


def exclusive_truth(boxes: Sequence[Tensor], images: int, convention: Convention) -> list[Tensor]:
    """Ground truth with exclusive far corners, at least one box per image: float64 ``(n_i, 4)`` each, on the CPU."""
    if len(boxes) != images:
        raise ValueError(f"{images} maps but {len(boxes)} lists of boxes: there must be one of each per image")
    rows = check_box_lists(boxes, lambda index: f"boxes of image {index} of this batch")
    for index, row in enumerate(rows):
        if not len(row):
            raise ValueError(f"image {index} of this batch has no ground-truth box: there is nothing to localize in it")
    offset = torch.tensor([0.0, 0.0, 1.0, 1.0] if convention == "inclusive" else [0.0] * 4, dtype=torch.float64)
    return [row.cpu().double() + offset for row in rows]


def best_ious(maps: Tensor, truth: Sequence[Tensor], rule: BoxRule, thresholds: Tensor) -> Tensor:
    """Best IoU of any box of a map, cut at its own size, with any ground truth of its image, at each threshold.

    All thresholds are swept at once: over the 256 levels of a quantised map, else over the ranks of the map's values
    among the limits at which the thresholds cut it. The rule's own threshold is not used.

    Maps are float ``(B, H, W)`` in [0, 1], or uint8 as the rule would quantise them; the boxes of ``truth`` have
    exclusive far corners. The result is float64 ``(B, T)`` on the CPU, 0 where the rule gives no box.
    """
    if rule.quantise and rule.strict:
        grey = maps if maps.dtype == torch.uint8 else (cubehelix_grey if rule.colour_map else quantise)(maps)
        return sweep_ious(grey, truth, rule).gather(1, levels(grey, thresholds, rule))
    if maps.dtype == torch.uint8:
        raise TypeError("maps are uint8 but the box rule does not quantise: give floats in [0, 1]")
    values = rule.prepared(maps, maps.shape[1:])
    parts = [_ranked_ious(values, truth, rule, part) for part in thresholds.double().split(_RANKS)]
    return torch.cat(parts, dim=1)


def _ranked_ious(values: Tensor, truth: Sequence[Tensor], rule: BoxRule, thresholds: Tensor) -> Tensor:
    """As `best_ious`, of prepared maps at up to 255 thresholds: above the k-th lowest limit lie the ranks above k."""
    limits, order = rule.limits(values, thresholds).sort(dim=1)
    flat = values.to(limits.dtype).flatten(1).contiguous()
    ranks = torch.searchsorted(limits, flat, right=not rule.strict).to(torch.uint8).view_as(values)
    swept = sweep_ious(ranks, truth, replace(rule, strict=True))[:, : len(thresholds)]
    return torch.empty_like(swept).scatter_(1, order.cpu(), swept)
