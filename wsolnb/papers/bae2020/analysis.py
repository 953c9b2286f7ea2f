"""What is wrong with a map, in numbers: the three analyses behind bae2020's argument, and the coverage of parts.

Regions and masks are bool `(N, H, W)`. A fraction is NaN where it is undefined (empty region or mask): average with
`nanmean`. Paper: https://doi.org/10.1007/978-3-030-58555-6_37
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.utils.data import Dataset

from wsolnb._utils.processes import share_out
from wsolnb.boxes.quantise import percentile
from wsolnb.data.readers.scenes import scene_batches
from wsolnb.localization.read import Resized
from wsolnb.metrics.bootstrap import Statistic
from wsolnb.models.cam import Classifier

_BATCH = 64


def activated_area(features: Tensor, share: float = 0.0) -> Tensor:
    """Activated area of every channel: the fraction of cells above `share` of its maximum (bae2020 P1, Fig. 2).

    These are the cells that thresholded average pooling keeps. Features `(B, D, h, w)` to `(B, D)` in [0, 1].

    Example:
        >>> activated_area(torch.tensor([[[[0.0, 1.0, 2.0, 4.0]]]]), share=0.25)
        tensor([[0.5000]])
    """
    return (features > share * features.amax(dim=(2, 3), keepdim=True)).float().mean(dim=(2, 3))


def activated(maps: Tensor, share: float = 0.2) -> Tensor:
    """Activated region of maps `(N, H, W)`: pixels above `share` of the maximum; none where that is not positive.

    Example:
        >>> activated(torch.tensor([[[0.0, 1.0, 4.0]], [[-1.0, -3.0, -2.0]]]), share=0.2)
        tensor([[[False,  True,  True]],
        <BLANKLINE>
                [[False, False, False]]])
    """
    highest = maps.amax(dim=(1, 2), keepdim=True)
    return (maps > share * highest) & (highest > 0)


def inside(regions: Tensor, masks: Tensor) -> Tensor:
    """Intersection over area: the fraction of each region that lies in its mask, `(N,)` (bae2020 P2, Fig. 3b).

    Example:
        >>> inside(torch.tensor([[[True, True, False]]]), torch.tensor([[[False, True, True]]]))
        tensor([0.5000])
    """
    return _share(regions, masks, of=regions)


def covered(regions: Tensor, masks: Tensor) -> Tensor:
    """Coverage: the fraction of each mask (an object, or a part of it) that its region covers, `(N,)`.

    Example:
        >>> covered(torch.tensor([[[True, True, False]]]), torch.tensor([[[True, True, True]]]))
        tensor([0.6667])
    """
    return _share(regions, masks, of=masks)


def sorted_activations(maps: Tensor, percent: float = 100.0) -> Tensor:
    """Values of each map in descending order, divided by its maximum or a percentile (bae2020 Fig. 4).

    Non-negative maps `(N, H, W)` to `(N, H·W)`, NaN or infinite where the divisor is 0; `percent=100` is the maximum. A
    threshold `θ` is a horizontal line in this plot; it meets the curve at the fraction of pixels kept.

    Raises:
        ValueError: If the percentile is outside of (0, 100].

    Example:
        >>> sorted_activations(torch.tensor([[[1.0, 4.0, 2.0]]]), percent=50)
        tensor([[2.0000, 1.0000, 0.5000]])
    """
    if not 0 < percent <= 100:
        raise ValueError(f"a percentile lies in (0, 100], got {percent}")
    unit = percentile(maps, percent).to(maps)
    return maps.flatten(1).sort(dim=1, descending=True).values / unit[:, None]


@torch.inference_mode()
def over_images(
    model: Classifier,
    images: Dataset[Any],
    statistic: Callable[[Tensor], Tensor],
    *,
    image_size: int | None = None,
    device: torch.device | str | None = None,
    workers: int = 0,
) -> Tensor:
    """A statistic of the features of all images, on the CPU: a row per image.

    `statistic` maps features `(B, D, h, w)` to one row per image, like `activated_area`. The model is in evaluation
    mode; `images` and the options are as for `wsolnb.localization.read.read_objects`.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.models.cam import classifier
        >>> net = classifier("tiny", 4).eval()
        >>> over_images(net, World(families=2, species=2, size=48).singles(3), activated_area).shape
        torch.Size([3, 96])
    """
    device = next(model.parameters()).device if device is None else device
    resized = Resized(images, image_size)

    def work(mine: Sequence[int]) -> Iterator[Tensor]:
        for batch in scene_batches(resized, longer_side=None, batch_size=_BATCH, workers=workers, indices=mine):
            yield statistic(model.features(batch.images.to(device))).cpu()

    return torch.cat(list(share_out(len(resized), _BATCH, work)))


def area_correlation(areas: Tensor, weights: Tensor) -> Statistic:
    """Spearman's correlation, over the channels, of activated area and largest weight (bae2020 P1).

    A function of image weights, see `wsolnb.metrics.bootstrap`: they decide the mean area of every channel. `areas`
    `(N, D)` are from `activated_area`, `weights` `(D,)` the channels' largest weights. Channels that are active in no
    image are left out.

    Example:
        >>> correlation = area_correlation(torch.tensor([[0.1, 0.2, 0.9]]), torch.tensor([3.0, 2.0, 1.0]))
        >>> round(float(correlation(torch.ones(1, 1))), 6)
        -1.0
    """
    alive = areas.amax(dim=0) > 0
    areas, ranks = areas[:, alive].double(), rankdata(weights[alive].float().cpu().numpy())

    def statistic(image_weights: Tensor) -> Tensor:
        means = image_weights.double() @ areas / image_weights.double().sum(dim=1, keepdim=True)
        x, y = (torch.from_numpy(each - each.mean(-1, keepdims=True)) for each in (rankdata(means, axis=1), ranks))
        return torch.nn.functional.cosine_similarity(x, y, dim=-1)

    return statistic


def kept_share(maps: Tensor, threshold: float, percent: float = 100.0) -> Tensor:
    """Share of the pixels of each map above a fraction of its percentile, float64 `(N,)` (bae2020 P3, Fig. 4).

    Maps are `(N, H, W)`; `percent=100` is the maximum.

    Example:
        >>> kept_share(torch.tensor([[[0.0, 1.0, 2.0, 4.0]]]), threshold=0.3)
        tensor([0.5000], dtype=torch.float64)
    """
    return (sorted_activations(maps, percent) > threshold).double().mean(dim=1)


def _share(regions: Tensor, masks: Tensor, *, of: Tensor) -> Tensor:
    if regions.shape != masks.shape or regions.dtype != torch.bool or masks.dtype != torch.bool:
        raise ValueError(
            f"regions {regions.dtype} {tuple(regions.shape)} and masks {masks.dtype} {tuple(masks.shape)} must both be "
            "bool (N, H, W)"
        )
    return (regions & masks).sum(dim=(1, 2)) / of.sum(dim=(1, 2))
