"""State of metrics that keep a few numbers per image: columns that survive batches and processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from wsolnb.metrics.bootstrap import Statistic
from wsolnb.metrics.ranking import Interpolation, Ranking


class ColumnMetric(Metric):
    """A metric with columns in its state: tensors that gain rows with every update. Options are torchmetrics's."""

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    _empty: dict[str, Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._empty = {}

    def add_column(self, name: str, dtype: torch.dtype, *trailing: int) -> None:
        """Declare a column of rows of shape ``trailing``."""
        self.add_state(name, default=[], dist_reduce_fx="cat")
        self._empty[name] = torch.empty(0, *trailing, dtype=dtype)

    def append(self, name: str, rows: Tensor) -> None:
        """Add rows to a column."""
        empty = self._empty[name]
        getattr(self, name).append(rows.detach().to(device=self.device, dtype=empty.dtype))

    def column(self, name: str) -> Tensor:
        """All rows of a column, in the order in which they came."""
        rows = getattr(self, name)
        return self._empty[name].to(self.device) if isinstance(rows, list) and not rows else dim_zero_cat(rows)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the state of all processes; one without images sends empty columns of the others' shape and type."""
        for name, empty in self._empty.items():
            if not len(getattr(self, name)):
                setattr(self, name, [empty.to(self.device)])
        super().sync(*args, **kwargs)


def image_order(ids: Tensor) -> Tensor:
    """Order of images by their ids, so that ties do not depend on batches and processes; by arrival if all are -1.

    Refused are ids of some images only, and an image given twice, as a padding sampler does.
    """
    given = ids >= 0
    if bool(given.any() and not given.all()):
        raise ValueError(f"{int(given.sum())} of {len(ids)} images have an image_id: give one to all or to none")
    order = torch.argsort(ids, stable=True)
    repeated = ids[order][1:][(ids[order].diff() == 0) & given[1:]]
    if len(repeated):
        raise ValueError(
            f"image_id {int(repeated[0])} was given twice ({len(repeated)} repeats in all): score every image once, "
            "and use a sampler that does not pad"
        )
    return order


def first_of_each(keys: Tensor) -> Tensor:
    """Index of the first occurrence of each distinct key, in rising order of the keys."""
    order = torch.argsort(keys, stable=True)
    first = torch.ones_like(keys, dtype=torch.bool)
    first[1:] = keys[order].diff() != 0
    return order[first]


class RankedMetric(ColumnMetric):
    """Average precision of the ranking that a subclass makes of its columns."""

    interpolation: Interpolation
    _ranking: Ranking

    def compute(self) -> dict[str, Tensor]:
        """``mAP`` (scalar) and ``AP`` ``(classes,)``, float64 fractions on the CPU; NaN without positives."""
        self._ranking = self._rank()
        per_class = self._ranking.average_precision(self.interpolation)[0]
        return {"mAP": per_class.nanmean(), "AP": per_class}

    def statistic(self) -> Statistic:
        """Mean average precision as a function of image weights, images sorted by ``image_id``."""
        self.compute()
        return self._ranking.statistic(self.interpolation)

    def _rank(self) -> Ranking:
        raise NotImplementedError
