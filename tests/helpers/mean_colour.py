"""A network of a few weights, which trains in no time."""

from __future__ import annotations

import torch
from torch import nn


class MeanColour(nn.Module):
    """A linear layer on the mean colour, the same in every instance.

    Example:
        >>> MeanColour(4)(torch.rand(2, 3, 5, 7)).shape
        torch.Size([2, 4])
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(3, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.mean((2, 3)))
