"""Cosine loss (barz2022, https://doi.org/10.5220/0010760800003124) and the class scores that follow from it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class CosineLoss(nn.Module):
    """Cosine loss: `L(x, c) = 1 - <x, φ(c)> / (‖x‖ ‖φ(c)‖)` (barz2022 Eq. 5), for class embeddings `φ`, float `(C, E)`.

    For one-hot ones, `torch.eye(C)`, the loss raises one entry of the L2-normalised output.

    Raises:
        ValueError: If the embeddings are no matrix, or one of them has length zero.

    Example:
        >>> import torch
        >>> loss = CosineLoss(torch.eye(3))
        >>> round(float(loss(torch.tensor([[3.0, 4.0, 0.0]]), torch.tensor([1]))), 4)
        0.2
    """

    embeddings: Tensor

    def __init__(self, embeddings: Tensor) -> None:
        super().__init__()
        if embeddings.ndim != 2:
            raise ValueError(f"class embeddings must be a matrix (C, E), got shape {tuple(embeddings.shape)}")
        if (lengths := embeddings.norm(dim=1)).min() == 0:
            raise ValueError(f"class {int(lengths.argmin())} has an embedding of length zero")
        self.register_buffer("embeddings", F.normalize(embeddings.float(), dim=1))

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of outputs `(B, E)` for labels, int64 `(B,)`; an output of length zero costs 1."""
        return 1 - (F.normalize(outputs, dim=1) * self.embeddings[labels]).sum(dim=1).mean()

    def scores(self, outputs: Tensor) -> Tensor:
        """Cosine similarities `(B, C)` to every class, in [-1, 1]."""
        return F.normalize(outputs, dim=1) @ self.embeddings.T
