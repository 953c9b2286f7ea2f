"""What a forward pass costs, counted instead of timed, so that the number is the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def multiply_adds(function: Callable[..., Any], *arguments: Any) -> int:
    """Multiplications with an addition in the convolutions and matrix products of one call.

    Normalisation, activations and resizing are not counted. No gradient is computed.

    Args:
        function: A module or anything that calls some.
        *arguments: What it is called with.

    Example:
        >>> multiply_adds(torch.nn.Conv2d(3, 8, 3, padding=1), torch.rand(1, 3, 10, 20))  # 3·8·9 for each of 200 cells
        43200
    """
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        function(*arguments)
    return int(counter.get_total_flops()) // 2
