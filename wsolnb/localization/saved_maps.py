"""Score maps that any framework saved, against the field's metadata files: ``wsolnb eval``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.progress import track
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wsolnb._utils.progress import headless
from wsolnb.data.readers.protocol import ProtocolSplit, load_masks, read_split, scaled_boxes
from wsolnb.localization._background import Background
from wsolnb.metrics import MaxBoxAcc, MaxBoxAccV2, PxAP
from wsolnb.metrics._checks import threshold_index

_BATCH_PIXELS = 64 * 224 * 224


class Protocol(StrEnum):
    """What to compute from the maps."""

    MAXBOXACC = "maxboxacc"
    MAXBOXACCV2 = "maxboxaccv2"
    PXAP = "pxap"


def evaluate_maps(
    maps: str | Path,
    metadata: str | Path,
    protocol: str = "maxboxaccv2",
    *,
    masks: str | Path | None = None,
    thresholds: int = 1000,
    threshold: float | None = None,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Score saved maps by the field's protocol.

    Maps are taken as they are, in [0, 1], and the ground truth is brought to the size of each map, as the protocol does
    with its 224 x 224 maps: enlarge maps of a network's own resolution before they are saved.

    Args:
        maps: A folder of ``<image id>.npy`` (or with ``.npy`` in place of the image's suffix), or a ``.safetensors``
            file whose keys are the image ids. One map ``(H, W)`` per image of the split, no more and no fewer.
        metadata: Folder of one split, see :mod:`wsolnb.data.readers.protocol`. Its far corners are read as inclusive.
        protocol: ``"maxboxacc"``, ``"maxboxaccv2"`` or ``"pxap"``.
        masks: Folder below which mask files lie, for ``"pxap"``.
        thresholds: Number of thresholds.
        threshold: A threshold chosen on another split, to report its number beside the oracle's.

    Returns:
        The result, ready for JSON, and a table with one row per threshold. Box numbers under ``value`` are oracles: the
        threshold is the best on these very images.

    Raises:
        FileNotFoundError: If maps, metadata or masks are not there.
        ValueError: If maps and images do not match one to one, a map is malformed (which one), or the metadata are.

    Example:
        >>> import tempfile
        >>> from wsolnb.data.readers.protocol import write_split
        >>> boxes, size = (torch.tensor([[0, 0, 3, 3]]),), torch.tensor([[8, 8]])
        >>> split = ProtocolSplit(("1.jpg",), torch.tensor([0]), sizes=size, boxes=boxes)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_split(split, folder)
        ...     np.save(Path(folder) / "1.npy", np.pad(np.ones((4, 4), dtype=np.float32), (0, 4)))
        ...     result, curve = evaluate_maps(folder, folder, "maxboxacc")
        >>> result["value"]
        1.0
    """
    kind = Protocol(protocol) if protocol in list(Protocol) else None
    if kind is None:
        raise ValueError(f"unknown protocol {protocol!r}: choose one of {', '.join(Protocol)}")
    split = read_split(metadata)
    read = _reader(Path(maps), split)
    if kind is Protocol.PXAP:
        if split.masks is None:
            raise ValueError(f"pxap needs masks, but localization.txt in {metadata} has none")
        if masks is None:
            raise ValueError("pxap needs the folder of the mask files: give masks (--masks)")
    elif split.boxes is None or split.sizes is None:
        raise ValueError(f"{kind} needs boxes and image sizes, but the files in {metadata} lack them")
    metric: MaxBoxAccV2 | PxAP
    if kind is Protocol.PXAP:
        metric = PxAP(thresholds)
    elif kind is Protocol.MAXBOXACC:
        metric = MaxBoxAcc(gt_convention="inclusive", thresholds=thresholds)
    else:
        metric = MaxBoxAccV2("inclusive", thresholds=thresholds)
    if threshold is not None:
        threshold_index(metric.thresholds, threshold)
    background = Background()
    for batch, indices in _batches(read, split):
        frame = (batch.shape[1], batch.shape[2])
        if isinstance(metric, PxAP):
            pairs = [load_masks(split, index, str(masks), frame) for index in indices]
            background.submit(metric.update, batch, *map(torch.stack, zip(*pairs, strict=True)))
        else:
            background.submit(metric.update, batch, [_boxes(split, index, frame) for index in indices])
    background.result()
    about = {"protocol": str(kind), "maps": str(maps), "metadata": str(metadata), "images": len(split)}
    numbers, table = _pixel_report(metric, threshold) if isinstance(metric, PxAP) else _box_report(metric, threshold)
    return about | numbers, table


def _boxes(split: ProtocolSplit, index: int, frame: tuple[int, int]) -> Tensor:
    assert split.boxes is not None
    assert split.sizes is not None
    height, width = split.sizes[index].tolist()
    return scaled_boxes(split.boxes[index], (height, width), frame)


def _batches(read: Callable[[str], Tensor], split: ProtocolSplit) -> Iterator[tuple[Tensor, list[int]]]:
    """Checked maps of one size in batches of bounded memory, and the numbers of their images."""
    batch: list[Tensor] = []
    indices: list[int] = []
    every = enumerate(split.image_ids)
    for index, image in track(every, "scoring maps", total=len(split), disable=headless()):
        each = read(image)
        if batch and (each.shape != batch[0].shape or (len(batch) + 1) * each.numel() > _BATCH_PIXELS):
            yield torch.stack(batch), indices
            batch, indices = [], []
        batch.append(each)
        indices.append(index)
    yield torch.stack(batch), indices


