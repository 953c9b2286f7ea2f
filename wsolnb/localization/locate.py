"""One object per image: read the map of the true class from a classifier, cut one box out of it, and judge that.

    images -> features -> the true class's map, for one or more sets of head weights -> box rule -> right or wrong

A set of weights is one way to read the same network: all of them (class activation maps), the negative ones clamped to
zero, or the negative ones alone. The network runs once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wsolnb.boxes import BoxRule
from wsolnb.boxes.quantise import percentile
from wsolnb.localization.maps import ObjectMaps
from wsolnb.localization.read import _BATCH
from wsolnb.metrics.bootstrap import Statistic
from wsolnb.metrics.pixels import PxAP
from wsolnb.metrics.topk import TopLocalization


@dataclass(frozen=True)
class Located:
    """One way to cut boxes out of maps, with the threshold that was best on held-out images.

    Args:
        found: Maps and truth of the test images.
        rule: How a map becomes a box, with that threshold.
        judged: GT-known and top-1 localization of the test images at all thresholds.
    """

    found: ObjectMaps
    rule: BoxRule
    judged: TopLocalization

    def boxes(self, indices: Sequence[int]) -> Tensor:
        """The boxes of some test images, `(n, 4)` in pixels of the frame."""
        return self.found.part(torch.tensor(list(indices))).cut(self.rule)

    def regions(self) -> Tensor:
        """What the rule keeps of every test image before it looks for the largest piece, bool `(N, H, W)`."""
        maps = self.found.enlarged()
        percent = self.rule.percentile if self.rule.reference == "percentile" else 100.0
        return maps > (self.rule.threshold * percentile(maps, percent)).to(maps)[:, None, None]

    def curve(self) -> tuple[Tensor, Tensor]:
        """GT-known localization over the threshold: thresholds and accuracies, `(T,)` each."""
        return self.judged.thresholds.clone(), self.judged.accuracy()[0, 0]

    def evidence(self) -> dict[str, Statistic]:
        """The numbers of bae2020's tables as functions of image weights.

        Returns:
            `top1_cls`; `gt_known` and `top1_loc` at the rule's threshold; `gt_known_oracle` at the best one of every
            draw; `pxap` where masks are known.
        """
        wrong = self.judged.statistic("top1_error", self.rule.threshold)
        named = (self.found.scores.argmax(dim=1) == self.found.labels).double()
        numbers: dict[str, Statistic] = {
            "top1_cls": lambda weights: weights.double() @ named / weights.double().sum(dim=1),
            "gt_known": self.judged.statistic("gt_known", self.rule.threshold),
            "top1_loc": lambda weights: 1 - wrong(weights),
            "gt_known_oracle": self.judged.statistic("gt_known"),
        }
        if "masks" in self.found.masks:
            pixels = PxAP(thresholds=200, per_image=True)
            for part in torch.arange(len(self.found)).split(_BATCH):
                rows = self.found.part(part)
                pixels.update(rows.enlarged(), rows.masks["masks"], rows.masks.get("ignore"))
            numbers["pxap"] = pixels.statistic()
        return numbers


def locate(
    held: ObjectMaps, test: ObjectMaps, rule: BoxRule, *, thresholds: int = 100, ks: Sequence[int] = (1,)
) -> Located:
    """Judge boxes on test images, at the threshold that is best for GT-known localization on held-out images.

    Args:
        held: Maps and truth of the held-out images.
        test: Maps and truth of the test images.
        rule: How a map becomes a box. Its own threshold is replaced; maps are enlarged and stretched as by
            `ObjectMaps.enlarged`.
        thresholds: Number of thresholds `i / thresholds`.
        ks: The values of k for top-k localization.

    Example:
        >>> heat = torch.full((1, 8, 12), 0.4)
        >>> heat[0, 2:6, 3:9], heat[0, 0, 0] = 1.0, 0.0
        >>> truth = (torch.tensor([[0.9, 0.1]]), torch.tensor([0]), [torch.tensor([[3.0, 2.0, 9.0, 6.0]])], (8, 12))
        >>> found = ObjectMaps(heat, *truth)
        >>> located = locate(found, found, BoxRule(), thresholds=20)
        >>> located.rule.threshold, located.boxes([0]).tolist()
        (0.4, [[3.0, 2.0, 9.0, 6.0]])
        >>> {name: float(number(torch.ones(1, 1))) for name, number in located.evidence().items()}
        {'top1_cls': 1.0, 'gt_known': 1.0, 'top1_loc': 1.0, 'gt_known_oracle': 1.0}
    """
    best = _judged(held, rule, thresholds, ks).best_threshold()
    return Located(test, replace(rule, threshold=best), _judged(test, rule, thresholds, ks))


def _judged(found: ObjectMaps, rule: BoxRule, thresholds: int, ks: Sequence[int]) -> TopLocalization:
    metric = TopLocalization(ks=ks, rule=rule, thresholds=thresholds, per_image=True)
    for part in torch.arange(len(found)).split(_BATCH):
        rows = found.part(part)
        metric.update(rows.enlarged(), rows.boxes, rows.scores, rows.labels)
    return metric
