"""Losses of classifiers, and how to read class scores from an output trained with each.

An objective is called with outputs and labels and gives a scalar; its `scores` turns outputs into one comparable
number per class, which is what predictions, accuracies and maps are made from.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Objective(Protocol):
    """What the training loop asks of a loss."""

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of outputs `(B, E)` for labels, int64 `(B,)`."""
        ...

    def scores(self, outputs: Tensor) -> Tensor:
        """Class scores `(B, C)` of outputs `(B, E)`."""
        ...


class CrossEntropy(nn.Module):
    """Cross-entropy after softmax: `L = -log softmax(W·ψ + b)_c` (barz2022 Eqs. 1 and 2).

    Example:
        >>> import torch
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


_LEAST = -100.0  # where a logarithm is cut off


class MultiLabelCrossEntropy(nn.Module):
    r"""Cross-entropy of every class on its own (bency2016 Eq. 1).

    `J = -1/K Σ_k [p_k log p̂_k + (1 - p_k) log(1 - p̂_k)]`, with `p̂` the softmax of the outputs, as the paper has it, or
    their sigmoid. A softmax adds up to 1 over the classes, so the probabilities `p` of the truth are shared there among
    the classes that an image shows: 1/2 each for two. With a sigmoid each of them is 1.

    Args:
        output: `softmax` or `sigmoid`.

    Raises:
        ValueError: For another output.

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
        """What tells two losses apart in the key of cached weights."""
        return self.output

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over images and classes.

        Args:
            outputs: Logits `(B, K)`.
            labels: `(B, K)`: 1 where the image shows the class, 0 where not, NaN where that is not known (such as
                difficult objects of VOC), which counts for nothing.

        Raises:
            ValueError: If the shapes differ.
        """
        if labels.shape != outputs.shape:
            raise ValueError(f"labels {tuple(labels.shape)} do not fit outputs {tuple(outputs.shape)}")
        known = labels.isfinite()
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        truth = labels.nan_to_num().to(outputs)
        if self.output == "softmax":
            truth = truth / truth.sum(dim=1, keepdim=True).clamp(min=1)
            logs = outputs.log_softmax(dim=1)
            others = torch.log1p(-logs.exp().clamp(max=1 - 1e-6))
        else:
            logs, others = nn.functional.logsigmoid(outputs), nn.functional.logsigmoid(-outputs)
        each = -(truth * logs.clamp(min=_LEAST) + (1 - truth) * others.clamp(min=_LEAST))
        return (each * known).sum() / known.sum().clamp(min=1)

    def scores(self, outputs: Tensor) -> Tensor:
        """Class probabilities `(B, K)` of logits `(B, K)`."""
        return outputs.softmax(dim=1) if self.output == "softmax" else outputs.sigmoid()
