"""Erase a part of an activation map while training, so that the rest is learned too (xie2021 Sec. 3.2.2, Fig. 7).

Four strategies, from the simplest to the paper's, each for a whole batch of maps of any shape.

Paper: https://arxiv.org/abs/2110.05741
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsolnb._utils.whole_batch import draw_rows

STRATEGIES = {
    "random": "a rectangle anywhere (Fig. 7a)",
    "threshold": "all pixels above a threshold (Fig. 7b)",
    "rectangle": "the pixels above it in a rectangle around the peak (Fig. 7c)",
    "attentive": "some of these, at random (Fig. 7d): the paper's own",
}


class Erasing(nn.Module):
    """Set a part of each map to 0 while training; the identity in evaluation mode.

    Attentive erasing: candidates are the pixels above a threshold inside a rectangle centred at the map's peak; each is
    dropped with probability 0.5. The paper leaves the threshold and the size of the rectangle open. Here the threshold
    lies a random fraction of the way from the map's lowest to its highest value (as in the released code), and the
    sides of the rectangle are random fractions of the candidates' extent. Gradients flow through the kept pixels only.

    Args:
        rate: Probability that a candidate of attentive erasing is dropped.
        threshold: Range of the threshold, drawn per image, as fractions of the way from lowest to highest value.

    Raises:
        ValueError: For an unknown strategy, or a fraction or a probability outside of [0, 1].

    Example:
        >>> maps = torch.tensor([[[[0.1, 0.9, 0.8], [0.1, 0.1, 0.1]]]])
        >>> Erasing("threshold", threshold=(0.5, 0.5))(maps)
        tensor([[[[0.1000, 0.0000, 0.0000],
                  [0.1000, 0.1000, 0.1000]]]])
    """

    def __init__(
        self,
        strategy: str = "attentive",
        *,
        rate: float = 0.5,
        threshold: tuple[float, float] = (0.5, 1.0),
    ) -> None:
        super().__init__()
        if strategy not in STRATEGIES:
            raise ValueError(f"unknown erasing {strategy!r}; known: {', '.join(STRATEGIES)}")
        if not 0 <= threshold[0] <= threshold[1] <= 1:
            raise ValueError(f"the threshold's range must rise within [0, 1], got {tuple(threshold)}")
        if not 0 <= rate <= 1:
            raise ValueError(f"rate must lie between 0 and 1, got {rate}")
        self.strategy, self.rate, self.threshold = strategy, rate, threshold

    def forward(self, maps: Tensor) -> Tensor:
        """Erase in maps `(B, 1, h, w)`, not in place."""
        return maps.masked_fill(self.dropped(maps), 0) if self.training else maps

    @torch.no_grad()
    def dropped(self, maps: Tensor) -> Tensor:
        """Draw the pixels to erase, bool `(B, 1, h, w)`, in either mode.

        Raises:
            ValueError: If the maps are not `(B, 1, h, w)`.
        """
        if maps.ndim != 4 or maps.shape[1] != 1:
            raise ValueError(f"erasing takes one map per image, (B, 1, h, w), got {tuple(maps.shape)}")
        if self.strategy == "random":
            return self._anywhere(maps)
        region = self._bright(maps)
        if self.strategy != "threshold":
            region &= self._around_peak(maps, region)
        if self.strategy == "attentive":
            region &= self._uniform(maps, *maps.shape[2:]) < self.rate
        return region

    def _bright(self, maps: Tensor) -> Tensor:
        low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
        first, last = self.threshold
        return maps > low + (high - low) * (first + (last - first) * self._uniform(maps))

    def _around_peak(self, maps: Tensor, region: Tensor) -> Tensor:
        """A rectangle around the peak; its sides are random fractions of the region's extent."""
        peak = maps.flatten(2).argmax(dim=2)[..., None, None]
        y, x = _coordinates(maps)
        rows = region.any(dim=3, keepdim=True).sum(dim=2, keepdim=True)
        columns = region.any(dim=2, keepdim=True).sum(dim=3, keepdim=True)
        near_y = (y - peak // maps.shape[3]).abs() <= self._uniform(maps) * rows / 2
        return near_y & ((x - peak % maps.shape[3]).abs() <= self._uniform(maps) * columns / 2)

    def _anywhere(self, maps: Tensor) -> Tensor:
        """A rectangle anywhere inside the map; its sides are random fractions, up to a half, of the map's."""
        inside = torch.ones_like(maps, dtype=torch.bool)
        for places, length in zip(_coordinates(maps), maps.shape[2:], strict=True):
            side = 1 + self._uniform(maps) * (length / 2 - 1)
            start = self._uniform(maps) * (length - side)
            inside = inside & (places + 0.5 > start) & (places + 0.5 < start + side)
        return inside

    @staticmethod
    def _uniform(maps: Tensor, height: int = 1, width: int = 1) -> Tensor:
        return draw_rows(len(maps), lambda n: torch.rand(n, 1, height, width, device=maps.device))

    def extra_repr(self) -> str:
        """The settings, for `repr`."""
        return f"{self.strategy!r}, rate={self.rate}, threshold={tuple(self.threshold)}"


def _coordinates(maps: Tensor) -> tuple[Tensor, Tensor]:
    height, width = maps.shape[2:]
    return torch.arange(height, device=maps.device)[:, None], torch.arange(width, device=maps.device)
