"""Work that the processes of one run share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch.distributed as dist

R = TypeVar("R")


def share_out(count: int, size: int, work: Callable[[Sequence[int]], Iterable[R]]) -> Iterator[R]:
    """The results for items 0 to `count` - 1, of which every process that trains with others computes its share.

    Groups of `size` items that follow each other are dealt out in turns; `work` takes the items of this process and
    gives results, whole Python objects on the CPU that are sent to all. One result per group stands in the order of the
    items. Before the first training, and in a process that is alone, all items are this process's.

    Example:
        >>> list(share_out(3, 2, lambda mine: (n * n for n in mine)))
        [0, 1, 4]
    """
    if not (dist.is_available() and dist.is_initialized()):
        yield from work(range(count))
        return
    rank, world = dist.get_rank(), dist.get_world_size()
    results = iter(work([item for item in range(count) if item // size % world == rank]))
    turn: list[Any] = [None] * world
    while True:
        dist.all_gather_object(turn, next(results, None))
        if all(result is None for result in turn):
            return
        yield from (result for result in turn if result is not None)
