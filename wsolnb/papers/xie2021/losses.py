"""Losses of ORNet: two heads, then evaluation, entropy and area (xie2021, https://arxiv.org/abs/2110.05741).

A map `p` holds every pixel's probability to show the object. Entropy pushes each pixel to a decision, area keeps the
region small, and the evaluation loss keeps what the class needs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Coarse(NamedTuple):
    """Output of stage one: class scores of the classifier and of the generator's own head, `(B, C)`."""

    scores: Tensor
    side_scores: Tensor


class Refined(NamedTuple):
    """Output of stage two.

    `scores` `(B, C)` are the evaluator's of the masked image, `maps` `(B, 1, h, w)` in [0, 1] are those before erasing,
    `evidence` `(B, C, h, w)` are the generator's features, one channel per class.
    """

    scores: Tensor
    maps: Tensor
    evidence: Tensor


def pixel_entropy(maps: Tensor) -> Tensor:
    """Entropy of every pixel: `H = -p log p - (1 - p) log(1 - p)` (xie2021 Eq. 12), in nats, 0 to log 2.

    Within the dtype's epsilon of 0 or 1 the entropy is constant, so that value and gradient stay finite.

    Raises:
        ValueError: If a value lies outside of [0, 1].

    Example:
        >>> pixel_entropy(torch.tensor([0.0, 0.5, 1.0])).round(decimals=4)
        tensor([0.0000, 0.6931, 0.0000])
    """
    _require_probabilities(maps)
    tiny = torch.finfo(maps.dtype).eps
    certain = maps.clamp(tiny, 1 - tiny)
    return torch.special.entr(certain) + torch.special.entr(1 - certain)


def uncertainty_weight(maps: Tensor, mean: float = 0.5, deviation: float = 0.1) -> Tensor:
    """Gaussian weight of every pixel: `γ = exp(-(p - μ)² / 2σ²)` (xie2021 Eq. 15), for maps of any shape.

    `μ` is the `mean`, `σ` the `deviation` (the paper calls it the variance).

    Raises:
        ValueError: If the deviation is not positive.

    Example:
        >>> uncertainty_weight(torch.tensor([0.2, 0.5, 0.6])).round(decimals=4)
        tensor([0.0111, 1.0000, 0.6065])
    """
    if not deviation > 0:
        raise ValueError(f"the deviation of the Gaussian weight must be above 0, got {deviation}")
    return torch.exp(-((maps - mean) ** 2) / (2 * deviation**2))


class EntropyLoss(nn.Module):
    """Mean entropy of the pixels, plain (xie2021 Eq. 13) or weighted by a Gaussian (Eqs. 14 and 15).

    The plain loss has its largest gradient at pixels that are nearly certain already, the weighted one between about
    0.2 and 0.8. Gradients flow through the weight too, as in the released code. `mean` and `deviation` are as for
    `uncertainty_weight`.

    Example:
        >>> EntropyLoss()(torch.tensor([[[[0.5, 0.5], [0.0, 1.0]]]])).round(decimals=4)
        tensor(0.3466)
    """

    def __init__(self, *, weighted: bool = True, mean: float = 0.5, deviation: float = 0.1) -> None:
        super().__init__()
        uncertainty_weight(torch.zeros(()), mean, deviation)
        self.weighted, self.mean, self.deviation = weighted, mean, deviation

    def forward(self, maps: Tensor) -> Tensor:
        """Mean over images and pixels of maps `(B, 1, h, w)` in [0, 1]."""
        entropy = pixel_entropy(maps)
        weight = uncertainty_weight(maps, self.mean, self.deviation) if self.weighted else 1.0
        return (weight * entropy).mean()

    def extra_repr(self) -> str:
        """The settings, for `repr`."""
        return f"weighted={self.weighted}, mean={self.mean}, deviation={self.deviation}"


