"""Work that the processes of one run share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")
R = TypeVar("R")


def share_out(items: Iterable[T], compute: Callable[[T], R]) -> Iterator[tuple[T, R]]:
    """Every item with its result, which one of the processes that train together computes and sends to all.

    All of them go through the same items in the same order. A result is whole Python objects on the CPU. Before the
    first training, and in a process that is alone, everything is computed here.

    Example:
        >>> list(share_out([2, 3], lambda n: n * n))
        [(2, 4), (3, 9)]
    """
    if not (dist.is_available() and dist.is_initialized()):
        yield from ((item, compute(item)) for item in items)
        return
    rank, world = dist.get_rank(), dist.get_world_size()
    rest = iter(items)
    while group := list(islice(rest, world)):
        results: list[Any] = [None] * world
        dist.all_gather_object(results, compute(group[rank]) if rank < len(group) else None)
        yield from zip(group, results[: len(group)], strict=True)
