"""Saved maps and scores of several methods by the field's protocol: one number after the other, with intervals.

Most of the time of `wsolnb eval` goes into imports, so torchmetrics, with all that it loads, is imported for PxAP only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from wsolnb.boxes import BoxRule
from wsolnb.data.readers.protocol import ProtocolSplit, load_masks, read_split, scaled_boxes
from wsolnb.localization.saved_maps import read_scores, score_in_batches
from wsolnb.metrics._best_iou import best_ious, exclusive_truth
from wsolnb.metrics._checks import threshold_grid, threshold_index
from wsolnb.metrics.bootstrap import Interval, Statistic, interval

if TYPE_CHECKING:
    from wsolnb.metrics.pixels import PxAP

_BOX_RULES = {"maxboxacc": ("wsoleval", (0.5,)), "maxboxaccv2": ("wsoleval_multi", (0.3, 0.5, 0.7))}
"""Box rule and IoU thresholds of `wsolnb.metrics.MaxBoxAcc` and `MaxBoxAccV2`."""

PROTOCOLS = (*_BOX_RULES, "pxap")
TOP = (1, 5)
NAMES = {
    "maxboxacc": ("MaxBoxAcc", *(f"Top-{k}" for k in TOP)),
    "maxboxaccv2": ("MaxBoxAccV2", *(f"MaxBoxAccV2@{iou:g}" for iou in _BOX_RULES["maxboxaccv2"][1])),
    "pxap": ("PxAP", "pixel IoU"),
}
"""The numbers of each protocol."""

_ROWS = 2048  # images whose bits are floating point at a time


@dataclass(frozen=True)
class SavedMethod:
    """What a method left on disk: a map for each image, and perhaps class scores and the maps of a validation split.

    Attributes:
        maps: As for `wsolnb.localization.saved_maps.score_in_batches`; the maps of the images' own classes.
        scores: As for `wsolnb.localization.saved_maps.read_scores`, or None.
        val: Metadata and maps of another split, on which this method's fixed thresholds are chosen, or None.
    """

    maps: str | Path
    scores: str | Path | None = None
    val: tuple[str | Path, str | Path] | None = None


@dataclass(frozen=True)
class _Number:
    name: str
    kind: str  # "oracle", "fixed", or "" for one that needs no threshold
    chosen: str  # how the threshold was chosen
    threshold: float | None  # None for one without, or with several
    statistic: Statistic


_Curve = dict[str, Tensor]  # one row for each threshold


def evaluate_maps(
    methods: Mapping[str, SavedMethod],
    metadata: str | Path,
    protocols: Sequence[str] | None = None,
    *,
    masks: str | Path | None = None,
    thresholds: int = 1000,
    threshold: float | None = None,
    enlarge: int | None = None,
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Score saved maps of one or several methods by the field's protocol.

    The ground truth is scaled to the size of each map, as the protocol does with its 224 x 224 maps, and truncated to
    whole cells. Intervals are 95 % bootstraps over images; those of differences from the first method are paired.

    Fixed thresholds are those that are best on the validation split: the one of MaxBoxAcc also for Top-1 and Top-5, one
    for each IoU of MaxBoxAccV2, the best pooled IoU of pixels.

    Args:
        methods: What each method left on disk, by name.
        metadata: Folder of one split, see :mod:`wsolnb.data.readers.protocol`. Its far corners are read as inclusive.
        protocols: Of ``"maxboxacc"`` (with Top-1 and Top-5), ``"maxboxaccv2"`` and ``"pxap"``; None for all, and what
            the metadata do not permit is absent.
        masks: Folder of the mask files, of the validation split too, for ``"pxap"``.
        thresholds: Number of thresholds.
        threshold: One threshold chosen elsewhere for all methods, in place of validation splits.
        enlarge: As for `wsolnb.localization.saved_maps.score_in_batches`.

    Returns:
        The result, ready for JSON (``methods``, ``numbers`` as fractions, ``differences``, and what is ``absent`` and
        why), and the curves of each method, with one row per threshold.

    Raises:
        FileNotFoundError: If maps, scores, metadata or masks do not exist.
        ValueError: If maps or scores and images do not match, one is malformed (which one), the metadata are or lack
            what a protocol needs, or the validation split shares images with the split.

    Example:
        >>> import tempfile
        >>> from wsolnb.data.readers.protocol import write_split
        >>> boxes, size = (torch.tensor([[0, 0, 3, 3]]),), torch.tensor([[8, 8]])
        >>> split = ProtocolSplit(("1.jpg",), torch.tensor([0]), sizes=size, boxes=boxes)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_split(split, folder)
        ...     np.save(Path(folder) / "1.npy", np.pad(np.ones((4, 4), dtype=np.float32), (0, 4)))
        ...     result, curves = evaluate_maps({"cam": SavedMethod(folder)}, folder, ["maxboxacc"])
        >>> [(row["name"], row["value"]) for row in result["numbers"]]
        [('MaxBoxAcc', 1.0)]
    """
    if not methods:
        raise ValueError("no method to evaluate")
    if unknown := set(protocols or ()) - set(PROTOCOLS):
        raise ValueError(f"unknown protocol {sorted(unknown)[0]!r}: choose of {', '.join(PROTOCOLS)}")
    split = read_split(metadata)
    problems = {name: _lacking(name, split, metadata, masks) for name in protocols or PROTOCOLS}
    possible = [name for name, problem in problems.items() if not problem]
    if not possible or (protocols and len(possible) < len(problems)):
        raise ValueError("; ".join(filter(None, problems.values())))
    grid = threshold_grid(thresholds)
    if threshold is not None:
        threshold_index(grid, threshold)
        if any(method.val for method in methods.values()):
            raise ValueError("give a fixed threshold, or validation splits to choose them on, not both")
    absent = [{"names": list(NAMES[name]), "why": why} for name, why in problems.items() if why]
    numbers, differences, curves = [], [], {}
    first: dict[tuple[str, str], Interval] = {}
    for name, method in methods.items():
        found, curve = _numbers(method, split, possible, masks, grid, threshold, enlarge)
        curves[name] = {column: values.numpy() for column, values in curve.items()}
        for number in found:
            at = interval(number.statistic, len(split))
            about: dict[str, Any] = {"method": name, "name": number.name, "kind": number.kind}
            at_threshold = {"threshold": number.threshold, "chosen": number.chosen}
            numbers.append(about | _values(at) | at_threshold)
            key = number.name, number.kind
            if name == next(iter(methods)):
                first[key] = at
            elif key in first:
                differences.append(about | {"minus": next(iter(methods))} | _values(at.minus(first[key])))
        absent += [{"method": name, "names": names, "why": why} for names, why in _absent(method, possible, threshold)]
    result = {
        "metadata": str(metadata),
        "images": len(split),
        "protocols": possible,
        "methods": {name: _described(method) for name, method in methods.items()},
        "numbers": numbers,
        "differences": differences,
        "absent": absent,
    }
    return result | ({} if enlarge is None else {"enlarge": enlarge}), curves


