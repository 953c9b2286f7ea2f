"""One box per image: the threshold is tuned on held-out images, the boxes are evaluated on test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.ops import box_area

from wsolnb.boxes import BoxRule
from wsolnb.boxes.quantise import percentile
from wsolnb.localization.maps import LocalizationMaps
from wsolnb.metrics import mean_statistic
from wsolnb.metrics.bootstrap import Statistic
from wsolnb.metrics.pixels import PxAP
from wsolnb.metrics.topk import TopLocalization

_BATCH = 64


@dataclass(frozen=True)
class LocalizationResult:
    """Boxes of test images by a rule with the threshold that is best on held-out images.

    Args:
        maps: Maps and truth of the test images.
        rule: How a map becomes a box, with that threshold.
        metric: GT-known and top-k localization of the test images at all thresholds.
    """

    maps: LocalizationMaps
    rule: BoxRule
    metric: TopLocalization

    def boxes(self, indices: Sequence[int]) -> Tensor:
        """The boxes of some test images, `(n, 4)` in pixels."""
        return self.maps.subset(torch.tensor(list(indices))).cut(self.rule)

    def regions(self) -> Tensor:
        """Pixels above the rule's threshold, before components are selected, bool `(N, H, W)`."""
        maps = self.maps.upsampled()
        if self.rule.reference == "absolute":
            return maps > self.rule.threshold
        percent = self.rule.percentile if self.rule.reference == "percentile" else 100.0
        return maps > (self.rule.threshold * percentile(maps, percent)).to(maps)[:, None, None]

    def curve(self) -> tuple[Tensor, Tensor]:
        """GT-known localization over the threshold: thresholds and accuracies, `(T,)` each."""
        return self.metric.thresholds.clone(), self.metric.accuracy()[0, 0]

    def correct(self) -> Tensor:
        """Whether the box of every image is right at the rule's threshold, float64 `(N,)`."""
        gt_known = self.metric.statistic("gt_known", self.rule.threshold)
        return gt_known(torch.eye(len(self.maps), dtype=torch.float64))

    def evidence(self) -> dict[str, Statistic]:
        """The numbers of bae2020's tables as functions of image weights.

        Returns:
            `top1_cls`; `gt_known` and `top1_loc` at the rule's threshold; `gt_known_oracle` at each draw's best one;
            `pxap` where there are masks.
        """
        wrong = self.metric.statistic("top1_error", self.rule.threshold)
        named = self.maps.scores.argmax(dim=1) == self.maps.labels
        numbers: dict[str, Statistic] = {
            "top1_cls": mean_statistic(named),
            "gt_known": self.metric.statistic("gt_known", self.rule.threshold),
            "top1_loc": lambda weights: 1 - wrong(weights),
            "gt_known_oracle": self.metric.statistic("gt_known"),
        }
        if "masks" in self.maps.masks:
            pixels = PxAP(thresholds=200, per_image=True, sync_on_compute=False)
            for indices in torch.arange(len(self.maps)).split(_BATCH):
                rows = self.maps.subset(indices)
                pixels.update(rows.upsampled(), rows.masks["masks"], rows.masks.get("ignore"))
            numbers["pxap"] = pixels.statistic()
        return numbers


def tune_and_evaluate(
    held_out: LocalizationMaps,
    test: LocalizationMaps,
    rule: BoxRule,
    *,
    thresholds: int = 100,
    ks: Sequence[int] = (1,),
) -> LocalizationResult:
    """Evaluate boxes on test images, at the threshold with the best GT-known localization on held-out images.

    Args:
        held_out: Maps and truth of the held-out images.
        test: Maps and truth of the test images.
        rule: How a map becomes a box; its threshold is replaced, and maps are upsampled by their own `upsample`.
        thresholds: Number of thresholds `i / thresholds`.
        ks: The values of k for top-k localization.

    Example:
        >>> heat = torch.full((1, 8, 12), 0.4)
        >>> heat[0, 2:6, 3:9], heat[0, 0, 0] = 1.0, 0.0
        >>> truth = (torch.tensor([[0.9, 0.1]]), torch.tensor([0]), [torch.tensor([[3.0, 2.0, 9.0, 6.0]])], (8, 12))
        >>> maps = LocalizationMaps(heat, *truth)
        >>> result = tune_and_evaluate(maps, maps, BoxRule(), thresholds=20)
        >>> result.rule.threshold, result.boxes([0]).tolist()
        (0.4, [[3.0, 2.0, 9.0, 6.0]])
        >>> {name: float(number(torch.ones(1, 1))) for name, number in result.evidence().items()}
        {'top1_cls': 1.0, 'gt_known': 1.0, 'top1_loc': 1.0, 'gt_known_oracle': 1.0}
    """
    best = _evaluate(held_out, rule, thresholds, ks).best_threshold()
    return LocalizationResult(test, replace(rule, threshold=best), _evaluate(test, rule, thresholds, ks))


def at_threshold(result: LocalizationResult, threshold: float) -> LocalizationResult:
    """The same maps cut at a fixed threshold, as papers do, instead of the one from held-out images.

    Example:
        >>> truth = (torch.tensor([[0.9, 0.1]]), torch.tensor([0]), [torch.tensor([[3.0, 2.0, 9.0, 6.0]])], (8, 12))
        >>> maps = LocalizationMaps(torch.rand(1, 8, 12), *truth)
        >>> at_threshold(tune_and_evaluate(maps, maps, BoxRule()), 0.3).rule.threshold
        0.3
    """
    return replace(result, rule=replace(result.rule, threshold=threshold))


def area_ratios(result: LocalizationResult) -> Tensor:
    """Area of every predicted box divided by the true one's, `(N,)`: below 1 too small; an image without box has 0.

    Example:
        >>> heat = torch.zeros(1, 8, 12)
        >>> heat[0, 2:6, 3:6] = 1
        >>> truth = (torch.tensor([[0.9, 0.1]]), torch.tensor([0]), [torch.tensor([[3.0, 2.0, 9.0, 6.0]])], (8, 12))
        >>> maps = LocalizationMaps(heat, *truth)
        >>> area_ratios(tune_and_evaluate(maps, maps, BoxRule()))
        tensor([0.5000])
    """
    found = result.maps.cut(result.rule).float().nan_to_num(0)
    true = torch.stack([boxes[0] for boxes in result.maps.boxes]).to(found)
    return box_area(found) / box_area(true)


def _evaluate(maps: LocalizationMaps, rule: BoxRule, thresholds: int, ks: Sequence[int]) -> TopLocalization:
    metric = TopLocalization(ks=ks, rule=rule, thresholds=thresholds, per_image=True, sync_on_compute=False)
    for indices in torch.arange(len(maps)).split(_BATCH):
        rows = maps.subset(indices)
        metric.update(rows.upsampled(), rows.boxes, rows.scores, rows.labels)
    return metric
