"""Points in scenes: does the peak of a class's map lie in an object of the class, and is the class there at all?"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from wsolnb.localization.maps import SceneMaps
from wsolnb.metrics import PointAP

Rank = Literal["heat", "class"]


def judge_points(found: SceneMaps, *, rank: Rank = "class", tolerance: float = 0.0) -> PointAP:
    """Point-localization average precision (oquab2015): is the peak of a class's map in an object of it?

    Args:
        found: Maps, scores and truth.
        rank: Sorts the images of a class: by `class`, its score in the whole image, or by `heat`, the map's maximum.
        tolerance: Pixels by which boxes are enlarged.

    Example:
        >>> heat = torch.zeros(1, 3, 4)
        >>> heat[0, 1, 1] = 1.0
        >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 20.0, 30.0]]), "labels": torch.tensor([0])}
        >>> found = SceneMaps([heat], torch.tensor([[0.9]]), torch.tensor([[30, 40]]), [truth])
        >>> float(judge_points(found).compute()["mAP"])
        1.0
    """
    maps = torch.stack(list(found.maps))
    scores = found.scores if rank == "class" else maps.amax(dim=(2, 3))
    metric = PointAP(scores.shape[1], tolerance, sync_on_compute=False)
    metric.update(peaks(maps), scores, found.targets, found.sizes)
    return metric


def peaks(maps: Tensor) -> Tensor:
    """The centre of the region of the strongest response of a map: maps `(B, K, h, w)`, 1 there, else 0.

    A heat map is constant on its highest region, the intersection of the last windows. Of several regions the first in
    raster order counts; a map that is 0 everywhere, of a class that was not searched, gives the image's centre.

    Example:
        >>> peaks(torch.tensor([[[[0.0, 2.0, 2.0, 2.0, 0.0, 2.0]]]])).flatten()
        tensor([0., 0., 1., 0., 0., 0.])
    """
    height, width = maps.shape[2:]
    flat = maps.flatten(2)
    top = flat.amax(dim=2, keepdim=True)
    high = (flat >= top - 1e-5 * top.abs()).view(-1, height, width)
    regions = torch.from_numpy(ndimage.label(high.numpy(), _WITHIN_A_MAP)[0]).view_as(flat)
    region = (regions == regions.gather(2, flat.argmax(dim=2, keepdim=True))).float().view_as(maps)
    total = region.sum(dim=(2, 3))
    y = (region.sum(dim=3) * torch.arange(height)).sum(dim=2) / total
    x = (region.sum(dim=2) * torch.arange(width)).sum(dim=2) / total
    place = y.round().long() * width + x.round().long()
    return F.one_hot(place, height * width).float().view_as(maps)


_WITHIN_A_MAP = np.pad(np.ones((1, 3, 3), bool), ((1, 1), (0, 0), (0, 0)))  # 8 neighbours in a map, none across maps


def judge_classes(found: SceneMaps) -> PointAP:
    """Classification average precision: that of points which are right anywhere in the image.

    Example:
        >>> there = {"boxes": torch.tensor([[0.0, 0.0, 20.0, 30.0]]), "labels": torch.tensor([0])}
        >>> not_there = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
        >>> scores, sizes = torch.tensor([[0.9], [0.2]]), torch.tensor([[30, 40], [30, 40]])
        >>> found = SceneMaps(list(torch.zeros(2, 1, 3, 4)), scores, sizes, [there, not_there])
        >>> float(judge_classes(found).compute()["mAP"])
        1.0
    """
    maps = torch.zeros(*found.scores.shape, 1, 1)
    metric = PointAP(found.scores.shape[1], tolerance=float("inf"), sync_on_compute=False)
    metric.update(maps, found.scores, found.targets, found.sizes)
    return metric
