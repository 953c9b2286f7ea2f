"""Score maps that any framework saved, against the field's metadata files.

Most of the time of `wsolnb eval` goes into imports, so torchmetrics, with all that it loads, is imported for PxAP only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wsolnb._utils.progress import headless
from wsolnb.boxes import BoxRule
from wsolnb.data.readers.protocol import ProtocolSplit, load_masks, read_split, scaled_boxes
from wsolnb.localization.maps import stretched
from wsolnb.metrics._best_iou import best_ious, exclusive_truth
from wsolnb.metrics._checks import threshold_grid, threshold_index

_BOX_METRICS = {
    "maxboxacc": ("MaxBoxAcc", "wsoleval", (0.5,)),
    "maxboxaccv2": ("MaxBoxAccV2", "wsoleval_multi", (0.3, 0.5, 0.7)),
}
"""Name, box rule and IoU thresholds of `wsolnb.metrics.MaxBoxAcc` and `MaxBoxAccV2`."""

PROTOCOLS = (*_BOX_METRICS, "pxap")
_COARSEST = 64  # cells of a side: on coarser maps even noise scores, as the true boxes are truncated to whole cells
_BATCH_PIXELS = 64 * 224 * 224


def evaluate_maps(
    maps: str | Path,
    metadata: str | Path,
    protocol: str = "maxboxaccv2",
    *,
    masks: str | Path | None = None,
    thresholds: int = 1000,
    threshold: float | None = None,
    enlarge: int | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Score saved maps by the field's protocol.

    The ground truth is scaled to the size of each map, as the protocol does with its 224 x 224 maps, and truncated to
    whole cells. A map with a side of fewer than 64 cells, and fewer than its image has pixels, is too coarse for that,
    and refused unless it is enlarged.

    Args:
        maps: A folder of ``<image id>.npy`` (or with ``.npy`` in place of the image's suffix), or a ``.safetensors``
            file whose keys are the image ids. One map ``(H, W)`` in [0, 1] per image of the split.
        metadata: Folder of one split, see :mod:`wsolnb.data.readers.protocol`. Its far corners are read as inclusive.
        protocol: ``"maxboxacc"``, ``"maxboxaccv2"`` or ``"pxap"``.
        masks: Folder of the mask files, for ``"pxap"``.
        thresholds: Number of thresholds.
        threshold: A threshold chosen on another split, to report its number beside the oracle's.
        enlarge: Side in pixels, 64 or more, of the squares to which all maps are enlarged first: bicubic, and each
            stretched to [0, 1], as the protocol does (224).

    Returns:
        The result, ready for JSON (an undefined number is None), and the columns of a table with one row per threshold.
        Box numbers under ``value`` are oracles: the threshold is the best on these very images.

    Raises:
        FileNotFoundError: If maps, metadata or masks do not exist.
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
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    split = read_split(metadata)
    if enlarge is not None and enlarge < _COARSEST:
        raise ValueError(f"enlarge maps to {_COARSEST} pixels a side or more (--enlarge 224), not to {enlarge}")
    read = _sized(_reader(Path(maps), split), split, enlarge)
    if protocol == "pxap":
        if split.masks is None:
            raise ValueError(f"pxap needs masks, but localization.txt in {metadata} has none")
        if masks is None:
            raise ValueError("pxap needs the folder of the mask files: give masks (--masks)")
    elif split.boxes is None or split.sizes is None:
        raise ValueError(f"{protocol} needs boxes and image sizes, but the files in {metadata} lack them")
    grid = threshold_grid(thresholds)
    if threshold is not None:
        threshold_index(grid, threshold)
    if protocol == "pxap":
        rows, curve = _score_pixels(read, split, str(masks), thresholds, threshold)
    else:
        rows, curve = _score_boxes(read, split, protocol, grid, threshold)
    rows = [(name, value if value is not None and isfinite(value) else None, at, how) for name, value, at, how in rows]
    numbers = [dict(zip(("name", "value", "threshold", "chosen"), row, strict=True)) for row in rows]
    result = {"protocol": protocol, "maps": str(maps), "metadata": str(metadata), "images": len(split)}
    result |= {} if enlarge is None else {"enlarge": enlarge}
    return result | {"value": rows[0][1], "numbers": numbers}, {name: values.numpy() for name, values in curve.items()}


_Read = Callable[[str], Tensor]  # from image id to map
_Row = tuple[str, float | None, float | None, str]  # name, value, threshold, how the threshold was chosen
_Scored = tuple[list[_Row], dict[str, Tensor]]  # the numbers, the protocol's first, and the columns of the curve
_ORACLE, _FIXED = "oracle: best on these images", "fixed: chosen elsewhere"


def _score_boxes(
    read: _Read, split: ProtocolSplit, protocol: str, thresholds: Tensor, threshold: float | None
) -> _Scored:
    metric, preset, ious = _BOX_METRICS[protocol]
    rule = replace(BoxRule.preset(preset), resize=None, normalise=None)
    correct = torch.zeros(len(ious), len(thresholds), dtype=torch.int64)
    sizes, truth = split.sizes, split.boxes
    assert sizes is not None
    assert truth is not None

    def update(maps: Tensor, indices: list[int]) -> None:
        _, height, width = maps.shape
        boxes = [scaled_boxes(truth[i], tuple(sizes[i].tolist()), (height, width)) for i in indices]
        best = best_ious(maps, exclusive_truth(boxes, len(maps), "inclusive"), rule, thresholds)
        correct.add_((best[:, None] >= torch.tensor(ious, dtype=torch.float64)[:, None]).sum(dim=0))

    _in_batches(read, split, update)
    accuracy = correct.double() / len(split)
    value, best = float(accuracy.amax(dim=1).mean()), thresholds[accuracy.argmax(dim=1)].tolist()
    names, several = [f"accuracy@{iou:g}" for iou in ious], len(ious) > 1
    rows: list[_Row] = [(metric, value, None if several else best[0], _ORACLE + ", one per IoU" * several)]
    if several:
        rows += [(*row, _ORACLE) for row in zip(names, accuracy.amax(dim=1).tolist(), best, strict=True)]
    if threshold is not None:
        fixed = accuracy[:, threshold_index(thresholds, threshold)]
        rows.append((metric, float(fixed.mean()), threshold, _FIXED))
        if several:
            rows += [(name, at, threshold, _FIXED) for name, at in zip(names, fixed.tolist(), strict=True)]
    return rows, {"threshold": thresholds} | dict(zip(names, accuracy, strict=True))


def _score_pixels(read: _Read, split: ProtocolSplit, masks: str, thresholds: int, threshold: float | None) -> _Scored:
    from wsolnb.metrics.pixels import PxAP

    metric = PxAP(thresholds)

    def update(maps: Tensor, indices: list[int]) -> None:
        _, height, width = maps.shape
        pairs = [load_masks(split, index, masks, (height, width)) for index in indices]
        metric.update(maps, *map(torch.stack, zip(*pairs, strict=True)))

    _in_batches(read, split, update)
    curve = metric.curve()
    rows: list[_Row] = [
        ("PxAP", float(metric.compute()), None, "none needed"),
        ("IoU of pixels", float(curve["iou"].max()), metric.best_threshold(), _ORACLE),
    ]
    if threshold is not None:
        at = metric.at(threshold)
        names = {"iou": "IoU of pixels", "precision": "precision", "recall": "recall"}
        rows += [(name, float(at[key]), threshold, _FIXED) for key, name in names.items()]
    return rows, curve


def _in_batches(read: _Read, split: ProtocolSplit, update: Callable[[Tensor, list[int]], None]) -> None:
    """Score each batch in a thread while the next one is read; at most one is being scored."""
    with ThreadPoolExecutor(1) as worker:
        pending = None
        for maps, indices in _batches(read, split):
            if pending is not None:
                pending.result()
            pending = worker.submit(update, maps, indices)
        if pending is not None:
            pending.result()


def _batches(read: _Read, split: ProtocolSplit) -> Iterator[tuple[Tensor, list[int]]]:
    """Checked maps of one size in batches of bounded memory, and the indices of their images."""
    batch: list[Tensor] = []
    indices: list[int] = []
    for index, image in track(enumerate(split.image_ids), "scoring maps", total=len(split), disable=headless()):
        values = read(image)
        if batch and (values.shape != batch[0].shape or (len(batch) + 1) * values.numel() > _BATCH_PIXELS):
            yield torch.stack(batch), indices
            batch, indices = [], []
        batch.append(values)
        indices.append(index)
    yield torch.stack(batch), indices


def _sized(read: _Read, split: ProtocolSplit, enlarge: int | None) -> _Read:
    """A function from image id to its map, enlarged if asked; a coarse one, or one on its side, is refused."""
    stated = {} if split.sizes is None else dict(zip(split.image_ids, split.sizes.tolist(), strict=True))

    def sized(image: str) -> Tensor:
        values = read(image)
        rows, columns = values.shape
        height, width = stated.get(image, (_COARSEST, _COARSEST))
        if (rows, columns) == (width, height) and rows != columns:
            raise ValueError(
                f"the map of {image!r} has {columns} x {rows} pixels, image_sizes.txt states {width} x {height}: width "
                "and height change places in one of them"
            )
        if enlarge is not None:
            return stretched(values[None], (enlarge, enlarge))[0]
        if rows < min(_COARSEST, height) or columns < min(_COARSEST, width):
            raise ValueError(
                f"the map of {image!r} has {columns} x {rows} pixels, too coarse for its boxes or masks: give enlarge "
                "(--enlarge 224, as the protocol does), or save larger maps"
            )
        return values

    return sized


def _reader(maps: Path, split: ProtocolSplit) -> _Read:
    """A function from image id to its checked map, after maps and images have been matched one to one."""
    if maps.is_dir():
        names = {path.relative_to(maps).as_posix() for path in maps.rglob("*.npy")}
        files = {image: f"{image}.npy" if f"{image}.npy" in names else Path(image).with_suffix(".npy").as_posix()
                 for image in split.image_ids}  # fmt: skip
        _match(files, names, maps)

        def from_folder(image: str) -> Tensor:
            path = maps / files[image]
            try:
                values = np.load(path, allow_pickle=False)
                return _checked(torch.from_numpy(values.astype(values.dtype.newbyteorder("="))), f"map {path}")
            except Exception as error:  # of a damaged file, NumPy raises almost anything
                message = str(error) if str(path) in str(error) else f"map {path} does not load: {error}"
                raise ValueError(message) from None

        return from_folder
    if not maps.is_file():
        raise FileNotFoundError(f"no maps at {maps}: give a folder of .npy files or a .safetensors file")
    try:
        tensors = safe_open(maps, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{maps} is no safetensors file: {error}") from None
    _match({image: image for image in split.image_ids}, set(tensors.keys()), maps)

    def from_tensors(image: str) -> Tensor:
        try:
            values = tensors.get_tensor(image)
        except Exception as error:  # of a damaged file, safetensors and torch raise several kinds
            raise ValueError(f"map {image!r} in {maps} does not load: {error}") from None
        return _checked(values, f"map {image!r} in {maps}")

    return from_tensors


def _match(files: dict[str, str], names: set[str], maps: Path) -> None:
    """Refuse maps without an image and images without a map."""
    missing = [image for image, file in files.items() if file not in names]
    extra = sorted(names - set(files.values()))
    twice = len(files) - len(set(files.values()))
    if missing or extra or twice:
        problems = [f"{len(names)} maps in {maps} for {len(files)} images"]
        problems += [f"{len(missing)} images have no map, the first is {missing[0]!r}"] if missing else []
        problems += [f"{len(extra)} maps belong to no image, the first is {extra[0]!r}"] if extra else []
        problems += [f"{twice} images share a map with another: name the files <image id>.npy"] if twice else []
        raise ValueError("; ".join(problems))


def _checked(values: Tensor, what: str) -> Tensor:
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{what} must have shape (height, width), got {tuple(values.shape)}")
    if not values.is_floating_point():
        raise ValueError(f"{what} must be floating point in [0, 1], not {values.dtype}")
    values = values.float() if values.element_size() < 4 else values
    low, high = torch.aminmax(values)
    if not bool((low >= 0) & (high <= 1)):
        if not bool(values.isfinite().all()):
            raise ValueError(f"{what} holds NaN or infinite values")
        raise ValueError(f"{what} has values from {low:g} to {high:g}, outside of [0, 1]")
    return values
