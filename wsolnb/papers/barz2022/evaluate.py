"""The grid of three networks and three readings of barz2022, its thresholds and its numbers.

Paper: https://doi.org/10.5220/0010760800003124
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from wsolnb.boxes import BoxRule
from wsolnb.localization.maps import SceneMaps
from wsolnb.metrics.bootstrap import Statistic
from wsolnb.metrics.detection import DetectionAP
from wsolnb.metrics.ilsvrc import GuessLocalizationError

NETWORKS = {
    "cross-entropy": ("cam", "cam-cellwise", "dcm-softmax"),
    "cosine, one-hot": ("cosine-cam", "cosine-cam-cellwise", "dcm-onehot"),
    "cosine, semantic": ("semantic-cam", "semantic-cam-cellwise", "dcm-semantic"),
}
"""The three readings of each network: class activation map with pooled and with cell-wise scores, dense class map."""


def with_controls(found: Mapping[str, SceneMaps]) -> dict[str, SceneMaps]:
    """All nine readings of three networks, from the six that differ in maps, and `dcm-onehot-no-vote`.

    Between class activation map and dense class map, which differ in maps and scores, stands the one with the maps,
    and so the boxes, of the former and the scores of the latter (Eq. 8). The tenth reading is `dcm-onehot` without the
    indicator of Eq. 8: a class scores by its best cell, whether or not that cell prefers another class.

    Example:
        >>> cam = SceneMaps([torch.rand(2, 1, 3)], torch.tensor([[0.9, 0.1]]), torch.tensor([[10, 30]]), [{}])
        >>> dense = SceneMaps([torch.rand(2, 1, 3)], torch.tensor([[0.75, 0.0]]), torch.tensor([[10, 30]]), [{}])
        >>> found = {name: dense if name.startswith("dcm") else cam for row in NETWORKS.values() for name in row}
        >>> readings = with_controls(found)
        >>> len(readings), readings["cam-cellwise"].scores.tolist()
        (10, [[0.75, 0.0]])
    """
    readings: dict[str, SceneMaps] = {}
    for pooled, cellwise, dense in NETWORKS.values():
        readings |= {pooled: found[pooled], cellwise: replace(found[pooled], scores=found[dense].scores)}
        readings[dense] = found[dense]
    onehot = found["dcm-onehot"]
    best = torch.stack([maps.amax(dim=(1, 2)) for maps in onehot.maps])
    return readings | {"dcm-onehot-no-vote": replace(onehot, scores=best)}


def tune_single(found: SceneMaps, rule: BoxRule, thresholds: Sequence[float], *, k: int = 5) -> dict[float, float]:
    """Localization error of the `k` best-scored guesses for every threshold of the box rule (barz2022 Sec. 4.3).

    For images with one object each, not those of the test; `min(curve, key=curve.get)` is the best threshold. Only the
    maps of the true classes are cut: `wsolnb.metrics.GuessLocalizationError` at IoU 0.5, for many thresholds at once.

    Example:
        >>> truth = {"boxes": torch.tensor([[10.0, 0.0, 20.0, 10.0]]), "labels": torch.tensor([0])}
        >>> found = SceneMaps([torch.tensor([[[0.4, 1.0]]])], torch.tensor([[0.7]]), torch.tensor([[10, 20]]), [truth])
        >>> tune_single(found, BoxRule.preset("dcm"), [0.2, 0.6])
        {0.2: 0.0, 0.6: 0.0}
    """
    labels = torch.cat([target["labels"].as_subclass(Tensor) for target in found.targets])
    boxes = torch.cat([target["boxes"].as_subclass(Tensor) for target in found.targets])
    own = found.scores.gather(1, labels[:, None])
    guessed = ((found.scores > own).sum(dim=1) < k) & (own[:, 0] > 0)
    right = torch.zeros(len(thresholds), len(found), dtype=torch.bool)
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, (maps, size) in enumerate(zip(found.maps, found.sizes.tolist(), strict=True)):
        groups[(*maps.shape[1:], *size)].append(index)
    for indices in groups.values():
        maps = torch.stack([found.maps[i][labels[i]] for i in indices])[:, None]
        cut = rule.at_thresholds(maps, found.sizes[indices], thresholds)[:, :, 0]
        for row, at in zip(right, cut, strict=True):
            overlap = box_iou(at.double(), boxes[indices].double()).diagonal()
            row[indices] = overlap.nan_to_num(0) >= 0.5
    errors = 1 - (right & guessed).double().mean(dim=1)
    return dict(zip(thresholds, errors.tolist(), strict=True))


@dataclass(frozen=True)
class Scale:
    """How well values tell yes from no, with one threshold for all images or with one for each image.

    Accuracy is balanced, `(TPR + TNR) / 2` over all values of all images. Both kinds of thresholds are chosen with the
    truth of these very images: the question is whether the values of different images share a scale.

    Args:
        best: The best threshold for all images.
        passed: Values above the threshold, float64 `(2, 2, N)`: those that should not and those that should, with the
            threshold for all and with the image's own.
        totals: All values of the two kinds, float64 `(2, N)`.

    Example:
        >>> values = [torch.tensor([0.4, 0.1]), torch.tensor([0.9, 0.6])]  # each image has a scale of its own
        >>> scale = Scale.of(values, [torch.tensor([True, False])] * 2)
        >>> [statistic(torch.ones(1, 2)).item() for statistic in scale.statistics()]
        [0.75, 1.0]
    """

    best: float
    passed: Tensor
    totals: Tensor

    @classmethod
    def of(cls, values: Sequence[Tensor], truth: Sequence[Tensor], *, steps: int = 500) -> Scale:
        """Of one tensor of values per image, and as many truths (bool); `steps` quantiles are tried as thresholds."""
        image = torch.arange(len(values)).repeat_interleave(torch.tensor([v.numel() for v in values]))
        flat, true = torch.cat([v.flatten() for v in values]).double(), torch.cat([t.flatten() for t in truth])
        quantiles = torch.quantile(flat, torch.linspace(0, 1, steps).double(), interpolation="lower").unique()
        levels = torch.cat([quantiles[:1] - 1, quantiles])
        counts = torch.zeros(2, len(values), len(levels) + 1, dtype=torch.float64)
        where = (true.long(), image, torch.searchsorted(levels, flat))
        counts.index_put_(where, torch.ones_like(flat), accumulate=True)
        passed, totals = counts.flip(2).cumsum(2).flip(2)[..., 1:], counts.sum(2)
        share = passed / totals.sum(1)[:, None, None]
        gain = share[1] - share[0]
        common = gain.sum(0).argmax()
        chosen = torch.stack([common.expand(len(values)), gain.argmax(1)])  # (2, N)
        picked = passed.gather(2, chosen.T.expand(2, -1, -1)).transpose(1, 2)
        return cls(float(levels[common : common + 2].mean()), picked, totals)

    def statistics(self) -> tuple[Statistic, Statistic]:
        """Balanced accuracy as a function of image weights, with one threshold for all images and with one for each."""
        return self._accuracy(0), self._accuracy(1)

    def _accuracy(self, own: int) -> Statistic:
        (false, true), (no, yes) = self.passed[:, own], self.totals
        return lambda weights: (1 + _share(weights, true, yes) - _share(weights, false, no)) / 2

    @property
    def accuracies(self) -> tuple[float, float]:
        """Balanced accuracy on the images as they are, with one threshold for all and with one for each."""
        once = torch.ones(1, self.totals.shape[1])
        one, own = (float(statistic(once)) for statistic in self.statistics())
        return one, own


def _share(weights: Tensor, part: Tensor, whole: Tensor) -> Tensor:
    return (weights.to(part) @ part) / (weights.to(part) @ whole)


def presence_scale(found: SceneMaps) -> Scale:
    """Whether scores say which classes an image shows; `best` is a threshold for presence, `ϑ_score` of Sec. 3.2.

    Example:
        >>> truth = [{"labels": torch.tensor([0])}, {"labels": torch.tensor([1])}]
        >>> scores = torch.tensor([[0.9, 0.5], [0.1, 0.7]])
        >>> round(presence_scale(SceneMaps([], scores, torch.zeros(2, 2), truth)).best, 3)
        0.6
    """
    present = torch.zeros_like(found.scores, dtype=torch.bool)
    for row, target in zip(present, found.targets, strict=True):
        row[target["labels"].as_subclass(Tensor)] = True
    return Scale.of(list(found.scores), list(present))


def cell_scale(maps: Sequence[Tensor], covered: Sequence[Tensor]) -> Scale:
    """Whether one number per cell, `(h, w)`, tells cells on objects from cells on ground (barz2022 Fig. 2).

    `covered` is the fraction of each cell that objects cover: above one half is an object, 0 is ground, and cells
    between are left out.

    Example:
        >>> cell_scale([torch.tensor([[0.9, 0.6, 0.2]])], [torch.tensor([[1.0, 0.3, 0.0]])]).accuracies
        (1.0, 1.0)
    """
    known = [(c == 0) | (c > 0.5) for c in covered]
    return Scale.of(
        [m[k] for m, k in zip(maps, known, strict=True)], [c[k] > 0.5 for c, k in zip(covered, known, strict=True)]
    )


def covered_cells(found: SceneMaps) -> list[Tensor]:
    """Fraction of every cell that objects cover, float `(h, w)` per image: their masks, or boxes where there are none.

    Example:
        >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 15.0, 10.0]])}
        >>> covered_cells(SceneMaps([torch.zeros(3, 1, 2)], torch.zeros(1, 3), torch.tensor([[10, 20]]), [truth]))
        [tensor([[1.0000, 0.5000]])]
    """
    covered = []
    for maps, (height, width), target in zip(found.maps, found.sizes.tolist(), found.targets, strict=True):
        if "masks" in target:
            mask = target["masks"].as_subclass(Tensor).any(dim=0)
        else:
            x, y = torch.arange(width) + 0.5, torch.arange(height)[:, None] + 0.5
            x0, y0, x1, y1 = target["boxes"].as_subclass(Tensor)[:, :, None, None].unbind(1)
            mask = ((x > x0) & (x < x1) & (y > y0) & (y < y1)).any(dim=0)
        _, h, w = maps.shape
        covered.append(F.adaptive_avg_pool2d(mask[None].float(), (h, w))[0])
    return covered


def evidence(
    judged: DetectionAP,
    single: GuessLocalizationError,
    found: SceneMaps,
    covered: Sequence[Tensor],
    box_threshold: float,
) -> dict[str, Statistic]:
    """The numbers of barz2022's claims as functions of image weights, by the names in `papers/barz2022/paper.yaml`.

    `judged` holds detections in scenes at IoU 0, 0.25 and 0.5, `single` guesses on images with one object; `found` are
    the maps and scores of the scenes, `covered` the fraction of each of their cells that objects cover.

    Example:
        >>> truth = {"boxes": torch.tensor([[10.0, 0.0, 20.0, 10.0]]), "labels": torch.tensor([0])}
        >>> guess = {"boxes": truth["boxes"], "labels": truth["labels"], "scores": torch.tensor([0.7])}
        >>> judged, single = DetectionAP(classes=2, iou_thresholds=(0, 0.25, 0.5)), GuessLocalizationError(classes=2)
        >>> judged.update([guess], [truth])
        >>> single.update([guess], [truth])
        >>> found = SceneMaps([torch.tensor([[[0.1, 0.7]]] * 2)], torch.eye(2)[:1], torch.tensor([[10, 20]]), [truth])
        >>> numbers = evidence(judged, single, found, covered_cells(found), 0.5)
        >>> {name: float(statistic(torch.ones(1, 1))) for name, statistic in numbers.items()}["max_recall"]
        1.0
    """
    pooled = judged.ranking(0.25).pooled()
    presence, presence_own = presence_scale(found).statistics()
    cells, cells_own = cell_scale([m.amax(0) for m in found.maps], covered).statistics()
    found_in, positives_in = (
        torch.bincount(image, minlength=pooled.images).double()
        for image in (pooled.image[pooled.right & ~pooled.ignored], pooled.positive_image)
    )
    return {
        "ap0": judged.statistic(0),
        "ap25": judged.statistic(0.25),
        "ap50": judged.statistic(0.5),
        "p_at_r30": lambda weights: pooled.precision(torch.tensor([0.3]), weights)[:, 0, 0],
        "mean_precision": lambda weights: pooled.precision(TENTHS, weights)[:, 0].mean(dim=1),
        "max_recall": lambda weights: _share(weights, found_in, positives_in),
        "top5_loc_error": single.statistic(),
        "box_threshold": lambda weights: torch.full((len(weights),), box_threshold),
        "presence": presence,
        "presence_own": presence_own,
        "scale_cost": lambda weights: presence_own(weights) - presence(weights),
        "cells": cells,
        "cells_own": cells_own,
    }


TENTHS = torch.arange(1, 10) / 10
"""Recalls at which precisions are averaged; one that is not reached counts as precision 0."""


def background_similarity(raw: SceneMaps, counts: Sequence[int]) -> dict[int, float]:
    """Median similarity of background cells to their nearest class, by number of classes `C` in `counts`.

    `raw` holds maps `W·ψ + b` of a one-hot cosine network, from `cosine_cam_reader`, whose outputs are truncated to the
    first `C` classes before they are normalised: networks with fewer outputs.

    Example:
        >>> truth = {"boxes": torch.tensor([[10.0, 0.0, 20.0, 10.0]]), "labels": torch.tensor([0])}
        >>> outputs = torch.tensor([[[3.0, 1.0]], [[4.0, 0.0]]])  # two classes, 1 x 2 cells
        >>> raw = SceneMaps([outputs], torch.zeros(1, 2), torch.tensor([[10, 20]]), [truth])
        >>> {c: round(s, 2) for c, s in background_similarity(raw, [1, 2]).items()}
        {1: 1.0, 2: 0.8}
    """
    cells = []
    for maps, size, target in zip(raw.maps, raw.sizes, raw.targets, strict=True):
        (h, w), (height, width) = maps.shape[1:], size.tolist()
        y, x = (torch.arange(h) + 0.5) * height / h, (torch.arange(w) + 0.5) * width / w
        x0, y0, x1, y1 = target["boxes"].as_subclass(Tensor)[:, :, None].unbind(1)
        inside = ((y >= y0) & (y < y1))[:, :, None] & ((x >= x0) & (x < x1))[:, None, :]
        cells.append(maps[:, ~inside.any(dim=0).to(maps.device)])
    outputs = torch.cat(cells, dim=1).float()
    return {c: float(F.normalize(outputs[:c], dim=0).amax(dim=0).median()) for c in counts}