def _values(at: Interval) -> dict[str, float]:
    return {"value": at.value, "low": at.low, "high": at.high}


def _described(method: SavedMethod) -> dict[str, Any]:
    about: dict[str, Any] = {"maps": str(method.maps)}
    about |= {"scores": str(method.scores)} if method.scores else {}
    return about | ({"val": {"metadata": str(method.val[0]), "maps": str(method.val[1])}} if method.val else {})


def _lacking(protocol: str, split: ProtocolSplit, metadata: str | Path, masks: str | Path | None) -> str:
    """Why a protocol cannot be applied to a split; nothing if it can."""
    if protocol == "pxap":
        if split.masks is None:
            return f"pxap needs masks, but localization.txt in {metadata} has none"
        return "" if masks else "pxap needs the folder of the mask files: give masks (--masks)"
    if split.boxes is None or split.sizes is None:
        return f"{protocol} needs boxes and image sizes, but the files in {metadata} lack them"
    return ""


def _absent(method: SavedMethod, protocols: Sequence[str], threshold: float | None) -> Iterator[tuple[list[str], str]]:
    if "maxboxacc" in protocols and method.scores is None:
        yield [f"Top-{k}" for k in TOP], "no scores of it were given (--scores)"
    if threshold is None and method.val is None:
        yield ["fixed"], "no other split with maps of it was given to choose thresholds on (--tune)"


def _numbers(
    method: SavedMethod,
    split: ProtocolSplit,
    protocols: Sequence[str],
    masks: str | Path | None,
    grid: Tensor,
    threshold: float | None,
    enlarge: int | None,
) -> tuple[list[_Number], _Curve]:
    """All numbers of a method, and its curves."""
    scores = None if method.scores is None else read_scores(method.scores, split)
    val, how = None, "fixed: chosen elsewhere"
    if method.val:
        val, how = read_split(method.val[0]), f"fixed: best on {method.val[0]}"
        if shared := set(val.image_ids) & set(split.image_ids):
            what = f"{len(shared)} images of {method.val[0]} are evaluated too, such as {min(shared)!r}"
            raise ValueError(f"{what}: choose thresholds on other images")
        if problem := next(filter(None, (_lacking(name, val, method.val[0], masks) for name in protocols)), ""):
            raise ValueError(problem)
    numbers: list[_Number] = []
    curve: _Curve = {"threshold": grid}
    if boxed := [name for name in protocols if name in _BOX_RULES]:
        right = _right(method.maps, split, boxed, grid, enlarge)
        best: dict[str, list[int]] = {}
        if method.val and val:
            held_out = _right(method.val[1], val, boxed, grid, enlarge)
            best = {name: bits.double().mean(dim=0).argmax(dim=1).tolist() for name, bits in held_out.items()}
        elif threshold is not None:
            best = {name: [threshold_index(grid, threshold)] * len(_BOX_RULES[name][1]) for name in boxed}
        for name, parts, fixed in _box_parts(right, scores, split.labels, best):
            numbers += _box_numbers(name, parts, fixed, grid, how)
            curve |= {name: parts[0].double().mean(dim=0)} if len(parts) == 1 else {}
    if "pxap" in protocols:
        metric = _pixels(method.maps, split, str(masks), len(grid), enlarge)
        if method.val and val:
            threshold = _pixels(method.val[1], val, str(masks), len(grid), enlarge).best_threshold()
        numbers += _pixel_numbers(metric, threshold, how)
        curve |= metric.curve()
    return numbers, curve


