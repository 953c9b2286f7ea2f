"""The paper as a method: class activation maps of a network that was trained with maximum pooling."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from wsolnb.models.cam import GlobalMaxPooling
from wsolnb.papers.method import CAM


@dataclass(frozen=True, kw_only=True)
class MaxPooled(CAM):
    """Class activation maps of a network whose class scores are those of its strongest cell.

    A method overrides the steps that it changes. Here that is `pool`; `untrained` (network, objective, batches) and
    `reader` (images to maps and scores) are those of `CAM`.

    Example:
        >>> MaxPooled(key="max").pool()
        GlobalMaxPooling()
    """

    paper = "_template"
    network = "max"  # name of the training, under which other methods may read the same network

    def pool(self) -> nn.Module:
        """Global maximum pooling."""
        return GlobalMaxPooling()
