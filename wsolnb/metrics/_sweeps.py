"""Best IoU of a map's boxes with the ground truth, at every threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from wsolnb.boxes import BoxRule
from wsolnb.metrics._tables import check_boxes
from wsolnb.overlap import iou
from wsolnb.quantise import cubehelix_grey, quantise
from wsolnb.sweep import levels, sweep_ious

Convention = Literal["exclusive", "inclusive"]


def exclusive_truth(boxes: Sequence[Tensor], images: int, convention: Convention) -> list[Tensor]:
    """Ground truth with far corners exclusive, float64 ``(n_i, 4)`` per image on the CPU.

    Raises:
        ValueError: If the counts differ, a box is malformed, or an image has none.
    """
    if len(boxes) != images:
        raise ValueError(f"{images} maps but {len(boxes)} lists of boxes: there must be one of each per image")
    rows = [check_boxes(each, f"boxes of image {index} of this batch") for index, each in enumerate(boxes)]
    for index, row in enumerate(rows):
        if not len(row):
            raise ValueError(f"image {index} of this batch has no ground-truth box: there is nothing to localize in it")
    further = torch.tensor([0.0, 0.0, 1.0, 1.0] if convention == "inclusive" else [0.0] * 4, dtype=torch.float64)
    return [row.cpu().double() + further for row in rows]


def best_ious(maps: Tensor, truth: Sequence[Tensor], rule: BoxRule, thresholds: Tensor) -> Tensor:
    """Best IoU of any box of a map with any ground truth of its image, boxes cut at the map's own size.

    Rules that quantise are swept over all levels at once; others are applied threshold by threshold.

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
    best = torch.zeros(len(maps), len(thresholds), dtype=torch.float64)
    for index, threshold in enumerate(thresholds.tolist()):
        size = (maps.shape[1], maps.shape[2])
        boxes, image, _ = replace(rule, threshold=threshold).every(maps.unsqueeze(1), size)
        counts = image.bincount(minlength=len(maps)).tolist()
        for number, (each, true) in enumerate(zip(boxes.split(counts), truth, strict=True)):
            if len(each):
                best[number, index] = iou(each, true).max()
    return best