def _right(
    maps: str | Path, split: ProtocolSplit, protocols: Sequence[str], grid: Tensor, enlarge: int | None
) -> dict[str, Tensor]:
    """Whether each image is right, bool ``(images, IoUs, thresholds)``, by protocol."""
    rules = {name: replace(BoxRule.preset(_BOX_RULES[name][0]), resize=None, normalise=None) for name in protocols}
    right = {name: torch.zeros(len(split), len(_BOX_RULES[name][1]), len(grid), dtype=torch.bool) for name in protocols}
    sizes, truth = split.sizes, split.boxes
    assert sizes is not None
    assert truth is not None

    def update(batch: Tensor, indices: list[int]) -> None:
        _, height, width = batch.shape
        boxes = [scaled_boxes(truth[i], tuple(sizes[i].tolist()), (height, width)) for i in indices]
        exclusive = exclusive_truth(boxes, len(batch), "inclusive")
        for name, rule in rules.items():
            best = best_ious(batch, exclusive, rule, grid)
            right[name][indices] = best[:, None] >= torch.tensor(_BOX_RULES[name][1], dtype=torch.float64)[:, None]

    score_in_batches(maps, split, enlarge, update)
    return right


def _box_parts(
    right: Mapping[str, Tensor], scores: Tensor | None, labels: Tensor, best: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, list[Tensor], Sequence[int] | None]]:
    """Every box number: its name, bits ``(images, thresholds)`` to be averaged, and the indices of fixed thresholds."""
    for protocol, bits in right.items():
        parts, fixed = list(bits.unbind(dim=1)), best.get(protocol)
        name, *others = NAMES[protocol]
        yield name, parts, fixed
        if protocol == "maxboxacc" and scores is not None:
            for other, k in zip(others, TOP, strict=True):
                yield other, [parts[0] & _among_best(scores, labels, k)[:, None]], fixed
        elif protocol == "maxboxaccv2":
            for row, other in enumerate(others):
                yield other, [parts[row]], None if fixed is None else [fixed[row]]


def _among_best(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """Whether each label is among the k best scores, bool ``(images,)``; of tied classes the first ranks higher."""
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return (order == labels[:, None]).any(dim=1)


def _box_numbers(
    name: str, parts: Sequence[Tensor], fixed: Sequence[int] | None, grid: Tensor, how: str
) -> Iterator[_Number]:
    several = len(parts) > 1
    at = None if several else float(grid[parts[0].double().mean(dim=0).argmax()])
    yield _Number(name, "oracle", "oracle: best on these images" + ", one per IoU" * several, at, _mean_of_best(parts))
    if fixed is not None:
        same = len(set(fixed)) == 1
        cut = [part[:, index : index + 1] for part, index in zip(parts, fixed, strict=True)]
        at = float(grid[fixed[0]]) if same else None
        yield _Number(name, "fixed", how + ", one per IoU" * (not same), at, _mean_of_best(cut))


def _mean_of_best(parts: Sequence[Tensor]) -> Statistic:
    """Accuracy at the best threshold of each part ``(images, thresholds)``, averaged over parts."""

    def accuracy(weights: Tensor) -> Tensor:
        best = []
        for part in parts:
            right = torch.zeros(len(weights), part.shape[1], dtype=torch.float64)
            for weight, bits in zip(weights.float().split(_ROWS, dim=1), part.split(_ROWS), strict=True):
                right += weight @ bits.float()  # whole numbers, exact
            best.append((right / weights.double().sum(dim=1, keepdim=True)).amax(dim=1))
        return torch.stack(best).mean(dim=0)

    return accuracy


def _pixels(maps: str | Path, split: ProtocolSplit, masks: str, thresholds: int, enlarge: int | None) -> PxAP:
    from wsolnb.metrics.pixels import PxAP

    metric = PxAP(thresholds, per_image=True)

    def update(batch: Tensor, indices: list[int]) -> None:
        _, height, width = batch.shape
        pairs = [load_masks(split, index, masks, (height, width)) for index in indices]
        metric.update(batch, *map(torch.stack, zip(*pairs, strict=True)))

    score_in_batches(maps, split, enlarge, update)
    return metric


def _pixel_numbers(metric: PxAP, threshold: float | None, how: str) -> Iterator[_Number]:
    yield _Number("PxAP", "", "none needed", None, metric.statistic())
    best = metric.best_threshold()
    yield _Number("pixel IoU", "oracle", "oracle: best on these images", best, metric.iou_statistic())
    if threshold is not None:
        yield _Number("pixel IoU", "fixed", how, threshold, metric.iou_statistic(threshold))
