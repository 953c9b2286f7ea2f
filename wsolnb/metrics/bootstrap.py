"""How sure a score is: the bootstrap over test images, paired where two methods are compared.

Everything here works on *statistics*: vectorised functions of image weights. A statistic takes ``weights`` of shape
``(draws, n)``, in which row ``d`` says how often each of the ``n`` images stands in the ``d``-th resampled data set,
and gives one score per row. Metrics offer theirs as ``metric.statistic(...)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

Statistic = Callable[[Tensor], Tensor]

_BATCH_ELEMENTS = 2**22


@dataclass(frozen=True)
class Interval:
    """A score with its percentile bootstrap interval.

    Attributes:
        value: The score of the data set as it is.
        low: Lower end of the interval.
        high: Upper end of the interval.
        level: Share of the draws between the two ends.
        draws: The score of every resampled data set, float64 ``(draws,)``, NaN where it is undefined; what
            :meth:`minus` pairs.

    Example:
        >>> Interval(value=0.12, low=0.05, high=0.2).excludes_zero
        True
    """

    value: float
    low: float
    high: float
    level: float = 0.95
    draws: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies strictly outside of the interval."""
        return self.low > 0 or self.high < 0

    def minus(self, other: Interval) -> Interval:
        """The difference to another score of the same resampled data sets, paired draw by draw.

        Raises:
            ValueError: If the two do not have the same number of draws, or share no draw in which both are defined.

        Example:
            >>> hits = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
            >>> first = interval(lambda weights: weights @ hits / 3, 3)
            >>> first.minus(first)
            Interval(value=0.0, low=0.0, high=0.0, level=0.95)
        """
        if self.draws is None or other.draws is None or len(self.draws) != len(other.draws):
            counts = ["no" if each.draws is None else str(len(each.draws)) for each in (self, other)]
            raise ValueError(
                f"a paired difference needs the same draws on both sides, got {' and '.join(counts)} draws"
            )
        return _between_percentiles(self.value - other.value, self.draws - other.draws, self.level)


def image_weights(n: int, draws: int = 1000, seed: int = 0) -> Tensor:
    """Draw resampled data sets of ``n`` images with replacement, as counts per image.

    Args:
        n: Number of images.
        draws: Number of resampled data sets.
        seed: The same seed gives the same draws on every machine.

    Returns:
        Multinomial counts, float64 of shape ``(draws, n)``; every row sums to ``n``.

    Raises:
        ValueError: If there is no image or no draw.

    Example:
        >>> image_weights(4, draws=2).sum(dim=1)
        tensor([4., 4.], dtype=torch.float64)
    """
    return torch.cat(list(_weight_batches(n, draws, seed)))


