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

    `states` are those of the generators of the processor and of `device`, if that is another.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> draws, first = Draws(), torch.rand(2)
        >>> with draws:
        ...     torch.equal(torch.rand(2), first)
        True
    """

    def __init__(self, device: str = "cpu") -> None:
        self._generators: list[Any] = [torch.random]
        self._generators += [] if device == "cpu" else [torch.get_device_module(device)]
        self.states = self._read()

    def __enter__(self) -> None:
        self._own = self._read()
        self._write(self.states)

    def __exit__(self, *_: object) -> None:
        self.states = self._read()
        self._write(self._own)

    def _read(self) -> list[Tensor]:
        return [generator.get_rng_state() for generator in self._generators]

    def _write(self, states: Sequence[Tensor]) -> None:
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_rng_state(state)


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
    """Random numbers for `count` rows, one or more of each image at hand: their part of `sample(n)`, for the batch.

    Raises:
        ValueError: If the images at hand cannot have equally many.

    Example:
        >>> draw_rows(2, lambda n: torch.rand(n, 1, 4, 6)).shape
        torch.Size([2, 1, 4, 6])
    """
    share = _share.get()
    if share is None:
        return sample(count)
    each, rest = divmod(count, len(share.rows))
    if rest:
        raise ValueError(f"{count} rows of random numbers cannot be shared out to {len(share.rows)} images")
    numbers = share.draw(lambda: sample(share.total * each)).unflatten(0, (share.total, each))
    return numbers[share.rows.to(numbers.device)].flatten(0, 1)


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


@torch.compiler.disable  # what one process compiles anew, and another does not, must not stand between two sums
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
