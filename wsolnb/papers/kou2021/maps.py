"""Maps of two heads: readers, merged regions, ten crops, boxes and errors (kou2021, https://arxiv.org/abs/1911.07160)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import ten_crop

from wsolnb.boxes import BoxRule
from wsolnb.localization.locate import LocalizationResult, tune_and_evaluate
from wsolnb.localization.maps import LocalizationMaps
from wsolnb.localization.read import FeatureReader, Labels, Resized, first_labels, read_objects
from wsolnb.metrics import mean_statistic
from wsolnb.metrics.bootstrap import Statistic
from wsolnb.papers.kou2021.coaug import CoAug, Parts
from wsolnb.papers.kou2021.confseg import thresholds
from wsolnb.papers.kou2021.network import CSoA, TwoMaps

_BATCH = 64
RULE = BoxRule(0.2, reference="absolute", quantise=True)
"""The largest component of the merged region at the image's size, as in zhou2016's text."""

Merge = Literal["union", "intersection"]


def merged(maps: Tensor, image_size: tuple[int, int], how: Merge = "union") -> Tensor:
    """One map whose region above `θ` is the merge of all heads' regions above `θ` of their maxima (kou2021 Eq. 13).

    Maps of the heads `(N, M, h, w)`, or of one head `(N, h, w)`, are resized, divided by their maxima and clamped at 0.
    "Either is above θ" means "the larger one is above θ", so the union (which the paper states) is their maximum and
    the intersection (as it describes its pictures) their minimum: one map, float32 `(N, H, W)` in [0, 1], holds the
    merged regions of all thresholds, for any box rule with an absolute threshold. A map without a positive value has no
    region.

    Raises:
        ValueError: If `how` is neither.

    Example:
        >>> heads = torch.tensor([[[[1.0, 4.0, 0.0]], [[9.0, 9.0, -3.0]]]])
        >>> merged(heads, (1, 3)), merged(heads, (1, 3), "intersection")
        (tensor([[[1., 1., 0.]]]), tensor([[[0.2500, 1.0000, 0.0000]]]))
    """
    if how not in ("union", "intersection"):
        raise ValueError(f"maps are merged by union or intersection, not {how!r}")
    heads = maps if maps.ndim == 4 else maps[:, None]
    resized = F.interpolate(heads.float(), image_size, mode="bilinear", align_corners=False)
    highest = resized.amax(dim=(2, 3), keepdim=True)
    regions = torch.where(highest > 0, (resized / highest).clamp(min=0), 0)
    return regions.amax(dim=1) if how == "union" else regions.amin(dim=1)


def head_readers(model: CSoA, crop: int | None = None) -> dict[str, FeatureReader]:
    """The map of the true class and the class scores of each head: `last`, and `inner` where there is a second one.

    With `crop`, maps are of images resized to a square of that side, and the scores are averaged over ten crops of that
    side from the images as they are: read at 256 pixels, and 224 (Sec. 4.1). None: maps and scores of the whole image.
    The model is in evaluation mode.

    Example:
        >>> from wsolnb.models.backbones import backbone
        >>> net = CSoA(backbone("tiny"), 4, inner="block2", pool=2, width=8).eval()
        >>> maps, scores = head_readers(net)["inner"](torch.rand(1, 3, 48, 64), [torch.tensor([2])])
        >>> maps.shape, scores.shape
        (torch.Size([1, 1, 6, 8]), torch.Size([1, 4]))
    """

    def forward(images: Tensor) -> tuple[list[Tensor], Tensor]:
        whole = images if crop is None else F.interpolate(images, (crop, crop), mode="bilinear", antialias=True)
        outputs: TwoMaps = model(whole)
        if crop is None:
            return outputs.maps(), outputs.head_scores()
        return outputs.maps(), ten_crop_scores(lambda crops: model(crops).head_scores(), images, crop)

    def readout(head: int, outputs: tuple[list[Tensor], Tensor], labels: Labels | None) -> tuple[Tensor, Tensor]:
        maps, scores = outputs[0][head], outputs[1][head]
        truth = first_labels(labels).to(maps.device)
        return maps[torch.arange(len(truth), device=maps.device), truth][:, None], scores

    names = ["last"] if model.inner is None else ["last", "inner"]
    return {name: FeatureReader(forward, partial(readout, head)) for head, name in enumerate(names)}


def read_heads(
    model: CSoA,
    images: Dataset[Any],
    *,
    image_size: int | None = None,
    crop: int | None = None,
    device: torch.device | str | None = None,
    workers: int = 0,
) -> dict[str, LocalizationMaps]:
    """The true class's maps, read in all ways that the heads allow, for images with objects of one class.

    `union` and `intersection` have the maps of both heads `(N, 2, h, w)`, the last head's first, `merged` when
    upsampled, and class scores averaged over the heads; `last` and `inner` are one head's maps `(N, h, w)` and scores.
    Of one head there is the `union` only: its map. `crop` is as for `head_readers`, images and other options as for
    `wsolnb.localization.read.read_objects`.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.models.backbones import backbone
        >>> world = World(families=2, species=2, size=(48, 64))
        >>> net = CSoA(backbone("tiny"), 4, inner="block2", pool=2, width=8).eval()
        >>> {name: tuple(found.maps.shape) for name, found in read_heads(net, world.singles(3)).items()}
        {'union': (3, 2, 6, 8), 'intersection': (3, 2, 6, 8), 'last': (3, 6, 8), 'inner': (3, 6, 8)}
    """
    device = next(model.parameters()).device if device is None else device
    readers = head_readers(model, crop)
    heads = read_objects(images, readers, image_size=image_size, upsample=merged, device=device, workers=workers)
    if len(heads) == 1:
        return {"union": heads["last"]}
    maps, scores = (torch.stack([getattr(head, part) for head in heads.values()], dim=1) for part in ("maps", "scores"))
    both = replace(heads["last"], maps=maps, scores=scores.mean(dim=1))
    return {how: replace(both, upsample=partial(merged, how=how)) for how in ("union", "intersection")} | heads


def locate_heads(
    model: CSoA, held_out: Dataset[Any], test: Dataset[Any], readings: Sequence[str] = ("union",), **options: Any
) -> dict[str, LocalizationResult]:
    """Boxes of test images by some of the `read_heads` readings, each at its own threshold from the held-out images.

    Thresholds are tuned by `RULE` for GT-known localization; options are those of `read_heads`.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.models.backbones import backbone
        >>> world = World(families=2, species=2, size=(48, 64))
        >>> net = CSoA(backbone("tiny"), 4, inner="block2", pool=2, width=8).eval()
        >>> list(locate_heads(net, world.singles(3, seed=1), world.singles(3), ["union", "inner"]))
        ['union', 'inner']
    """
    tune, evaluate = (read_heads(model, images, **options) for images in (held_out, test))
    return {name: tune_and_evaluate(tune[name], evaluate[name], RULE, ks=(1, 5)) for name in readings}


def sure_cells(maps: LocalizationMaps) -> dict[str, float]:
    """How far a teacher's map can be trusted: precision and recall of its confident cells on the drawn object.

    Of the cells above `ξ1` (`surely object`), the fraction on the object; of the object's cells, the fraction that is
    surely object; of the cells below `ξ2` (`surely background`), the fraction off the object (kou2021 Eq. 7). A cell is
    on the object if its mask covers half of it. `maps` of one head, with `masks`.

    Example:
        >>> mask = torch.tensor([[[True, True, False, False]]])
        >>> truth = (torch.zeros(1, 2), torch.tensor([0]), [torch.tensor([[0.0, 0.0, 2.0, 1.0]])], (1, 4))
        >>> sure_cells(LocalizationMaps(torch.tensor([[[4.0, 1.0, 1.0, -2.0]]]), *truth, {"masks": mask}))
        {'surely object: precision': 1.0, 'surely object: recall': 0.5, 'surely background: precision': 1.0}
    """
    (rows, columns), (low, high) = maps.maps.shape[1:], (limit[:, None, None] for limit in thresholds(maps.maps))
    on = F.adaptive_avg_pool2d(maps.masks["masks"][:, None].float(), (rows, columns))[:, 0] >= 0.5
    surely, off = maps.maps > high, maps.maps < low
    hits = (surely & on).sum()
    return {
        "surely object: precision": float(hits / surely.sum()),
        "surely object: recall": float(hits / on.sum()),
        "surely background: precision": float((off & ~on).sum() / off.sum()),
    }


@torch.inference_mode()
def read_parts(
    coaug: CoAug, images: Dataset[Any], maps: LocalizationMaps, indices: Sequence[int], *, image_size: int | None = None
) -> Parts:
    """Embeddings `(n, D)`, on the CPU, of the object and background in some images (kou2021 Eqs. 8 and 10).

    `maps` of one head were read from `images`, resized to `image_size`; indices beyond the last map are ignored.

    Example:
        >>> from torch.nn import AdaptiveAvgPool2d, Flatten, Sequential
        >>> from wsolnb.data.critters import World
        >>> images, box = World(families=2, species=2, size=(48, 64)).singles(3), torch.tensor([[8.0, 8.0, 40.0, 40.0]])
        >>> truth = (torch.zeros(3, 4), torch.tensor([0, 1, 2]), [box] * 3, (48, 64))
        >>> mean_colour = Sequential(AdaptiveAvgPool2d(1), Flatten())
        >>> parts = read_parts(CoAug(mean_colour), images, LocalizationMaps(torch.rand(3, 6, 8), *truth), [0, 2])
        >>> [part.shape for part in parts]
        [torch.Size([2, 3]), torch.Size([2, 3]), torch.Size([2, 3])]
    """
    device = next((p.device for p in coaug.parameters()), torch.device("cpu"))
    resized, chosen = Resized(images, image_size), [i for i in indices if i < len(maps)]
    parts = []
    for rows in torch.tensor(chosen).split(_BATCH):
        pixels = torch.stack([resized[i][0] for i in rows.tolist()]).to(device)
        parts.append(coaug.parts(maps.maps[rows].to(device), pixels))
    return Parts(*(torch.cat(part).cpu() for part in zip(*parts, strict=True)))


def ten_crop_scores(score: Callable[[Tensor], Tensor], images: Tensor, side: int) -> Tensor:
    """Class scores averaged over the four corners, the centre, and their mirror images (kou2021 Sec. 4.1).

    `score` maps images `(B, 3, H, W)` to scores `(..., B, C)`; crops are squares of `side` pixels.

    Raises:
        ValueError: If the images are smaller than a crop.

    Example:
        >>> ten_crop_scores(lambda x: x.mean(dim=(2, 3)), torch.ones(2, 3, 16, 24), 14).shape
        torch.Size([2, 3])
    """
    if side > min(images.shape[2:]):
        raise ValueError(f"crops of {side} pixels do not fit into images of {images.shape[2]}x{images.shape[3]}")
    return torch.stack([score(crops) for crops in ten_crop(images, [side, side])]).mean(dim=0)


def evidence(result: LocalizationResult) -> dict[str, Statistic]:
    """The numbers of kou2021's tables as functions of image weights, all of them errors.

    The result is from `wsolnb.localization.locate.tune_and_evaluate` with `ks=(1, 5)`. At the chosen threshold
    `top1_loc_error`, `top5_loc_error` (box or class wrong) and `gt_known_error`; at every draw's best threshold
    `gt_known_error_oracle`; `top1_cls_error`, `top5_cls_error`.

    Example:
        >>> from wsolnb.localization.locate import tune_and_evaluate
        >>> heads = torch.zeros(1, 2, 8, 12)
        >>> heads[0, 0, 2:6, 3:6], heads[0, 1, 2:6, 6:9] = 1, 1
        >>> truth = (torch.tensor([[0.9, 0.1]]), torch.tensor([1]), [torch.tensor([[3.0, 2.0, 9.0, 6.0]])], (8, 12))
        >>> maps = LocalizationMaps(heads, *truth, upsample=merged)
        >>> rates = evidence(tune_and_evaluate(maps, maps, RULE, ks=(1, 5)))
        >>> {name: float(rate(torch.ones(1, 1))) for name, rate in rates.items() if "top" in name}
        {'top1_loc_error': 1.0, 'top5_loc_error': 0.0, 'top1_cls_error': 1.0, 'top5_cls_error': 0.0}
    """
    maps, metric, threshold = result.maps, result.metric, result.rule.threshold
    rank = (maps.scores > maps.scores.gather(1, maps.labels[:, None])).sum(dim=1)
    right, best = metric.statistic("gt_known", threshold), metric.statistic("gt_known")
    return {
        "top1_loc_error": metric.statistic("top1_error", threshold),
        "top5_loc_error": metric.statistic("top5_error", threshold),
        "top1_cls_error": mean_statistic(rank >= 1),
        "top5_cls_error": mean_statistic(rank >= 5),
        "gt_known_error": lambda weights: 1 - right(weights),
        "gt_known_error_oracle": lambda weights: 1 - best(weights),
    }