def interval(statistic: Statistic, n: int, *, draws: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
    """Bootstrap one statistic over images.

    Args:
        statistic: Maps weights ``(draws, n)`` to scores ``(draws,)``.
        n: Number of images.
        draws: Number of resampled data sets; they are drawn and scored in batches, so memory stays bounded.
        seed: Seed of the draws.
        level: Share of the draws that the interval holds.

    Returns:
        The score at unit weights between the two percentiles. Draws in which the score is undefined (NaN, say
        because no positive was drawn) are left out.

    Raises:
        ValueError: If ``n``, ``draws`` or ``level`` make no sense, if the statistic does not give one number per
            draw, or if it is undefined in every draw.

    Example:
        >>> scores = torch.tensor([0.0, 1.0, 1.0, 1.0], dtype=torch.float64)
        >>> result = interval(lambda weights: weights @ scores / weights.sum(dim=1), 4)
        >>> result.value, result.low < 0.75 < result.high
        (0.75, True)
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    values = torch.cat([_scored(statistic, weights) for weights in _weight_batches(n, draws, seed)])
    return _between_percentiles(float(_scored(statistic, torch.ones(1, n, dtype=torch.float64))), values, level)


def difference(
    a: Statistic, b: Statistic, n: int, *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Bootstrap the difference ``a - b`` of two methods scored on the same images.

    Both see the same draws, so what is hard about an image counts for both (a paired bootstrap).

    Args:
        a: Statistic of the first method.
        b: Statistic of the second method, over the same images in the same order.
        n: Number of images.
        draws: Number of resampled data sets.
        seed: Seed of the draws.
        level: Share of the draws that the interval holds.

    Returns:
        The difference at unit weights with its interval; ``excludes_zero`` is the verdict.

    Raises:
        ValueError: As :func:`interval`.

    Example:
        >>> first = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
        >>> mean = lambda hits: (lambda weights: weights @ hits / weights.sum(dim=1))
        >>> difference(mean(first), mean(first - 0.5), 4)
        Interval(value=0.5, low=0.5, high=0.5, level=0.95)
    """
    first, second = (interval(each, n, draws=draws, seed=seed, level=level) for each in (a, b))
    return first.minus(second)


def _between_percentiles(value: float, draws: Tensor, level: float) -> Interval:
    defined = draws[~draws.isnan()]
    if not len(defined):
        raise ValueError(f"the statistic is NaN in all of {len(draws)} draws: the data set has nothing to score")
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.quantile(defined, tails).tolist()
    return Interval(value=value, low=low, high=high, level=level, draws=draws)


def _scored(statistic: Statistic, weights: Tensor) -> Tensor:
    values = torch.as_tensor(statistic(weights)).to(device="cpu", dtype=torch.float64)
    if values.shape != weights.shape[:1]:
        raise ValueError(
            f"a statistic must give one number per draw: expected shape {tuple(weights.shape[:1])} for weights of "
            f"shape {tuple(weights.shape)}, got {tuple(values.shape)}"
        )
    return values


def _weight_batches(n: int, draws: int, seed: int) -> Iterator[Tensor]:
    if n < 1 or draws < 1:
        raise ValueError(f"a bootstrap needs at least one image and one draw, got n={n}, draws={draws}")
    rows = max(1, _BATCH_ELEMENTS // n)
    if draws <= rows:
        yield _kept_batch(n, draws, seed)
        return
    generator = torch.Generator().manual_seed(seed)
    for batch in range(math.ceil(draws / rows)):
        yield _batch(n, min(rows, draws - batch * rows), generator)


@lru_cache(maxsize=2)
def _kept_batch(n: int, draws: int, seed: int) -> Tensor:
    """The only batch of a small data set, which every method and metric of a run asks for."""
    return _batch(n, draws, torch.Generator().manual_seed(seed))


def _batch(n: int, draws: int, generator: torch.Generator) -> Tensor:
    picks = torch.randint(n, (draws, n), generator=generator)
    return torch.zeros(draws, n, dtype=torch.float64).scatter_add_(1, picks, torch.ones(1, 1).double().expand(draws, n))


Evidence = Mapping[str, Mapping[str, Statistic]]
"""Statistics of a run by method and metric: ``evidence["cam"]["ap25"]``."""

Measured = Mapping[str, Mapping[str, Interval]]
"""Their scores with intervals, as :func:`measure` returns them."""


def measure(
    evidence: Evidence, n: int | Mapping[str, int], *, draws: int = 1000, seed: int = 0
) -> dict[str, dict[str, Interval]]:
    """Score every method with every metric, with 95 % intervals.

    Args:
        evidence: Statistics by method and metric; each maps image weights ``(draws, n)`` to scores ``(draws,)``.
        n: Number of test images; by metric where metrics are taken over different images.
        draws: Number of resampled data sets.
        seed: Seed of the draws.

    Returns:
        Intervals by method and metric, with the draws behind them; NaN where nothing can be scored. Hand them to
        :func:`verdicts`.

    Example:
        >>> hits = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
        >>> scores = measure({"cam": {"top1": lambda weights: weights @ hits / weights.sum(dim=1)}}, 4)
        >>> scores["cam"]["top1"].value
        0.75
    """
    return {
        method: {
            metric: _interval(statistic, n if isinstance(n, int) else n[metric], draws, seed)
            for metric, statistic in row.items()
        }
        for method, row in evidence.items()
    }


def _interval(statistic: Statistic, n: int, draws: int, seed: int) -> Interval:
    if math.isnan(float(statistic(torch.ones(1, n, dtype=torch.float64)))):
        return Interval(value=math.nan, low=math.nan, high=math.nan)
    return interval(statistic, n, draws=draws, seed=seed)
