"""Random numbers and comparisons of a whole batch, of which a network sees one process's share, or a part of that.

The training loop says which images are at hand (`Share`). What a method draws (`draw`, `draw_rows`) and compares
(`gather`) is then the same with any number of processes. Elsewhere, the images at hand are the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Draws:
    """A stream of random numbers that all processes have, beside torch's own, which differ: it goes on from there.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> draws, first = Draws(), torch.rand(2)
        >>> with draws:
        ...     torch.equal(torch.rand(2), first)
        True
    """

    def __init__(self) -> None:
        self.states = _states()

    def __enter__(self) -> None:
        self._own = _states()
        _restore(self.states)

    def __exit__(self, *_: object) -> None:
        self.states = _states()
        _restore(self._own)


class Share:
    """Images `rows` of a batch of `total` images, whose random numbers are the next ones of `draws`.

    If it is not `counted`, its image only stands in where there is none. If not `entire`, it is a part of a process's.

    Example:
        >>> with Share(torch.tensor([1, 3]), 4, Draws()).at_hand():
        ...     draw_rows(2, torch.arange)
        tensor([1, 3])
    """

    def __init__(self, rows: Tensor, total: int, draws: Draws, *, counted: bool = True, entire: bool = True) -> None:
        self.rows, self.total, self.counted, self.entire = rows, total, counted, entire
        self._draws, self._start = draws, draws.states

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """Let the images at hand be these; every part of a batch draws from the start."""
        self._draws.states = self._start
        token = _share.set(self)
        try:
            yield
        finally:
            _share.reset(token)

    @torch.compiler.disable
    def draw(self, sample: Callable[[], Tensor]) -> Tensor:
        """The same numbers in all processes."""
        with self._draws:
            return sample()


_share: ContextVar[Share | None] = ContextVar("share", default=None)


def counted() -> bool:
    """Whether the images at hand are of the batch.

    Example:
        >>> counted()
        True
    """
    share = _share.get()
    return share is None or share.counted


def draw(sample: Callable[[], Tensor]) -> Tensor:
    """Random numbers for a whole batch.

    Example:
        >>> draw(lambda: torch.rand(())).shape
        torch.Size([])
    """
    share = _share.get()
    return sample() if share is None else share.draw(sample)


def draw_rows(count: int, sample: Callable[[int], Tensor]) -> Tensor:
    """Random numbers for the `count` images at hand: their rows of `sample(n)`, for the `n` images of the whole batch.

    Example:
        >>> draw_rows(2, lambda n: torch.rand(n, 1, 4, 6)).shape
        torch.Size([2, 1, 4, 6])
    """
    share = _share.get()
    if share is None:
        return sample(count)
    numbers = share.draw(lambda: sample(share.total))
    return numbers[share.rows.to(numbers.device)]


def gather(values: Tensor) -> Tensor:
    """Rows of all images of the batch, in its order, for rows of those at hand; gradients go back to all processes.

    If a process has its share in parts, rows of the part at hand.

    Example:
        >>> gather(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """
    share = _share.get()
    if share is None or not share.entire:
        return values
    rows, whole = share.rows.to(values.device), values.new_zeros(share.total, *values.shape[1:])
    return sum_over_processes(whole.index_copy(0, rows, values) if share.counted else whole + 0 * values.sum())


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum over all processes, and so of gradients, as every process's loss depends on it."""
    return _Sum.apply(values) if dist.is_available() and dist.is_initialized() else values


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def _generators() -> list[Any]:
    """Modules with the state of the processor's generator, and of that of the accelerator in use."""
    return [torch.random, *([torch.get_device_module()] if torch.accelerator.is_available() else [])]


def _states() -> list[Tensor]:
    return [generator.get_rng_state() for generator in _generators()]


def _restore(states: Sequence[Tensor]) -> None:
    for generator, state in zip(_generators(), states, strict=True):
        generator.set_rng_state(state)
