"""The ranges of the suite's parameters, by name: all its notebooks mean the same by a name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

_FROM_ZERO = (
    "epochs", "coarse_epochs", "refine_epochs", "evaluator_epochs", "pretrain_epochs", "taught_epochs", "warm_epochs",
    "lr", "lr_cosine", "lr_cross_entropy", "coarse_lr", "refine_lr", "evaluator_lr", "warm_lr", "head_rate",
    "train_images", "test_images", "held_images", "tune_images", "box_images", "search_images", "cost_images",
    "pretrain_images", "taught_images", "held_scenes", "test_scenes", "min_images", "min_boxes",
    "weight_decay", "clip", "cycle", "workers", "threads", "clock", "cache_gb", "noise", "turn", "sigma", "searched",
    "image_size", "side", "test_size", "embed_size", "stride", "grid", "semantic_dims", "width",
)  # fmt: skip
_FROM_ONE = (
    "batch_size", "refine_batch", "batch_classes", "families", "species", "objects", "crowds", "scene_side", "frame",
    "widths", "beam_width", "depth", "depths", "positions", "hidden", "adapt", "copies", "cycles", "every",
    "draws", "has_patch", "inner_pool", "early_pool",
)  # fmt: skip
_SHARES = (
    "adl_threshold", "tap_threshold", "body_tells", "clutter", "cooccurrence", "other_cooccurrence", "dropout", "erase",
    "held_share", "mark_size", "decay", "scale",
)  # fmt: skip

RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(_FROM_ZERO, (0.0, math.inf)),
    **dict.fromkeys(_FROM_ONE, (1.0, math.inf)),
    **dict.fromkeys(_SHARES, (0.0, 1.0)),
    "percentile": (0.0, 100.0),
    "sim_threshold": (-1.0, 1.0),
}
"""Least and greatest value of a number, or of each in a list."""


def require_ranges(values: Mapping[str, Any]) -> None:
    """Refuse a parameter outside of its range, or any number that is not finite.

    Example:
        >>> require_ranges({"epochs": -1})
        Traceback (most recent call last):
        ValueError: parameter epochs is at least 0, not -1
    """
    for name, value in values.items():
        low, high = RANGES.get(name, (-math.inf, math.inf))
        for number in _numbers(value):
            if not math.isfinite(number):
                raise ValueError(f"parameter {name} is a finite number, not {number}")
            if not low <= number <= high:
                allowed = f"from {low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"
                raise ValueError(f"parameter {name} is {allowed}, not {number:g}")


def _numbers(value: Any) -> Iterator[float]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, int | float) and not isinstance(item, bool):
            yield item
