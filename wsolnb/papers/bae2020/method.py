"""TAP, HaS and ADL as methods (bae2020, https://doi.org/10.1007/978-3-030-58555-6_37).

NWC and PaS need no training of their own: `CAM(clamp=True)`, `CAM(percentile=True)`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from wsolnb.models.backbones import Backbone
from wsolnb.papers.bae2020.masking import attention_dropout, hide_and_seek
from wsolnb.papers.bae2020.pooling import ThresholdedAveragePooling
from wsolnb.papers.method import CAM


@dataclass(frozen=True, kw_only=True)
class TAP(CAM):
    """Class activation maps of a network trained with thresholded average pooling (bae2020 Eq. 4).

    Args:
        threshold: A cell is active above this fraction of its channel's maximum.

    Example:
        >>> TAP(key="tap+nwc+pas", clamp=True, percentile=True).network
        'tap'
    """

    paper = "bae2020"
    threshold: float = 0.1

    @property
    def network(self) -> str:
        """Name of the training."""
        return "tap"

    def pool(self) -> nn.Module:
        """Thresholded average pooling."""
        return ThresholdedAveragePooling(self.threshold)


@dataclass(frozen=True, kw_only=True)
class HaS(CAM):
    """Class activation maps of a network from which patches are hidden while it trains (Hide-and-Seek).

    Args:
        patch: Side of a hidden patch in pixels.

    Example:
        >>> HaS(key="has", patch=8).network
        'has'
    """

    paper = "bae2020"
    patch: int = 32

    @property
    def network(self) -> str:
        """Name of the training."""
        return "has"

    def masked(self, backbone: Backbone) -> Backbone:
        """A copy that hides patches of its input."""
        return hide_and_seek(backbone, self.patch)


@dataclass(frozen=True, kw_only=True)
class ADL(CAM):
    """Class activation maps of a network trained with attention-based dropout.

    Args:
        threshold: Fraction of the largest attention from which a cell is dropped.

    Example:
        >>> ADL(key="adl").network
        'adl'
    """

    paper = "bae2020"
    threshold: float = 0.8

    @property
    def network(self) -> str:
        """Name of the training."""
        return "adl"

    def masked(self, backbone: Backbone) -> Backbone:
        """A copy with dropout behind its published positions."""
        return attention_dropout(backbone, threshold=self.threshold)