class AreaLoss(nn.Module):
    """Area of the map: its mean (xie2021 Eq. 16).

    The released code adds a term that the paper lacks: the mean of the generator's channel, summed over the classes
    that the evaluator ranks 4th to 25th. `ranks=(4, 25)`, counted from 1, adds it; ranks beyond the number of classes
    are ignored.

    Raises:
        ValueError: If the ranks do not rise from at least 1, or there is no class of the first rank.

    Example:
        >>> refined = Refined(torch.zeros(1, 3), torch.tensor([[[[1.0, 0.0, 0.5]]]]), torch.zeros(1, 3, 1, 3))
        >>> AreaLoss()(refined)
        tensor(0.5000)
    """

    def __init__(self, ranks: tuple[int, int] | None = None) -> None:
        super().__init__()
        if ranks is not None and not 1 <= ranks[0] <= ranks[1]:
            raise ValueError(f"ranks of the extra area term must rise from at least 1, got {tuple(ranks)}")
        self.ranks = ranks

    def forward(self, outputs: Refined) -> Tensor:
        """Loss of stage two's output."""
        _require_probabilities(outputs.maps)
        area = outputs.maps.mean()
        if self.ranks is None:
            return area
        first, last = self.ranks
        if first > (classes := outputs.scores.shape[1]):
            raise ValueError(f"the extra area term starts at rank {first}, but there are {classes} classes")
        ranked = outputs.scores.argsort(dim=1, descending=True)[:, first - 1 : last]
        means = outputs.evidence.mean(dim=(2, 3)).gather(1, ranked)
        return area + means.sum(dim=1).mean()

    def extra_repr(self) -> str:
        """The settings, for `repr`."""
        return f"ranks={self.ranks}"


class TwoHeads(nn.Module):
    """Loss of stage one: cross-entropy of the classifier plus that of the generator's head (xie2021 Eqs. 5 and 6).

    Example:
        >>> loss = TwoHeads()(Coarse(torch.zeros(2, 4), torch.zeros(2, 4)), torch.tensor([0, 3]))
        >>> round(float(loss), 4)
        2.7726
    """

    def forward(self, outputs: Coarse, labels: Tensor) -> Tensor:
        """Sum of the two mean losses for labels, int64 `(B,)`."""
        return F.cross_entropy(outputs.scores, labels) + F.cross_entropy(outputs.side_scores, labels)

    def scores(self, outputs: Coarse) -> Tensor:
        """Softmax probabilities `(B, C)` of the classifier."""
        return outputs.scores.softmax(dim=1)


class RefinementLoss(nn.Module):
    """Loss of stage two: `L = L_e + α L_w(p) + β L_a(p)` (xie2021 Eq. 10).

    `L_e` is the evaluator's cross-entropy on the masked, erased image; entropy (by default weighted with `μ = 0.5`,
    `σ = 0.1`) and area (by default the paper's) are those before erasing.

    Raises:
        ValueError: If a weight is negative.

    Example:
        >>> half = Refined(torch.zeros(1, 2), torch.full((1, 1, 2, 3), 0.5), torch.zeros(1, 2, 2, 3))
        >>> round(float(RefinementLoss()(half, torch.tensor([1]))), 4)  # log 2 + 1.5 log 2 + 0.02 / 2
        1.7429
    """

    def __init__(
        self,
        alpha: float = 1.5,
        beta: float = 0.02,
        *,
        entropy: EntropyLoss | None = None,
        area: AreaLoss | None = None,
    ) -> None:
        super().__init__()
        if alpha < 0 or beta < 0:
            raise ValueError(f"the weights of entropy and area must be at least 0, got {alpha} and {beta}")
        self.alpha, self.beta = alpha, beta
        self.entropy, self.area = entropy or EntropyLoss(), area or AreaLoss()

    def forward(self, outputs: Refined, labels: Tensor) -> Tensor:
        """Scalar loss of stage two's output for labels, int64 `(B,)`."""
        loss = F.cross_entropy(outputs.scores, labels)
        if self.alpha:
            loss = loss + self.alpha * self.entropy(outputs.maps)
        if self.beta:
            loss = loss + self.beta * self.area(outputs)
        return loss

    def scores(self, outputs: Refined) -> Tensor:
        """Softmax probabilities `(B, C)` of the evaluator."""
        return outputs.scores.softmax(dim=1)

    def extra_repr(self) -> str:
        """The settings, for `repr`."""
        return f"alpha={self.alpha}, beta={self.beta}"


def _require_probabilities(maps: Tensor) -> None:
    low, high = (float(value) for value in maps.detach().aminmax())
    if low < 0 or high > 1:
        raise ValueError(f"activation maps must lie in [0, 1], not reach from {low:.4g} to {high:.4g}: apply a sigmoid")
