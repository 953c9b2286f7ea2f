"""State of metrics that keep a few numbers per image: columns that survive batches and processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from wsolnb.boxes import BoxRule
from wsolnb.metrics._best_iou import Convention, best_ious, exclusive_truth
from wsolnb.metrics._checks import check_maps, threshold_grid, threshold_index
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


_BITS = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)


class ThresholdCounts(ColumnMetric):
    """Number of right images at ``T`` thresholds, for ``D`` IoUs and ``G`` groups of images.

    A group has members, which make up its denominator; only the eligible ones among them can be right. The state is
    whole numbers of fixed size, and with ``per_image`` one bit per image, IoU and threshold. The ``rule`` is
    ``"wsoleval"`` by default; its threshold, resize and normalisation are not used.
    """

    right: Tensor
    members: Tensor
    seen: Tensor

    def __init__(
        self,
        *,
        iou_thresholds: Sequence[float],
        groups: int,
        gt_convention: Convention,
        rule: BoxRule | None = None,
        thresholds: int = 1000,
        per_image: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if gt_convention not in ("exclusive", "inclusive"):
            raise ValueError(f"gt_convention must be 'exclusive' or 'inclusive', not {gt_convention!r}")
        if not all(0 < iou <= 1 for iou in iou_thresholds):
            raise ValueError(f"IoU thresholds must lie in (0, 1], got {tuple(iou_thresholds)}")
        self.iou_thresholds = tuple(float(iou) for iou in iou_thresholds)
        self.rule = replace(rule or BoxRule.preset("wsoleval"), resize=None, normalise=None)
        self.gt_convention: Convention = gt_convention
        self.thresholds = threshold_grid(thresholds)
        self.per_image = per_image
        shape = (groups, len(self.iou_thresholds), thresholds)
        self.add_state("right", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("members", torch.zeros(groups, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("seen", torch.tensor(0), dist_reduce_fx="sum")
        if per_image:
            self.add_column("bits", torch.uint8, len(self.iou_thresholds), -(-thresholds // 8))
            self.add_column("member", torch.uint8, groups)
            self.add_column("eligible", torch.uint8, groups)

    def count(self, maps: Tensor, boxes: Sequence[Tensor], member: Tensor, eligible: Tensor) -> None:
        """Add a batch of images; ``member`` and ``eligible`` are bool ``(B, G)``."""
        check_maps(maps, seen=int(self.seen), grey_allowed=True)
        truth = exclusive_truth(boxes, len(maps), self.gt_convention)
        best = best_ious(maps, truth, self.rule, self.thresholds)
        hit = best.unsqueeze(1) >= torch.tensor(self.iou_thresholds, dtype=torch.float64)[:, None]
        member, eligible = member.cpu(), (eligible & member).cpu()
        right = torch.einsum("bg,bdt->gdt", eligible.double(), hit.double()).long()
        self.right += right.to(self.right.device)
        self.members += member.sum(dim=0).to(self.members.device)
        self.seen += len(maps)
        if self.per_image:  # thresholds are packed into bytes, lowest bit first
            octets = torch.nn.functional.pad(hit, (0, -hit.shape[-1] % 8)).unflatten(-1, (-1, 8))
            self.append("bits", (octets * _BITS).sum(dim=-1))
            self.append("member", member)
            self.append("eligible", eligible)

    def collect(self) -> Tensor:
        """Accuracies, float64 ``(G, D, T)`` on the CPU; NaN for groups without members. For use in ``compute``."""
        if self.per_image:
            self._rows = {name: self.column(name).cpu() for name in ("bits", "member", "eligible")}
        self._accuracy = self.right.cpu().double() / self.members.cpu()[:, None, None]
        return self._accuracy

    def accuracy(self) -> Tensor:
        """Accuracies of all images of all processes, float64 ``(G, D, T)`` on the CPU."""
        self.compute()
        return self._accuracy

    def index_of(self, threshold: float) -> int:
        """Index of a threshold on the metric's grid."""
        return threshold_index(self.thresholds, threshold)

    def resampled(self, groups: Sequence[int], weights: Tensor, threshold: float | None) -> Tensor:
        """Accuracies under image weights, float64 ``(draws, groups, D, T)``; T is 1 at a fixed threshold."""
        weights = weights.cpu()
        packed = self._rows["bits"]
        first = 0 if threshold is None else self.index_of(threshold)
        last = len(self.thresholds) if threshold is None else first + 1
        parts = []
        for group in groups:
            total = torch.zeros(len(weights), len(self.iou_thresholds) * (last - first), dtype=torch.float64)
            for rows in self._rows["eligible"][:, group].nonzero().squeeze(1).split(2048):
                hit = ((packed[rows].unsqueeze(-1) & _BITS) > 0).flatten(-2)[..., first:last]
                total += weights[:, rows].float() @ hit.flatten(1).float()
            members = (weights.double() @ self._rows["member"][:, group].double()).unsqueeze(1)
            parts.append((total / members).unflatten(1, (len(self.iou_thresholds), -1)))
        return torch.stack(parts, dim=1)

    def require_images(self) -> None:
        """Check that the metric can be bootstrapped, and collect its images."""
        if not self.per_image:
            raise ValueError(f"{type(self).__name__} keeps counts only: make it with per_image=True to bootstrap it")
        self.compute()


def mean_of_best(accuracy: Tensor) -> Tensor:
    """Accuracies ``(..., D, T)`` at the best threshold of each IoU, averaged over the IoUs."""
    return accuracy.amax(dim=-1).mean(dim=-1)


def oracle_statistic(metric: ThresholdCounts, group: int, threshold: float | None) -> Statistic:
    """One group's accuracy as a function of image weights, at a fixed threshold or at the best of every draw."""
    metric.require_images()
    return lambda weights: mean_of_best(metric.resampled([group], weights, threshold))[:, 0]
