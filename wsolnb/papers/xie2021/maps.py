"""Maps of probabilities (xie2021): their readers, the tables' numbers, and how well they separate.

A class activation map is stretched to [0, 1] before it is cut, as it has no scale of its own. A generator's map ends in
a sigmoid, where 0.5 means "undecided" in every image. It is cut as it is, and one can measure how many pixels are
undecided and how much the boxes depend on the threshold.

Paper: https://arxiv.org/abs/2110.05741
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import torch  # noqa: F401 (for the examples)
from torch import Tensor

from wsolnb.localization.locate import LocalizationResult
from wsolnb.localization.maps import as_probabilities
from wsolnb.localization.read import FeatureReader, Labels
from wsolnb.metrics import mean_statistic
from wsolnb.metrics.bootstrap import Statistic

UNDECIDED = (0.2, 0.8)
"""Range of undecided values; in the paper, thresholds within it are equally good."""


class Maps(Protocol):
    """A network with one map per image."""

    def maps(self, images: Tensor) -> Tensor:
        """Maps `(B, 1, h, w)` in [0, 1] of RGB images in [0, 1], `(B, 3, H, W)`."""
        ...


def generator_readers(networks: Mapping[str, Maps], scores: Callable[[Tensor], Tensor]) -> dict[str, FeatureReader]:
    """Maps of generators, the same for all classes, with a classifier's scores of the unmasked image.

    Networks are in evaluation mode. `scores`, from images to class scores `(B, C)`, is the evaluator, which runs once
    for all of them.

    Example:
        >>> from wsolnb.models.cam import classifier
        >>> from wsolnb.papers.xie2021.network import stage_one
        >>> readers = generator_readers({"one": stage_one("tiny", 4, width=4).eval()}, classifier("tiny", 4).eval())
        >>> [part.shape for part in readers["one"](torch.rand(2, 3, 48, 64), None)]
        [torch.Size([2, 1, 24, 32]), torch.Size([2, 4])]
    """

    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        return images, scores(images)

    def readout(network: Maps, images_and_scores: tuple[Tensor, Tensor], labels: Labels | None) -> Any:
        images, class_scores = images_and_scores
        return network.maps(images), class_scores

    return {name: FeatureReader(forward, partial(readout, network)) for name, network in networks.items()}


def decided_fraction(maps: Tensor, undecided: tuple[float, float] = UNDECIDED) -> Tensor:
    """Fraction of the pixels of each map `(N, h, w)` outside of the undecided range, `(N,)`.

    Example:
        >>> decided_fraction(torch.tensor([[[0.1, 0.5, 0.9, 1.0]]]))
        tensor([0.7500])
    """
    low, high = undecided
    return ((maps < low) | (maps > high)).float().mean(dim=(1, 2))


def threshold_range(result: LocalizationResult, between: tuple[float, float] = UNDECIDED) -> Statistic:
    """Dependence on the threshold: best minus worst GT-known localization between two thresholds (xie2021 Fig. 11b).

    A fraction, as a function of image weights, of a result of `wsolnb.localization.locate.tune_and_evaluate`.

    Raises:
        ValueError: If boxes were not judged at one of the two thresholds.

    Example:
        >>> from wsolnb.localization.locate import tune_and_evaluate
        >>> from wsolnb.localization.maps import LocalizationMaps
        >>> sure, unsure = torch.zeros(2, 8, 12)
        >>> sure[2:6, 3:9], unsure[2:6, 3:9] = 0.9, 0.6
        >>> truth = (torch.zeros(2, 2), torch.tensor([0, 1]), [torch.tensor([[3.0, 2.0, 9.0, 6.0]])] * 2, (8, 12))
        >>> found = LocalizationMaps(torch.stack([sure, unsure]), *truth, upsample=as_probabilities)
        >>> from wsolnb.boxes import BoxRule
        >>> result = tune_and_evaluate(found, found, BoxRule(0.5, reference="absolute"))
        >>> float(threshold_range(result)(torch.ones(1, 2)))  # above 0.6 the second box is gone
        0.5
    """
    result.metric.require_images()
    first, last = (result.metric.index_of(t) for t in between)

    def spread(weights: Tensor) -> Tensor:
        curve = result.metric.resampled([0], weights, None)[:, 0, 0, first : last + 1]
        return curve.amax(dim=1) - curve.amin(dim=1)

    return spread


def evidence(result: LocalizationResult) -> dict[str, Statistic]:
    """The numbers of xie2021's tables, and two on separation, as functions of image weights.

    The result is from `wsolnb.localization.locate.tune_and_evaluate` with `ks=(1, 5)`. At the chosen threshold `corloc`
    (box right), `top1_loc_err` and `top5_loc_err` (box or class wrong); at every draw's best threshold `corloc_oracle`;
    `top1_cls_err` and `top5_cls_err`; for maps of probabilities `certain`, the fraction of decided pixels, and
    `wobble`, the range of `corloc` between thresholds 0.2 and 0.8.

    Example:
        >>> from wsolnb.localization.locate import tune_and_evaluate
        >>> from wsolnb.localization.maps import LocalizationMaps
        >>> heat = torch.zeros(1, 8, 12)
        >>> heat[0, 2:6, 3:9] = 0.9
        >>> truth = (torch.tensor([[0.1, 0.9]]), torch.tensor([0]), [torch.tensor([[3.0, 2.0, 9.0, 6.0]])], (8, 12))
        >>> found = LocalizationMaps(heat, *truth, upsample=as_probabilities)
        >>> from wsolnb.boxes import BoxRule
        >>> result = tune_and_evaluate(found, found, BoxRule(0.5, reference="absolute"), ks=(1, 5))
        >>> values = {name: float(number(torch.ones(1, 1))) for name, number in evidence(result).items()}
        >>> values["corloc"], values["top1_loc_err"], values["top5_loc_err"], values["certain"]
        (1.0, 1.0, 0.0, 1.0)
    """
    maps, chosen = result.maps, result.rule.threshold
    rank = (maps.scores > maps.scores.gather(1, maps.labels[:, None])).sum(dim=1)
    statistics = {
        "corloc": result.metric.statistic("gt_known", chosen),
        "top1_loc_err": result.metric.statistic("top1_error", chosen),
        "top5_loc_err": result.metric.statistic("top5_error", chosen),
        "top1_cls_err": mean_statistic(rank >= 1),
        "top5_cls_err": mean_statistic(rank >= 5),
        "corloc_oracle": result.metric.statistic("gt_known"),
    }
    if maps.upsample is as_probabilities:
        statistics |= {"certain": mean_statistic(decided_fraction(maps.maps)), "wobble": threshold_range(result)}
    return statistics
