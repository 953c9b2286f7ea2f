"""How sure a score is: statistics, their bootstrap over test images, and the intervals of a whole table of scores.

A *statistic* is a score as a vectorised function of image weights: it takes ``weights`` ``(draws, n)``, in which row
``d`` says how often each of the ``n`` images occurs in the ``d``-th resampled data set, and returns one score per row.
Metrics offer theirs as ``metric.statistic(...)``; `mean_statistic` makes one from a number per image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

Statistic = Callable[[Tensor], Tensor]

_BATCH_ELEMENTS = 2**22


@dataclass(frozen=True)
class Interval:
    """The score of a data set with its percentile bootstrap interval, which holds the fraction ``level`` of the draws.

    ``draws`` are the scores of the resampled data sets, float64 ``(draws,)``, NaN where undefined.

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
        """Whether zero lies strictly outside the interval."""
        return self.low > 0 or self.high < 0

    def minus(self, other: Interval) -> Interval:
        """The difference from another score on the same resampled data sets, paired draw by draw.

        Raises:
            ValueError: If the numbers of draws differ, or both are defined in no draw.

        Example:
            >>> hits = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
            >>> first = interval(lambda weights: weights @ hits / 3, 3)
            >>> first.minus(first)
            Interval(value=0.0, low=0.0, high=0.0, level=0.95)
        """
        if self.draws is None or other.draws is None or len(self.draws) != len(other.draws):
            counts = " and ".join("no" if side.draws is None else str(len(side.draws)) for side in (self, other))
            raise ValueError(f"a paired difference needs the same draws on both sides, got {counts} draws")
        return _between_percentiles(self.value - other.value, self.draws - other.draws, self.level)


def mean_statistic(values: Tensor, members: Tensor | None = None) -> Statistic:
    """The weighted mean of one number per image, ``Σ w v / Σ w``, as a statistic.

    ``values`` ``(n,)`` of any dtype are averaged in float64 on the CPU over the images marked in ``members``, bool
    ``(n,)``, by default all; a draw without any of them gives NaN.

    Example:
        >>> accuracy = mean_statistic(torch.tensor([True, False, True]))
        >>> accuracy(torch.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, 1.0]]))
        tensor([0.6667, 0.3333], dtype=torch.float64)
        >>> mean_statistic(torch.tensor([3, 4, 8]), torch.tensor([False, True, True]))(torch.ones(1, 3))
        tensor([6.], dtype=torch.float64)
    """
    values = values.to(device="cpu", dtype=torch.float64)
    if members is None:
        return lambda weights: (weights.to(values) @ values) / weights.to(values).sum(dim=1)
    part = members.to(values)
    return lambda weights: (weights.to(values) @ (values * part)) / (weights.to(values) @ part)


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """The mean of independent numbers, such as one per training, with Student's t interval.

    For `S` numbers of mean `m` and standard deviation `s` it is `m ± t s / √S`, where `t` is the `(1 + level) / 2`
    quantile of the t distribution with `S - 1` degrees of freedom; NaN where there are too few.

    Example:
        >>> found = mean_interval([0.4, 0.5, 0.6])
        >>> round(found.value, 2), round(found.low, 2), round(found.high, 2)
        (0.5, 0.25, 0.75)
    """
    from scipy import stats

    numbers = np.asarray(values, dtype=float)
    size = len(numbers)
    mean = float(numbers.mean()) if size else math.nan
    half = float(stats.t.ppf((1 + level) / 2, size - 1) * stats.sem(numbers)) if size > 1 else math.nan
    return Interval(mean, mean - half, mean + half, level)


def image_weights(n: int, draws: int = 1000, seed: int = 0) -> Tensor:
    """Resample ``n`` images with replacement: multinomial counts per image, float64 ``(draws, n)``; rows sum to ``n``.

    The same seed gives the same draws on every machine. There has to be at least one image and one draw.

    Example:
        >>> image_weights(4, draws=2).sum(dim=1)
        tensor([4., 4.], dtype=torch.float64)
    """
    return torch.cat(list(_weight_batches(n, draws, seed)))


def interval(statistic: Statistic, n: int, *, draws: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
    """Bootstrap one statistic over ``n`` images: the score at unit weights with its percentile interval.

    The interval holds the fraction ``level`` of the draws, which are scored in batches of bounded memory. Draws with an
    undefined score (NaN, e.g. without a positive) are left out.

    Raises:
        ValueError: If ``n``, ``draws`` or ``level`` is out of range, or the statistic does not give one number per
            draw or is undefined in all of them.

    Example:
        >>> result = interval(mean_statistic(torch.tensor([0.0, 1.0, 1.0, 1.0])), 4)
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
    """Bootstrap the difference ``a - b`` of two methods scored on the same images in the same order.

    A paired bootstrap: both are scored on the same draws, so that hard images count for both. Arguments and errors are
    those of :func:`interval`; ``excludes_zero`` of the result is the verdict.

    Example:
        >>> first = torch.tensor([1.0, 1.0, 1.0, 0.0])
        >>> difference(mean_statistic(first), mean_statistic(first - 0.5), 4)
        Interval(value=0.5, low=0.5, high=0.5, level=0.95)
    """
    first, second = (interval(statistic, n, draws=draws, seed=seed, level=level) for statistic in (a, b))
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
        yield _cached_batch(n, draws, seed)
        return
    generator = torch.Generator().manual_seed(seed)
    for batch in range(math.ceil(draws / rows)):
        yield _batch(n, min(rows, draws - batch * rows), generator)


@lru_cache(maxsize=2)
def _cached_batch(n: int, draws: int, seed: int) -> Tensor:
    """The only batch of a small data set, cached because every method and metric of a run needs it."""
    return _batch(n, draws, torch.Generator().manual_seed(seed))


def _batch(n: int, draws: int, generator: torch.Generator) -> Tensor:
    picks = torch.randint(n, (draws, n), generator=generator)
    return torch.zeros(draws, n, dtype=torch.float64).scatter_add_(1, picks, torch.ones(1, 1).double().expand(draws, n))


Evidence = Mapping[str, Mapping[str, Statistic]]
"""The statistics of a run by method and metric: ``evidence["cam"]["ap25"]``."""

Measured = Mapping[str, Mapping[str, Interval]]
"""The scores of a run with their intervals, as :func:`measure` returns them."""


def measure(
    evidence: Evidence, n: int | Mapping[str, int], *, draws: int = 1000, seed: int = 0
) -> dict[str, dict[str, Interval]]:
    """Score every method with every metric, with 95 % intervals; NaN where a metric is undefined on the data set.

    ``n`` is the number of test images, or the number for each metric where they differ.

    Example:
        >>> scores = measure({"cam": {"top1": mean_statistic(torch.tensor([1, 0, 1, 1]))}}, 4)
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
