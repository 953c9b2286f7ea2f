"""How many images a map's boxes get right at every threshold: the state of MaxBoxAcc and its relatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from wsolnb.boxes import BoxRule
from wsolnb.boxes.quantise import cubehelix_grey, quantise
from wsolnb.boxes.threshold_sweep import levels, sweep_ious
from wsolnb.metrics._checks import check_box_lists, check_maps, threshold_grid, threshold_index
from wsolnb.metrics._state import ColumnMetric
from wsolnb.metrics.bootstrap import Statistic

Convention = Literal["exclusive", "inclusive"]

_RANKS = 255  # thresholds whose ranks fit into a byte
_BITS = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)


def exclusive_truth(boxes: Sequence[Tensor], images: int, convention: Convention) -> list[Tensor]:
    """Ground truth with exclusive far corners, at least one box per image: float64 ``(n_i, 4)`` each, on the CPU."""
    if len(boxes) != images:
        raise ValueError(f"{images} maps but {len(boxes)} lists of boxes: there must be one of each per image")
    rows = check_box_lists(boxes, lambda index: f"boxes of image {index} of this batch")
    for index, row in enumerate(rows):
        if not len(row):
            raise ValueError(f"image {index} of this batch has no ground-truth box: there is nothing to localize in it")
    offset = torch.tensor([0.0, 0.0, 1.0, 1.0] if convention == "inclusive" else [0.0] * 4, dtype=torch.float64)
    return [row.cpu().double() + offset for row in rows]


def best_ious(maps: Tensor, truth: Sequence[Tensor], rule: BoxRule, thresholds: Tensor) -> Tensor:
    """Best IoU of any box of a map, cut at its own size, with any ground truth of its image, at each threshold.

    All thresholds are swept at once: over the 256 levels of a quantised map, else over the ranks of the map's values
    among the limits at which the thresholds cut it. The rule's own threshold is not used.

    Maps are float ``(B, H, W)`` in [0, 1], or uint8 as the rule would quantise them; the boxes of ``truth`` have
    exclusive far corners. The result is float64 ``(B, T)`` on the CPU, 0 where the rule gives no box.
    """
    if rule.quantise and rule.strict:
        grey = maps if maps.dtype == torch.uint8 else (cubehelix_grey if rule.colour_map else quantise)(maps)
        return sweep_ious(grey, truth, rule).gather(1, levels(grey, thresholds, rule))
    if maps.dtype == torch.uint8:
        raise TypeError("maps are uint8 but the box rule does not quantise: give floats in [0, 1]")
    values = rule.prepared(maps, maps.shape[1:])
    parts = [_ranked_ious(values, truth, rule, part) for part in thresholds.double().split(_RANKS)]
    return torch.cat(parts, dim=1)


def _ranked_ious(values: Tensor, truth: Sequence[Tensor], rule: BoxRule, thresholds: Tensor) -> Tensor:
    """As `best_ious`, of prepared maps at up to 255 thresholds: above the k-th lowest limit lie the ranks above k."""
    limits, order = rule.limits(values, thresholds).sort(dim=1)
    flat = values.to(limits.dtype).flatten(1).contiguous()
    ranks = torch.searchsorted(limits, flat, right=not rule.strict).to(torch.uint8).view_as(values)
    swept = sweep_ious(ranks, truth, replace(rule, strict=True))[:, : len(thresholds)]
    return torch.empty_like(swept).scatter_(1, order.cpu(), swept)


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
