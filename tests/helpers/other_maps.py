"""Maps and boxes as torchcam and pytorch-grad-cam make them, on a network with features of order one."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from wsolnb.inference.localize import RULES


def random_network(name: str, device: str) -> nn.Module:
    """A network of torchvision's in evaluation mode, whose normalisations keep features of order one."""
    torch.manual_seed(0)
    model: nn.Module = torchvision.models.get_model(name, weights=None).eval()
    for each in model.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.running_mean.normal_(0, 0.1)  # type: ignore[union-attr, operator]
            each.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    return model.to(device)


def smooth_images(batch: int, side: int, device: str) -> Tensor:
    """Smooth images `(batch, 3, side, side)`, normalised, which differ from each other."""
    coarse = torch.randn(batch, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(coarse, (side, side), mode="bicubic").to(device)


@torch.inference_mode()
def bare(net: nn.Module, images: Tensor) -> Tensor:
    """One forward pass."""
    output: Tensor = net(images)
    return output


def torchcam_maps(extractor: Any, net: nn.Module, images: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Normalised maps `(B, K, h, w)` of the best classes, and these, as its documentation says to get them."""
    labels = bare(net, images).topk(top, dim=1).indices
    maps = [extractor(rank.tolist(), normalized=True)[0] for rank in labels.T]
    return torch.stack(maps, dim=1), labels


def torchcam_boxes(extractor: Any, net: nn.Module, images: Tensor, top: int) -> Tensor:
    """Boxes `(B, K, 4)` of torchcam's maps by our rule."""
    return RULES["cam"](torchcam_maps(extractor, net, images, top)[0], (images.shape[2], images.shape[3]))


def grad_cam_maps(extractor: Any, images: Tensor, labels: Tensor) -> None:
    """Maps of labels `(B, K)` by GradCAM of pytorch-grad-cam: a backward pass for each class."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    for rank in labels.T.tolist():
        extractor(images, [ClassifierOutputTarget(label) for label in rank])
