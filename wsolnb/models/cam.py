"""Class activation maps: a classifier with global pooling and one linear layer, and the maps read from that layer.

    image -> backbone -> features (B, D, h, w) -> global pooling (B, D) -> linear layer (B, C)
                         features (B, D, h, w) -> linear layer at every cell -> maps (B, C, h, w)

The pooling used in training decides how the weights of different channels compare, and so what the maps show.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolnb.models.backbones import Backbone, backbone


class GlobalAveragePooling(nn.Module):
    """Mean over all cells: `p_c = 1/(h·w) · sum_ij F_c(i, j)` (bae2020 Eq. 1).

    A channel that is active in few cells gets a small value, however strong its activation.

    Example:
        >>> GlobalAveragePooling()(torch.tensor([[[[0.0, 0.0, 3.0]]]]))
        tensor([[1.]])
    """

    def forward(self, features: Tensor) -> Tensor:
        """Pool `(B, D, h, w)` to `(B, D)`."""
        return features.mean(dim=(2, 3))


class GlobalMaxPooling(nn.Module):
    """Maximum over all cells: `p_c = max_ij F_c(i, j)`; only that cell gets a gradient.

    Example:
        >>> GlobalMaxPooling()(torch.tensor([[[[0.0, 2.0, 3.0]]]]))
        tensor([[3.]])
    """

    def forward(self, features: Tensor) -> Tensor:
        """Pool `(B, D, h, w)` to `(B, D)`."""
        return features.amax(dim=(2, 3))


class Classifier(nn.Module):
    """Backbone, global pooling, linear layer: `f(x) = W · pool_ij ψ(x)_ij + b` (barz2022 Eq. 2, bae2020 Eq. 1).

    Because the layer is linear, `W` and `b` can be applied to every cell instead (barz2022 Eq. 3, bae2020 Eq. 2), which
    gives the class activation maps. Softmax or L2 normalisation of the output belongs to the loss.
    The outputs are classes `C`, or dimensions `E` of class embeddings; `pool` is the average by default.

    Example:
        >>> net = Classifier(backbone("tiny"), outputs=12)
        >>> net(torch.rand(2, 3, 64, 96)).shape
        torch.Size([2, 12])
        >>> net.features(torch.rand(2, 3, 64, 96)).shape
        torch.Size([2, 96, 8, 12])
    """

    def __init__(self, backbone: Backbone, outputs: int, pool: nn.Module | None = None) -> None:
        super().__init__()
        if outputs < 1:
            raise ValueError(f"a classifier needs at least one output, got {outputs}")
        self.backbone = backbone
        self.pool = pool or GlobalAveragePooling()
        self.head = nn.Linear(backbone.out_channels, outputs)

    @property
    def new_parts(self) -> tuple[str, ...]:
        """What no weights are loaded for and `Plan.head_rate` speeds up: the head, and the backbone's new stages."""
        return ("head", *(f"backbone.stages.{name}" for name in self.backbone.new_stages))

    def features(self, images: Tensor) -> Tensor:
        """Feature map `ψ(x)`, `(B, D, h, w)`, of RGB images in [0, 1], `(B, 3, H, W)`."""
        features: Tensor = self.backbone(images)
        return features

    def classify(self, features: Tensor) -> Tensor:
        """Outputs `(B, outputs)` of features `(B, D, h, w)`: pooled, then through the linear layer."""
        outputs: Tensor = self.head(self.pool(features))
        return outputs

    def forward(self, images: Tensor) -> Tensor:
        """Outputs `(B, outputs)` of RGB images in [0, 1], `(B, 3, H, W)`: no softmax, no normalisation."""
        return self.classify(self.features(images))


def classifier(name: str, outputs: int, *, seed: int = 0, pool: nn.Module | None = None, **options: Any) -> Classifier:
    """Build a classifier on a backbone by name; the same seed gives the same random weights.

    The global random state does not change. `pool` is as for `Classifier`; the options are those of
    `wsolnb.models.backbones.backbone`.

    Example:
        >>> classifier("tiny", 12, stride=16).head
        Linear(in_features=96, out_features=12, bias=True)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(backbone(name, **options), outputs, pool)


def new_head(
    backbone: Backbone, outputs: int, *, seed: int = 0, pool: nn.Module | None = None, freeze: bool = False
) -> Classifier:
    """Put a new head with `outputs` outputs and random weights on a copy of a trained backbone.

    With `freeze`, only the head is trained; the backbone keeps its weights and the statistics of its normalisation.

    Example:
        >>> start = backbone("tiny")
        >>> net = new_head(start, 5, freeze=True)
        >>> [name for name, weight in net.named_parameters() if weight.requires_grad]
        ['head.weight', 'head.bias']
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Classifier(copy.deepcopy(backbone), outputs, pool)
    if freeze:
        net.backbone.requires_grad_(False)
        net.backbone.freeze_norm = True
    return net


def class_activation_maps(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Class activation maps `m_ijc = W_c · ψ(x)_ij + b_c`, `(B, C, h, w)` (barz2022 Eq. 4).

    Features `ψ(x)` are float `(B, D, h, w)`, `W` is `(C, D)`, `b` `(C,)` or None: some public code leaves it out. With
    average pooling, the mean of the maps over the cells is the classifier's output. ValueError if shapes do not match.

    Example:
        >>> maps = class_activation_maps(torch.ones(1, 2, 3, 4), torch.tensor([[1.0, 2.0]]), torch.tensor([0.5]))
        >>> maps.shape, float(maps[0, 0, 0, 0])
        (torch.Size([1, 1, 3, 4]), 3.5)
    """
    if features.ndim != 4 or weight.ndim != 2 or features.shape[1] != weight.shape[1]:
        shapes = f"features (B, D, h, w) {tuple(features.shape)} and weights (C, D) {tuple(weight.shape)}"
        raise ValueError(f"{shapes} do not match")
    return F.conv2d(features, weight[:, :, None, None], bias)
