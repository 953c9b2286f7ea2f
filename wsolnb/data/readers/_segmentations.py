"""COCO's segmentations, polygons and run lengths: checked when they are read, filled when they are asked for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths

Segmentation = list[list[float]] | bytes
"""Polygons of an object, or compressed run lengths."""

_BEYOND = 2**15  # pixels outside an image from which on a polygon takes time and memory without end


def read_segmentations(path: Path, annotations: Sequence[dict[str, Any]], sizes: np.ndarray) -> list[Segmentation]:
    """The checked segmentations of annotations of images of these heights and widths, int (N, 2)."""
    given = [a.get("segmentation") for a in annotations]
    if _all_polygons(given):  # one by one takes ten times as long
        return given  # type: ignore[return-value]
    pairs = zip(annotations, sizes.tolist(), strict=True)
    return [_segmentation(path, annotation, *size) for annotation, size in pairs]


def _all_polygons(given: Sequence[Any]) -> bool:
    """Whether all are lists of polygons of three points and more, in moderate distance of any image."""
    if not all(type(polygons) is list and polygons for polygons in given):
        return False
    parts = list(chain.from_iterable(given))
    if not all(type(part) is list and len(part) >= 6 and len(part) % 2 == 0 for part in parts):
        return False
    numbers = list(chain.from_iterable(parts))
    if not {*map(type, numbers)} <= {int, float}:
        return False
    return not numbers or (min(numbers) > -_BEYOND and max(numbers) < _BEYOND and sum(numbers) == sum(numbers))


def _segmentation(path: Path, annotation: dict[str, Any], height: int, width: int) -> Segmentation:
    given = annotation.get("segmentation")
    try:
        if not given:
            raise _Refused("is missing or empty")
        if isinstance(given, dict):
            return _checked_runs(given, height, width)
        return _checked_polygons(given, height, width)
    except (TypeError, ValueError, KeyError, OverflowError, AttributeError) as error:
        why = error if isinstance(error, _Refused) else "does not parse"
        message = f"{path}: the segmentation of annotation {annotation['id']!r:.40} {why}: {str(given)[:60]}"
        raise ValueError(message) from None


class _Refused(ValueError):
    """What is wrong with a segmentation."""


def _checked_polygons(given: Any, height: int, width: int) -> list[list[float]]:
    """Polygons with an area; those of one or two points are left out where there are others."""
    polygons = [np.array(part, dtype=np.float64) for part in given]
    for polygon in polygons:
        if polygon.ndim != 1 or len(polygon) % 2 or not np.isfinite(polygon).all():
            raise _Refused("has a polygon that is no list x, y, x, y, ... of numbers")
        if len(polygon) and (polygon.min() < -_BEYOND or polygon.max() > max(height, width) + _BEYOND):
            raise _Refused(f"has a polygon far outside its image of {width} x {height} pixels")
    if not (polygons := [polygon for polygon in polygons if len(polygon) >= 6]):
        raise _Refused("has no polygon of three points")
    return [polygon.tolist() for polygon in polygons]


def _checked_runs(given: dict[str, Any], height: int, width: int) -> bytes:
    """Compressed run lengths that fill an image; pycocotools reads beyond the end of shorter ones."""
    counts = given["counts"]
    if list(given["size"]) != [height, width]:
        raise _Refused(f"has the size {given['size']!r:.40}, its image {[height, width]}")
    runs = np.array(counts) if isinstance(counts, list) else _decompressed(counts.encode("ascii"))
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or (runs < 0).any() or runs.sum() != height * width:
        raise _Refused(f"has run lengths that do not fill its image of {width} x {height} pixels")
    if not isinstance(counts, list):
        return bytes(counts.encode("ascii"))
    return bytes(run_lengths.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"])


def _decompressed(text: bytes) -> np.ndarray:
    """Run lengths from COCO's text: groups of 5 bits, and from the fourth one on differences to the last but one."""
    digits = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    last = (digits & 32) == 0
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or not last[-1]:
        raise _Refused("has run lengths that do not decode")
    starts = np.flatnonzero(np.r_[True, last[:-1]])
    place = np.arange(len(digits)) - np.repeat(starts, np.diff(np.r_[starts, len(digits)]))
    if place.max() > 6:
        raise _Refused("has run lengths that do not decode")
    runs = np.add.reduceat((digits & 31) << (5 * place), starts)
    ends = np.flatnonzero(last)
    runs -= np.where(digits[ends] & 16, 1 << (5 * (place[ends] + 1)), 0)
    runs[1::2], runs[2::2] = runs[1::2].cumsum(), runs[2::2].cumsum()
    return runs


def fill(segmentation: Segmentation, height: int, width: int) -> np.ndarray:
    """Pixels of polygons or run lengths, bool (H, W)."""
    runs: Any = {"size": [height, width], "counts": segmentation}
    if not isinstance(segmentation, bytes):
        runs = run_lengths.merge(run_lengths.frPyObjects(segmentation, height, width))
    with warnings.catch_warnings():  # pycocotools' arrays predate NumPy 2
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        return run_lengths.decode(runs).astype(bool)
