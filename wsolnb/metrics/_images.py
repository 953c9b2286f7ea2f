"""State shared by metrics that keep a little per image: whole-number columns that survive batches and processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from wsolnb.metrics.bootstrap import Statistic


class ColumnMetric(Metric):
    """A metric whose state includes columns: tensors that grow at the front dimension with every update."""

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

    def _sync_dist(self, dist_sync_fn: Any = gather_all_tensors, process_group: Any = None) -> None:
        # A process without data would otherwise send a tensor of another shape and type than the others.
        for name, empty in self._empty.items():
            if not len(getattr(self, name)):
                setattr(self, name, [empty.to(self.device)])
        super()._sync_dist(dist_sync_fn, process_group=process_group)


def image_order(ids: Tensor) -> Tensor:
    """Order of images by their ids, so that no split into batches or processes changes a tie.

    Args:
        ids: One id per image, all -1 where the images carry none: then the order of arrival stays.

    Raises:
        ValueError: If an image was given twice, as a padding distributed sampler does.
    """
    known = ids >= 0
    if bool(known.any() and not known.all()):
        raise ValueError(f"{int(known.sum())} of {len(ids)} images have an image_id: give one to all or to none")
    order = torch.argsort(ids, stable=True)
    twice = ids[order][1:][(ids[order].diff() == 0) & known[1:]]
    if len(twice):
        raise ValueError(
            f"image_id {int(twice[0])} was given twice ({len(twice)} repeats in all): score every image once, and "
            "use a sampler that does not pad"
        )
    return order


def mean_statistic(values: Tensor) -> Statistic:
    """Mean of one number per image as a function of image weights."""
    values = values.to(device="cpu", dtype=torch.float64)
    return lambda weights: (weights.to(values) @ values) / weights.to(values).sum(dim=1)
