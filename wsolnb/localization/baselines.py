"""Baselines that ignore the image, for every table."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from wsolnb.localization.maps import LocalizationMaps


def centred_gaussian(size: tuple[int, int]) -> Tensor:
    """A Gaussian in the middle of the image, stretched to [0, 1]: float32 `(H, W)` for a size `(H, W)`.

    Its level sets are ellipses with the image's aspect ratio, which every box inherits. Its width changes only which
    threshold gives which box; here the image's edge is two standard deviations from the centre.

    Example:
        >>> centred_gaussian((3, 5)).argmax().item()
        7
    """
    axes = [torch.exp(-0.5 * ((torch.arange(n) + 0.5) / n * 4 - 2) ** 2) for n in size]
    field = axes[0].unsqueeze(1) * axes[1]
    spread = field.max() - field.min()
    return (field - field.min()) / spread if spread > 0 else torch.ones_like(field)


def baselines(maps: LocalizationMaps) -> dict[str, LocalizationMaps]:
    """The same images with baseline maps: a Gaussian in the `centre`, and the `whole` image.

    Example:
        >>> truth = (torch.zeros(1, 3), torch.tensor([2]), [torch.tensor([[2.0, 2.0, 6.0, 6.0]])], (8, 12))
        >>> from wsolnb.boxes import BoxRule
        >>> flat = baselines(LocalizationMaps(torch.rand(1, 4, 6), *truth))
        >>> {name: each.cut(BoxRule(0.5))[0].tolist() for name, each in flat.items()}
        {'centre': [3.0, 2.0, 9.0, 6.0], 'whole': [0.0, 0.0, 12.0, 8.0]}
    """
    shape = (len(maps), *maps.image_size)
    flat = {"centre": centred_gaussian(maps.image_size), "whole": torch.ones(maps.image_size)}
    return {name: replace(maps, maps=values.expand(shape)) for name, values in flat.items()}
