"""Losses of classifiers: cross-entropy, for one label per image and for several.

An objective maps outputs and labels to a scalar; its `scores` turns outputs into comparable class scores, from which
predictions, accuracies and maps are made.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolnb._utils.whole_batch import gather


class Objective(Protocol):
    """What the training loop requires of a loss."""

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of outputs `(B, E)` for labels, int64 `(B,)`."""

    def scores(self, outputs: Tensor) -> Tensor:
        """Class scores `(B, C)` of outputs `(B, E)`."""


class CrossEntropy(nn.Module):
    """Cross-entropy after softmax: `L = -log softmax(W·ψ + b)_c` (barz2022 Eqs. 1 and 2).

    Example:
        >>> loss = CrossEntropy()
        >>> round(float(loss(torch.zeros(2, 4), torch.tensor([0, 3]))), 4)
        1.3863
    """

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of logits `(B, C)` for labels, int64 `(B,)`."""
        return F.cross_entropy(outputs, labels)

    def scores(self, outputs: Tensor) -> Tensor:
        """Softmax probabilities `(B, C)`."""
        return outputs.softmax(dim=1)


_MIN_LOG = -100.0  # lower bound of a logarithm, as in PyTorch's binary cross-entropy


class MultiLabelCrossEntropy(nn.Module):
    r"""Binary cross-entropy over the classes of an image.

    `J = -1/K Σ_k [p_k log p̂_k + (1 - p_k) log(1 - p̂_k)]`, with `p̂` the softmax of the outputs, as in the paper, or
    their sigmoid. A softmax sums to 1 over the classes, so there the target `p` is divided by the number of classes in
    the image: 1/2 each for two. With a sigmoid, each of them is 1.

    Raises:
        ValueError: For another output than `softmax` and `sigmoid`.

    Example:
        >>> loss = MultiLabelCrossEntropy("sigmoid")
        >>> round(float(loss(torch.zeros(2, 4), torch.eye(4)[:2])), 4)
        0.6931
        >>> MultiLabelCrossEntropy("softmax").scores(torch.zeros(1, 4))
        tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """

    def __init__(self, output: Literal["softmax", "sigmoid"] = "softmax") -> None:
        super().__init__()
        if output not in ("softmax", "sigmoid"):
            raise ValueError(f"output must be 'softmax' or 'sigmoid', not {output!r}")
        self.output = output

    def extra_repr(self) -> str:
        """The output, which is part of the key of cached weights."""
        return self.output

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over images and classes of logits `(B, K)`.

        Labels `(B, K)` are 1 for classes in the image, 0 for absent ones, NaN for unknown ones (such as difficult
        objects of VOC), which are left out.

        Raises:
            ValueError: If the shapes differ.
        """
        if labels.shape != outputs.shape:
            raise ValueError(f"labels {tuple(labels.shape)} do not fit outputs {tuple(outputs.shape)}")
        finite = labels.isfinite()
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        target = labels.nan_to_num().to(outputs)
        if self.output == "softmax":
            target = target / target.sum(dim=1, keepdim=True).clamp(min=1)
            log_p = outputs.log_softmax(dim=1)
            log_not_p = torch.log1p(-log_p.exp().clamp(max=1 - 1e-6))
        else:
            log_p, log_not_p = F.logsigmoid(outputs), F.logsigmoid(-outputs)
        terms = -(target * log_p.clamp(min=_MIN_LOG) + (1 - target) * log_not_p.clamp(min=_MIN_LOG))
        known = gather(finite.sum(dim=1))  # of every image of the batch
        share = len(labels) / len(known)
        return (terms * finite).sum() / (known.sum() * share).clamp(min=share)

    def scores(self, outputs: Tensor) -> Tensor:
        """Class probabilities `(B, K)` of logits `(B, K)`."""
        return outputs.softmax(dim=1) if self.output == "softmax" else outputs.sigmoid()
