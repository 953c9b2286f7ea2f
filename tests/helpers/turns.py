"""Speeds of several ways compared in one run: they take turns, so that what else the machine does meets all of them."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch


def rounds(count: int, device: str, **ways: Callable[[], object]) -> dict[str, list[float]]:
    """Seconds of every way, taken in turns, forth and back, so that all meet the same machine."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(count + 1):  # the first warms up
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            start = perf_counter()
            ways[name]()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn:
                times[name].append(perf_counter() - start)
    return times


def ratio(times: dict[str, list[float]], one: str, other: str) -> float:
    """Median of the ratios of neighbouring turns."""
    return median(a / b for a, b in zip(times[one], times[other], strict=True))
