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

    A cell is active above the fraction `threshold` of its channel's maximum.

    Example:
        >>> TAP(key="tap+nwc+pas", clamp=True, percentile=True).network
        'tap'
    """

    paper = "bae2020"
    network = "tap"
    threshold: float = 0.1

    def pool(self) -> nn.Module:
        """Thresholded average pooling."""
        return ThresholdedAveragePooling(self.threshold)


@dataclass(frozen=True, kw_only=True)
class HaS(CAM):
    """Class activation maps of a network from which patches of `patch` pixels are hidden while it trains.

    Example:
        >>> HaS(key="has", patch=8).network
        'has'
    """

    paper = "bae2020"
    network = "has"
    patch: int = 32

    def masked(self, backbone: Backbone) -> Backbone:
        """A copy that hides patches of its input."""
        return hide_and_seek(backbone, self.patch)


@dataclass(frozen=True, kw_only=True)
class ADL(CAM):
    """Class activation maps of a network trained with attention-based dropout.

    Cells at or above the fraction `threshold` of the largest attention are dropped.

    Example:
        >>> ADL(key="adl").network
        'adl'
    """

    paper = "bae2020"
    network = "adl"
    threshold: float = 0.8

    def masked(self, backbone: Backbone) -> Backbone:
        """A copy with dropout behind its published positions."""
        return attention_dropout(backbone, threshold=self.threshold)
