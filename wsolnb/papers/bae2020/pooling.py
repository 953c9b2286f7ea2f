"""Thresholded average pooling (bae2020): features `(B, D, h, w)` to `(B, D)`, for any backbone and any linear head.

The pooling of the training decides how the weights of different channels compare, and so what class activation maps
show. Average and maximum pooling are in `wsolnb.models.cam`. Paper: https://doi.org/10.1007/978-3-030-58555-6_37
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ThresholdedAveragePooling(nn.Module):
    """Mean over the active cells of each channel (bae2020 Eq. 4).

    `p_c = sum_ij 1[F_c(i, j) > τ] · F_c(i, j) / sum_ij 1[F_c(i, j) > τ]` with `τ = θ · max_ij F_c(i, j)`, per image and
    channel: the strength of the active cells, independent of their number. In the paper the `threshold` `θ` is 0.1 for
    VGG16 and MobileNetV1, 0 for ResNet50-SE and GoogLeNet.

    Kept cells are always positive: nothing exceeds `θ · max` where the maximum is not. Such a channel gives 0.
    Gradients flow through the values of the kept cells, not through threshold and count. `θ = 0` averages the positive
    cells, which is not the plain average.

    Raises:
        ValueError: If the threshold is outside of [0, 1).

    Example:
        >>> ThresholdedAveragePooling(0.5)(torch.tensor([[[[0.0, 1.0, 2.0, 4.0]], [[-1.0, -2.0, 0.0, 0.0]]]]))
        tensor([[4., 0.]])
    """

    def __init__(self, threshold: float = 0.1) -> None:
        super().__init__()
        if not 0 <= threshold < 1:
            raise ValueError(f"the threshold of thresholded average pooling must lie in [0, 1), got {threshold}")
        self.threshold = threshold

    def forward(self, features: Tensor) -> Tensor:
        """Pool `(B, D, h, w)` to `(B, D)`."""
        kept = features > self.threshold * features.detach().amax(dim=(2, 3), keepdim=True)
        return torch.where(kept, features, 0).sum(dim=(2, 3)) / kept.sum(dim=(2, 3)).clamp(min=1)

    def extra_repr(self) -> str:
        """The threshold, for `repr`."""
        return f"threshold={self.threshold}"
