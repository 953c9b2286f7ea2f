"""Two maps of one object (kou2021): read both heads, merge their regions, classify by ten crops, count errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import ten_crop

from wsolnb._utils.progress import track
from wsolnb.boxes import BoxRule
from wsolnb.localization.locate import Located
from wsolnb.localization.maps import ObjectMaps
from wsolnb.localization.read import Framed, truth_of
from wsolnb.metrics.bootstrap import Statistic
from wsolnb.papers.kou2021.coaug import CoAug, Parts
from wsolnb.papers.kou2021.network import CSoA

_BATCH = 64
RULE = BoxRule(0.2, reference="absolute", quantise=True)
"""The largest piece of the merged region, cut at the image's size, as zhou2016's text has it."""


@dataclass(frozen=True)
class MergedMaps(ObjectMaps):
    """Maps of two heads that are merged when they are enlarged; `maps` are the last head's.

    Args:
        inner: The inner head's maps, `(N, h, w)`; None where there is one head.
        how: How their regions are merged.
    """

    inner: Tensor | None = None
    how: Merge = "union"

    def part(self, indices: Tensor) -> MergedMaps:
        """The maps of some images."""
        rows = super().part(indices)
        own = {name: getattr(rows, name) for name in ("maps", "scores", "labels", "boxes", "frame", "masks")}
        return MergedMaps(**own, inner=None if self.inner is None else self.inner[indices], how=self.how)

    def enlarged(self) -> Tensor:
        """Merged maps at the size of the frame, in [0, 1]: see `wsolnb.papers.kou2021.maps.merged_map`."""
        return merged_map(self.inner, self.maps, self.frame, self.how)

    def cut(self, rule: BoxRule) -> Tensor:
        """The rule's box of every merged map, `(N, 4)` in pixels of the frame."""
        return rule(self.enlarged()[:, None], self.frame)[:, 0]

    def readings(self) -> dict[str, MergedMaps]:
        """The ways to use the two maps: their `union`, their `intersection`, the `last` and the `inner` one alone."""
        if self.inner is None:
            return {"last": self}
        alone = {"last": replace(self, inner=None), "inner": replace(self, maps=self.inner, inner=None)}
        return {"union": replace(self, how="union"), "intersection": replace(self, how="intersection"), **alone}


@torch.inference_mode()
def read_two(
    model: CSoA,
    images: Dataset[Any],
    *,
    image_size: int | None = None,
    crop: float | None = 224 / 256,
    workers: int = 0,
) -> MergedMaps:
    """Run a network over images with one object class each, and keep the true class's maps of both heads.

    Args:
        model: In evaluation mode, on its device.
        images: Items `(image, target)` with one or more boxes of one class and their "labels".
        image_size: As for `wsolnb.localization.read.read_objects`.
        crop: Class scores are averaged over ten crops of this share of the side (Sec. 4.1); None: taken from the whole
            image. Maps are always of the whole image.
        workers: Processes that decode.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.models.backbones import backbone
        >>> world = World(families=2, species=2, size=(48, 64))
        >>> net = CSoA(backbone("tiny"), 4, inner="block2", pool=2, width=8).eval()
        >>> read_two(net, world.singles(3)).enlarged().shape
        torch.Size([3, 48, 64])
    """
    device = next(model.parameters()).device
    loader = DataLoader(Framed(images, image_size), _BATCH, num_workers=workers, collate_fn=list)
    last, inner, scores = [], [], []
    rows: list[dict[str, Any]] = []
    frame = (0, 0)
    for batch in track(loader, "images"):
        pixels = torch.stack([image for image, _ in batch]).to(device)
        frame = (pixels.shape[2], pixels.shape[3])
        targets = [target for _, target in batch]
        truth = torch.tensor([int(target["labels"][0]) for target in targets], device=device)
        outputs = model(pixels)
        own = [maps[torch.arange(len(truth), device=device), truth].float().cpu() for maps in outputs.maps()]
        last.append(own[0])
        inner += own[1:]
        whole = outputs.scores() if crop is None else ten_crop_scores(lambda x: model(x).scores(), pixels, crop)
        scores.append(whole.float().cpu())
        rows += targets
    labels, boxes, masks = truth_of(rows)
    both = torch.cat(inner) if inner else None
    return MergedMaps(torch.cat(last), torch.cat(scores), labels, boxes, frame, masks, inner=both)


@torch.inference_mode()
def read_parts(
    coaug: CoAug,
    images: Dataset[Any],
    found: MergedMaps,
    indices: Sequence[int],
    *,
    image_size: int | None = None,
) -> Parts:
    """Embed what the last head's maps call object and background of some images (kou2021 Eqs. 8 and 10).

    Args:
        coaug: With the embedding network.
        images: Those that `found` was read from.
        found: Maps of all of them.
        indices: Which images; those beyond the last one are left out.
        image_size: As for `read_two`.

    Returns:
        Embeddings `(n, D)`, on the CPU.

    Example:
        >>> from torch.nn import AdaptiveAvgPool2d, Flatten, Sequential
        >>> from wsolnb.data.critters import World
        >>> images, box = World(families=2, species=2, size=(48, 64)).singles(3), torch.tensor([[8.0, 8.0, 40.0, 40.0]])
        >>> found = MergedMaps(torch.rand(3, 6, 8), torch.zeros(3, 4), torch.tensor([0, 1, 2]), [box] * 3, (48, 64))
        >>> mean_colour = Sequential(AdaptiveAvgPool2d(1), Flatten())
        >>> [each.shape for each in read_parts(CoAug(mean_colour), images, found, [0, 2])]
        [torch.Size([2, 3]), torch.Size([2, 3]), torch.Size([2, 3])]
    """
    device = next((p.device for p in coaug.parameters()), torch.device("cpu"))
    ready, chosen = Framed(images, image_size), [i for i in indices if i < len(found)]
    parts = []
    for rows in torch.tensor(chosen).split(_BATCH):
        pixels = torch.stack([ready[i][0] for i in rows.tolist()]).to(device)
        parts.append(coaug.parts(found.maps[rows].to(device), pixels))
    return Parts(*(torch.cat(each).cpu() for each in zip(*parts, strict=True)))


