"""A classifier whose class evidence can be read back cell by cell: backbone, global pooling, one linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from wsolnb.models.backbones import Backbone


class Classifier(nn.Module):
    """Backbone, global average pooling, linear layer: `f(x) = W · mean_ij ψ(x)_ij + b` (barz2022 Eq. 2).

    Because pooling and layer are linear, `W` and `b` can be applied to every cell instead (Eq. 3): that is what
    class activation maps read. What is done with the output (softmax, L2 normalisation) belongs to the loss.

    Args:
        backbone: Gives features `(B, D, h, w)`.
        outputs: Number of outputs: classes `C`, or dimensions `E` of the class embeddings.

    Example:
        >>> import torch
        >>> from wsolnb.models.backbones import backbone
        >>> net = Classifier(backbone("tiny"), outputs=12)
        >>> net(torch.rand(2, 3, 64, 96)).shape
        torch.Size([2, 12])
        >>> net.features(torch.rand(2, 3, 64, 96)).shape
        torch.Size([2, 96, 8, 12])
    """

    def __init__(self, backbone: Backbone, outputs: int) -> None:
        super().__init__()
        if outputs < 1:
            raise ValueError(f"a classifier needs at least one output, got {outputs}")
        self.backbone = backbone
        self.head = nn.Linear(backbone.out_channels, outputs)

    def features(self, images: Tensor) -> Tensor:
        """Feature map `ψ(x)`, `(B, D, h, w)`, of RGB images in [0, 1], `(B, 3, H, W)`."""
        features: Tensor = self.backbone(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Outputs `(B, outputs)` of RGB images in [0, 1], `(B, 3, H, W)`: no softmax, no normalisation."""
        return self.head(self.features(images).mean(dim=(2, 3)))