def _reader(maps: Path, split: ProtocolSplit) -> Callable[[str], Tensor]:
    """A function from image id to its checked map, after maps and images have been matched one to one."""
    if maps.is_dir():
        names = {path.relative_to(maps).as_posix() for path in maps.rglob("*.npy")}
        places = {image: f"{image}.npy" if f"{image}.npy" in names else f"{Path(image).with_suffix('.npy').as_posix()}"
                  for image in split.image_ids}  # fmt: skip
        _match(places, names, maps)

        def from_folder(image: str) -> Tensor:
            path = maps / places[image]
            try:
                return _checked(torch.from_numpy(np.load(path, allow_pickle=False)), f"map {path}")
            except (ValueError, TypeError, EOFError) as error:
                raise ValueError(
                    str(error) if str(path) in str(error) else f"map {path} does not load: {error}"
                ) from None

        return from_folder
    if not maps.is_file():
        raise FileNotFoundError(f"no maps at {maps}: give a folder of .npy files or a .safetensors file")
    try:
        tensors = safe_open(maps, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{maps} is no safetensors file: {error}") from None
    _match({image: image for image in split.image_ids}, set(tensors.keys()), maps)
    return lambda image: _checked(tensors.get_tensor(image), f"map {image!r} in {maps}")


def _match(places: dict[str, str], names: set[str], maps: Path) -> None:
    """Refuse maps without an image and images without a map."""
    missing = [image for image, place in places.items() if place not in names]
    extra = sorted(names - set(places.values()))
    twice = len(places) - len(set(places.values()))
    if missing or extra or twice:
        problems = [f"{len(names)} maps in {maps} for {len(places)} images"]
        problems += [f"{len(missing)} images have no map, the first is {missing[0]!r}"] if missing else []
        problems += [f"{len(extra)} maps belong to no image, the first is {extra[0]!r}"] if extra else []
        problems += [f"{twice} images share a map with another: name the files <image id>.npy"] if twice else []
        raise ValueError("; ".join(problems))


def _checked(values: Tensor, what: str) -> Tensor:
    if values.ndim != 2:
        raise ValueError(f"{what} must have shape (height, width), got {tuple(values.shape)}")
    if not values.is_floating_point():
        raise ValueError(f"{what} must be floating point in [0, 1], not {values.dtype}")
    low, high = torch.aminmax(values)
    if not bool((low >= 0) & (high <= 1)):
        finite = bool(values.isfinite().all())
        problem = (
            f"has values from {low:g} to {high:g}, outside of [0, 1]" if finite else "holds NaN or infinite values"
        )
        raise ValueError(f"{what} {problem}")
    return values


def _box_report(metric: MaxBoxAccV2, threshold: float | None) -> tuple[dict[str, Any], pd.DataFrame]:
    """Numbers of a box metric, oracle first, and its curves."""
    accuracy = metric.accuracy()[0]
    ious = [f"{iou:g}" for iou in metric.iou_thresholds]
    value = float(metric.compute())
    best = metric.best_thresholds()
    oracle = "oracle: best on these images"
    name = type(metric).__name__
    single = len(ious) == 1
    numbers = [_number(name, value, best[0] if single else None, oracle if single else f"{oracle}, one per IoU")]
    if not single:
        rows = zip(ious, accuracy, best, strict=True)
        numbers += [_number(f"accuracy@{iou}", float(row.max()), cut, oracle) for iou, row, cut in rows]
    if threshold is not None:
        fixed = accuracy[:, metric.index_of(threshold)]
        numbers.append(_number(name, float(fixed.mean()), threshold, _FIXED))
        if not single:
            pairs = zip(ious, fixed.tolist(), strict=True)
            numbers += [_number(f"accuracy@{iou}", at, threshold, _FIXED) for iou, at in pairs]
    columns = {f"accuracy@{iou}": row.numpy() for iou, row in zip(ious, accuracy, strict=True)}
    return {"value": value, "numbers": numbers}, pd.DataFrame({"threshold": metric.thresholds.numpy(), **columns})


def _pixel_report(metric: PxAP, threshold: float | None) -> tuple[dict[str, Any], pd.DataFrame]:
    """Numbers of PxAP, which needs no threshold, and its curves."""
    value, curve, best = float(metric.compute()), metric.curve(), metric.best_threshold()
    numbers = [
        _number("PxAP", value, None, "none needed"),
        _number("IoU of pixels", float(curve["iou"].max()), best, "oracle: best on these images"),
    ]
    if threshold is not None:
        names = {"iou": "IoU of pixels", "precision": "precision", "recall": "recall"}
        at = metric.at(threshold)
        numbers += [_number(name, float(at[key]), threshold, _FIXED) for key, name in names.items()]
    return {"value": value, "numbers": numbers}, pd.DataFrame({name: row.numpy() for name, row in curve.items()})


_FIXED = "fixed: chosen elsewhere"


def _number(name: str, value: float, threshold: float | None, chosen: str) -> dict[str, Any]:
    return {"name": name, "value": value, "threshold": threshold, "chosen": chosen}