def ten_crop_scores(score: Callable[[Tensor], Tensor], images: Tensor, crop: float = 224 / 256) -> Tensor:
    """Class scores averaged over the four corners, the middle, and their mirror images (kou2021 Sec. 4.1).

    Args:
        score: From images `(B, 3, H, W)` to scores `(B, C)`.
        images: `(B, 3, H, W)`.
        crop: Side of a crop as a share of the image's.

    Returns:
        `(B, C)`.

    Raises:
        ValueError: If `crop` is not in (0, 1].

    Example:
        >>> ten_crop_scores(lambda x: x.mean(dim=(2, 3)), torch.ones(2, 3, 16, 24)).shape
        torch.Size([2, 3])
    """
    if not 0 < crop <= 1:
        raise ValueError(f"crop must be a share of the side in (0, 1], got {crop}")
    size = [max(1, round(crop * side)) for side in images.shape[2:]]
    return torch.stack([score(each) for each in ten_crop(images, size)]).mean(dim=0)


def error_rates(located: Located) -> dict[str, Statistic]:
    """The numbers of kou2021's tables as functions of image weights, all of them errors.

    Args:
        located: From `wsolnb.localization.locate.locate` with `ks=(1, 5)`.

    Returns:
        `top1_loc_error` and `top5_loc_error` (class among the first one or five, and the true class's box right) and
        `gt_known_error` at the chosen threshold; `top1_cls_error`, `top5_cls_error`; `gt_known_error_oracle` at the
        best threshold of every draw.

    Example:
        >>> from wsolnb.localization.locate import locate
        >>> left, right = torch.zeros(2, 1, 8, 12)
        >>> left[0, 2:6, 3:6], right[0, 2:6, 6:9] = 1, 1
        >>> truth = (torch.tensor([[0.9, 0.1]]), torch.tensor([1]), [torch.tensor([[3.0, 2.0, 9.0, 6.0]])], (8, 12))
        >>> found = MergedMaps(left, *truth, inner=right)
        >>> rates = error_rates(locate(found, found, RULE, ks=(1, 5)))
        >>> {name: float(rate(torch.ones(1, 1))) for name, rate in rates.items() if "top" in name}
        {'top1_loc_error': 1.0, 'top5_loc_error': 0.0, 'top1_cls_error': 1.0, 'top5_cls_error': 0.0}
    """
    found, threshold = located.found, located.rule.threshold
    rank = (found.scores > found.scores.gather(1, found.labels[:, None])).sum(dim=1)
    right, best = located.judged.statistic("gt_known", threshold), located.judged.statistic("gt_known")
    return {
        "top1_loc_error": located.judged.statistic("top1_error", threshold),
        "top5_loc_error": located.judged.statistic("top5_error", threshold),
        "top1_cls_error": _share(rank >= 1),
        "top5_cls_error": _share(rank >= 5),
        "gt_known_error": lambda weights: 1 - right(weights),
        "gt_known_error_oracle": lambda weights: 1 - best(weights),
    }


def _share(wrong: Tensor) -> Statistic:
    return lambda weights: weights.double() @ wrong.double() / weights.double().sum(dim=1)


Merge = Literal["union", "intersection"]


def merged_map(inner: Tensor | None, last: Tensor, frame: tuple[int, int], how: Merge = "union") -> Tensor:
    """One map whose cut at `θ` is the merge of both maps' cuts at `θ` of their maxima (kou2021 Eq. 13).

    Each map is enlarged and divided by its maximum; what is negative becomes 0. "Either is above θ" is the same as
    "the larger one is above θ", so the union is their maximum and the intersection their minimum: one map holds the
    merged regions of all thresholds, and any box rule with an absolute threshold applies. A map without a positive
    value has no region.

    Args:
        inner: `(N, h, w)`; None to use the last map alone.
        last: `(N, h, w)`.
        frame: Height and width of the result.
        how: `union`, the way the paper states, or `intersection`, the way it describes its pictures.

    Returns:
        float32 `(N, H, W)` in [0, 1].

    Example:
        >>> inner, last = torch.tensor([[[1.0, 4.0, 0.0]]]), torch.tensor([[[9.0, 9.0, -3.0]]])
        >>> merged_map(inner, last, (1, 3)), merged_map(inner, last, (1, 3), "intersection")
        (tensor([[[1., 1., 0.]]]), tensor([[[0.2500, 1.0000, 0.0000]]]))
    """
    if how not in ("union", "intersection"):
        raise ValueError(f"maps are merged by union or intersection, not {how!r}")
    each = [_by_maximum(maps, frame) for maps in (last, inner) if maps is not None]
    stacked = torch.stack(each)
    return stacked.amax(dim=0) if how == "union" else stacked.amin(dim=0)


def _by_maximum(maps: Tensor, frame: tuple[int, int]) -> Tensor:
    large = F.interpolate(maps[:, None].float(), frame, mode="bilinear", align_corners=False)[:, 0]
    highest = large.amax(dim=(1, 2), keepdim=True)
    return torch.where(highest > 0, (large / highest).clamp(min=0), 0)
