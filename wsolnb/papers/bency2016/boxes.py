"""Boxes of all blobs of a heat map, a threshold per class, and average precision of points and boxes (bency2016).

Paper: https://doi.org/10.48550/arXiv.1603.00489
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from wsolnb._utils.progress import track
from wsolnb.boxes import BoxRule
from wsolnb.localization.detect import Prediction
from wsolnb.localization.maps import SceneMaps
from wsolnb.localization.points import Rank, judge_points, peaks
from wsolnb.metrics import VOCAP
from wsolnb.metrics.bootstrap import Statistic, mean_statistic

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def blob_boxes(found: SceneMaps, thresholds: Tensor, *, rank: Rank = "heat") -> list[Prediction]:
    """Boxes around all blobs of all maps (bency2016 Sec. 3.4), so that a class can have several instances.

    Maps are cut at a fraction of their maximum, `thresholds` `(K,)`; one without a positive value gives no box. Per
    image, `boxes` are xyxy in original pixels. Their `scores` are by `rank`: `heat`, the mean of the map inside the
    box, or `class`, the class's score in the image.

    Raises:
        ValueError: Unless there is one threshold in [0, 1) per class.

    Example:
        >>> heat = torch.zeros(1, 30, 40)
        >>> heat[0, 5:15, 5:15], heat[0, 20:28, 30:38] = 1.0, 0.8
        >>> found = SceneMaps([heat], torch.tensor([[0.9]]), torch.tensor([[30, 40]]), [{}])
        >>> blob_boxes(found, torch.tensor([0.5]))[0]["boxes"].tolist()
        [[5.0, 5.0, 15.0, 15.0], [30.0, 20.0, 38.0, 28.0]]
    """
    maps = torch.stack(list(found.maps))
    if thresholds.shape != maps.shape[1:2] or not bool(((thresholds >= 0) & (thresholds < 1)).all()):
        raise ValueError(f"expected {maps.shape[1]} thresholds in [0, 1), got {thresholds.tolist()}")
    cut = maps.amax(dim=(2, 3), keepdim=True) * thresholds[:, None, None]
    shifted = torch.where(maps.amax(dim=(2, 3), keepdim=True) > 0, maps - cut, -1.0)
    rule = BoxRule(0.0, reference="absolute", resize="bilinear", component="all", empty="none")
    boxes, image, klass = rule.all_boxes(shifted, found.sizes)
    if rank == "class":
        scores = found.scores[image, klass]
    else:
        scores = _means(maps[image, klass], boxes / found.sizes[image].flip(1).repeat(1, 2))
    rows = [image == number for number in range(len(maps))]
    return [{"boxes": boxes[row], "scores": scores[row], "labels": klass[row]} for row in rows]


def tune_thresholds(found: SceneMaps, *, candidates: Sequence[float] = THRESHOLDS, rank: Rank = "heat") -> Tensor:
    """The threshold of every class with the best average precision at IoU 0.5 (bency2016 Sec. 3.4), float32 `(K,)`.

    `found` is of held-out images, `candidates` are fractions of the map's maximum. Ties go to the threshold nearest to
    the best one of all classes together, which is also that of classes without an object.

    Example:
        >>> heat = torch.zeros(2, 30, 40)
        >>> heat[0, 5:25, 5:35], heat[0, 10:20, 10:20] = 0.35, 1.0
        >>> truth = {"boxes": torch.tensor([[10.0, 10.0, 20.0, 20.0]]), "labels": torch.tensor([0])}
        >>> tune_thresholds(SceneMaps([heat], torch.tensor([[0.9, 0.1]]), torch.tensor([[30, 40]]), [truth]))
        tensor([0.4000, 0.4000])
    """
    classes = found.scores.shape[1]
    rows = []
    for candidate in track(candidates, "thresholds"):
        judged = judge_boxes(found, blob_boxes(found, torch.full((classes,), candidate), rank=rank)).compute()
        rows.append(judged["AP"].reshape(classes))  # torchmetrics makes a scalar of the only class
    table = torch.stack(rows)
    shared = int(table.nanmean(dim=1).nan_to_num().argmax())
    near = -(torch.arange(len(table)) - shared).abs() * 1e-9
    best = (table.nan_to_num() + near[:, None]).argmax(dim=0)
    return torch.tensor(list(candidates))[best]


def judge_boxes(
    found: SceneMaps,
    predictions: Sequence[Prediction],
    *,
    iou: float = 0.5,
    interpolation: Literal["area", "voc07"] = "area",
) -> VOCAP:
    """Detection average precision by Pascal VOC's rules (Tables 3 and 4).

    `interpolation` is that of the precision-recall curve: the area under it as since VOC2010, or with `voc07` the mean
    of 11 points, as VOC2007's development kit computes it.

    Example:
        >>> truth = {"boxes": torch.tensor([[5.0, 5.0, 15.0, 15.0]]), "labels": torch.tensor([0])}
        >>> found = SceneMaps([torch.zeros(1, 3, 4)], torch.tensor([[0.9]]), torch.tensor([[30, 40]]), [truth])
        >>> float(judge_boxes(found, [truth | {"scores": torch.tensor([0.8])}]).compute()["mAP"])
        1.0
    """
    metric = VOCAP(found.scores.shape[1], iou, interpolation, sync_on_compute=False)
    metric.update(predictions, found.targets)
    return metric


def point_evidence(found: SceneMaps) -> dict[str, Statistic]:
    """Points as functions of image weights: `loc_map`, ranked by class score (Table 1), and `point_acc`.

    `point_acc`, ours, knows which classes an image shows: the share of them whose point lies in an object of the class,
    averaged over images. How well a method classifies has no part in it. Both need the maps of present classes only, as
    an absent class is wrong wherever it points.

    Example:
        >>> heat = torch.zeros(1, 30, 40)
        >>> heat[0, 5:15, 5:15] = 1.0
        >>> truth = {"boxes": torch.tensor([[5.0, 5.0, 15.0, 15.0]]), "labels": torch.tensor([0])}
        >>> found = SceneMaps([heat], torch.tensor([[0.9]]), torch.tensor([[30, 40]]), [truth])
        >>> {name: float(number(torch.ones(1, 1))) for name, number in point_evidence(found).items()}
        {'loc_map': 1.0, 'point_acc': 1.0}
    """
    maps = torch.stack(list(found.maps))
    height, width = maps.shape[2:]
    shares = []
    for place, size, target in zip(peaks(maps).flatten(2).argmax(dim=2), found.sizes, found.targets, strict=True):
        labels, boxes = target["labels"], target["boxes"]
        y, x = (place[labels] // width + 0.5) * size[0] / height, (place[labels] % width + 0.5) * size[1] / width
        inside = (boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])
        shares.append(torch.tensor([float(inside[labels == k].any()) for k in labels.unique()]).mean())
    accuracy = torch.stack(shares)
    return {
        "loc_map": judge_points(found).statistic(),
        "point_acc": mean_statistic(accuracy.nan_to_num(), accuracy.isfinite()),
    }


def box_evidence(
    found: SceneMaps, boxes: Sequence[Prediction], interpolation: Literal["area", "voc07"] = "area"
) -> dict[str, Statistic]:
    """What needs the maps of all classes, as functions of image weights: `loc_map_heat` (Sec. 4.2) and `ap50`.

    Example:
        >>> heat = torch.zeros(1, 30, 40)
        >>> heat[0, 5:15, 5:15] = 1.0
        >>> truth = {"boxes": torch.tensor([[5.0, 5.0, 15.0, 15.0]]), "labels": torch.tensor([0])}
        >>> found = SceneMaps([heat], torch.tensor([[0.9]]), torch.tensor([[30, 40]]), [truth])
        >>> said = box_evidence(found, blob_boxes(found, torch.tensor([0.5])))
        >>> {name: float(number(torch.ones(1, 1))) for name, number in said.items()}
        {'loc_map_heat': 1.0, 'ap50': 1.0}
    """
    detected = judge_boxes(found, boxes, interpolation=interpolation)
    return {"loc_map_heat": judge_points(found, rank="heat").statistic(), "ap50": detected.statistic()}


def first(found: SceneMaps, count: int) -> SceneMaps:
    """The first images.

    Example:
        >>> found = SceneMaps(list(torch.zeros(5, 1, 3, 4)), torch.zeros(5, 1), torch.zeros(5, 2), [{}] * 5)
        >>> len(first(found, 2))
        2
    """
    return SceneMaps(found.maps[:count], found.scores[:count], found.sizes[:count], found.targets[:count])


def without(found: SceneMaps, labels: Sequence[int]) -> SceneMaps:
    """The same without the objects of some classes, whose average precision becomes undefined (NaN) instead of 0.

    For classes that no training image shows.

    Example:
        >>> truth = {"boxes": torch.rand(2, 4).sort().values, "labels": torch.tensor([0, 1])}
        >>> found = SceneMaps([torch.zeros(2, 3, 4)], torch.zeros(1, 2), torch.tensor([[30, 40]]), [truth])
        >>> without(found, [0]).targets[0]["labels"]
        tensor([1])
    """
    gone = torch.tensor(sorted(labels), dtype=torch.int64)
    targets = []
    for target in found.targets:
        keep = ~torch.isin(target["labels"], gone)
        part = {key: value[keep] for key, value in target.items() if key in ("boxes", "labels", "crowd")}
        targets.append({**target, **part})
    return SceneMaps(found.maps, found.scores, found.sizes, targets)


def _means(maps: Tensor, boxes: Tensor) -> Tensor:
    """Mean of maps `(n, h, w)` inside a box each, xyxy as fractions of the map; cells count by the area covered."""
    shares = []
    for cells, low, high in ((maps.shape[1], 1, 3), (maps.shape[2], 0, 2)):
        start, edges = torch.arange(cells, dtype=torch.float32), boxes.float() * cells
        share = (torch.minimum(edges[:, high, None], start + 1) - torch.maximum(edges[:, low, None], start)).clamp(0)
        shares.append(share / share.sum(dim=1, keepdim=True).clamp(min=1e-9))
    return torch.einsum("nyx,ny,nx->n", maps, *shares)
