"""From a feature map to one number per channel: average, maximum, and the thresholded average between them.

A pooling takes features `(B, D, h, w)` and gives `(B, D)`, for any backbone and any head. Which one a classifier was
trained with decides how its weights compare between channels, and so what its class activation maps show.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ThresholdedAveragePooling(nn.Module):
    """Mean over the active cells of each channel (bae2020 Eq. 4).

    `p_c = sum_ij 1[F_c(i, j) > τ] · F_c(i, j) / sum_ij 1[F_c(i, j) > τ]` with `τ = θ · max_ij F_c(i, j)`, for each
    image and channel by itself. A channel's activated area no longer counts, only how strong it is there.

    The kept cells are always positive: where the maximum is positive, so is what exceeds a share of it; where it is
    not, nothing exceeds `θ · max`. Such a channel is empty and gives 0. Gradients flow through the values of the kept
    cells, not through threshold and count. `θ = 0` averages the positive cells, which is not the plain average.

    Args:
        threshold: `θ` in [0, 1). The paper takes 0.1 for VGG16 and MobileNetV1, 0 for ResNet50-SE and GoogLeNet.

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
