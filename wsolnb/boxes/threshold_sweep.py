"""Boxes of all thresholds of a map, and their best overlap with the ground truth, in one pass.

Evaluators that search the best threshold cut every map a thousand times. A uint8 map has only 256 levels, and the
components of all of them follow from one tree (`wsolnb.boxes.component_tree`). Column ``l`` of every result here stands for
``map > l``; `levels` says which column a fractional threshold means.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit
from torch import Tensor

from wsolnb.boxes.component_tree import LEVELS, PIXELS, SEED, VALUE, X0, X1, Y0, Y1, component_table
from wsolnb.boxes.components import EXTENT, LARGEST, LARGEST_CONTOUR, copy_row, doubled_contour_area, in_threads, pad
from wsolnb.boxes.overlap import best_iou
from wsolnb.boxes.quantise import percentile
from wsolnb.boxes.rule import BoxRule

_ONE = {"largest": LARGEST, "largest_contour": LARGEST_CONTOUR, "extent": EXTENT}
_FAR = {"exclusive": 0, "padded": 1, "padded_clamped": 2, "last": 3}


def levels(maps: Tensor, thresholds: Tensor | np.ndarray | Sequence[float], rule: BoxRule) -> Tensor:
    """The level of each threshold in each map: ``int(threshold * reference)``, as code with OpenCV computes it.

    Args:
        maps: uint8 ``(N, H, W)``, from `wsolnb.boxes.quantise.quantise`.
        thresholds: ``(T,)`` fractions of the rule's reference, at most 1 (of 255 for an absolute reference).
        rule: Its ``reference`` and ``percentile`` count, its ``threshold`` does not.

    Returns:
        int64 ``(N, T)`` on the CPU, 0 to 255: columns of `sweep_boxes` and `sweep_ious`.

    Example:
        >>> levels(torch.tensor([[[0, 100, 255]], [[0, 9, 10]]], dtype=torch.uint8), [0.0, 0.5, 0.99],
        ...        BoxRule.preset("wsoleval"))
        tensor([[  0, 127, 252],
                [  0,   5,   9]])
    """
    _image_stack(maps, rule)
    if rule.reference == "absolute":
        reference = torch.full((len(maps),), 255.0, dtype=torch.float64)
    elif rule.reference == "maximum":
        reference = maps.amax(dim=(1, 2)).cpu().double()
    else:
        reference = percentile(maps, rule.percentile)
    fractions = torch.as_tensor(thresholds, dtype=torch.float64)
    if fractions.ndim != 1 or ((fractions < 0) | (fractions > 1)).any():
        raise ValueError(f"thresholds must be one row of fractions between 0 and 1, not {thresholds}")
    return (fractions * reference[:, None]).floor().long()


def sweep_boxes(maps: Tensor, rule: BoxRule) -> Tensor:
    """The rule's box of every map at every level.

    Args:
        maps: uint8 ``(N, H, W)``, any device; the work is done on the CPU by `torch.get_num_threads` threads.
        rule: A rule for one box; its component, connectivity, far corner and empty box count.

    Returns:
        float32 ``(N, 256, 4)`` on the CPU, pixels of the map, far corner exclusive, as `BoxRule` returns them; NaN
        where the rule finds no box.

    Raises:
        ValueError: The rule gives several boxes, is not strict, or the maps have another shape.

    Example:
        >>> sweep_boxes(torch.tensor([[[9, 0, 7, 8]]], dtype=torch.uint8), BoxRule())[0, [0, 7, 8]]
        tensor([[2., 0., 4., 1.],
                [0., 0., 1., 1.],
                [0., 0., 1., 1.]])
    """
    if rule.component not in _ONE:
        raise ValueError(f"a rule with component {rule.component!r} gives several boxes per level; use sweep_ious")
    images = _image_stack(maps, rule)
    found = np.full((len(images), LEVELS, 4), -1, np.int32)
    in_threads(_boxes, len(images), images, rule.connectivity == 8, _ONE[rule.component], found)
    size = (images.shape[1], images.shape[2])
    return torch.from_numpy(rule.convert(found.reshape(-1, 4), size, size).reshape(found.shape))


def sweep_ious(maps: Tensor, boxes: Sequence[Tensor], rule: BoxRule) -> Tensor:
    """Best IoU, at every level, of any of the rule's boxes with any ground truth box of the image.

    With the preset ``wsoleval`` this is MaxBoxAcc's inner loop, with ``wsoleval_multi`` that of MaxBoxAccV2 (all
    contours, holes among them), both to the last digit.

    Args:
        maps: uint8 ``(N, H, W)``, any device.
        boxes: For each map its ``(n, 4)`` ground truth, xyxy in pixels of the map, far corner EXCLUSIVE: add one to
            the far corners of boxes that are read as inclusive. Without any box the result is 0.
        rule: Its component, connectivity, far corner and empty box count.

    Returns:
        float64 ``(N, 256)`` on the CPU.

    Raises:
        ValueError: Counts differ, a box has a negative size or is not finite, the rule is not strict, or the maps have
            another shape.

    Example:
        >>> maps = torch.tensor([[[9, 0, 7, 8]]], dtype=torch.uint8)
        >>> sweep_ious(maps, [torch.tensor([[2, 0, 4, 1]])], BoxRule(component="all"))[0, [0, 7, 8, 9]].tolist()
        [1.0, 0.5, 0.0, 0.0]
    """
    images = _image_stack(maps, rule)
    truth, starts = _truth(boxes, len(images))
    best = np.zeros((len(images), LEVELS))
    height, width = images.shape[1:]
    nothing = rule.convert(np.full((1, 4), -1), (height, width), (height, width)).astype(np.float64)[0]
    if rule.component in _ONE:
        swept = sweep_boxes(maps, rule).double().numpy()
        in_threads(_ious_of_boxes, len(images), swept, truth, starts, best)
    else:
        settings = (rule.connectivity == 8, rule.component == "all_contours", _FAR[rule.far_corner], nothing)
        in_threads(_ious_of_all, len(images), images, *settings, truth, starts, best)
    return torch.from_numpy(best)


def _image_stack(maps: Tensor, rule: BoxRule) -> np.ndarray:
    """The maps as a NumPy array, checked together with the rule."""
    if maps.ndim != 3 or 0 in maps.shape[1:]:
        raise ValueError(f"maps must be (images, height, width), not {tuple(maps.shape)}")
    if maps.dtype != torch.uint8:
        raise TypeError(f"maps must be uint8, not {maps.dtype}; wsolnb.boxes.quantise.quantise makes them so")
    if not rule.strict:
        raise ValueError("a sweep cuts at 'greater than'; the rule must be strict")
    return maps.detach().cpu().contiguous().numpy()


def _truth(boxes: Sequence[Tensor], images: int) -> tuple[np.ndarray, np.ndarray]:
    """All ground truth boxes as float64 ``(n, 4)``, and where each image's begin."""
    if len(boxes) != images:
        raise ValueError(f"{images} maps but boxes of {len(boxes)} images")
    rows = [torch.as_tensor(b).detach().cpu().double() for b in boxes]
    for i, row in enumerate(rows):
        if row.ndim != 2 or row.shape[1] != 4:
            raise ValueError(f"the boxes of image {i} of this batch must be (n, 4), not {tuple(row.shape)}")
    starts = np.cumsum([0, *map(len, rows)])
    every = torch.cat(rows).numpy() if rows else np.empty((0, 4))
    bad = np.flatnonzero(~(np.isfinite(every).all(axis=1) & (every[:, 2:] >= every[:, :2]).all(axis=1)))
    if len(bad):
        i = int(np.searchsorted(starts, bad[0], side="right")) - 1
        raise ValueError(f"image {i} of this batch has a box with a negative size or NaN: {rows[i].tolist()}")
    return every, starts


@njit(cache=True, nogil=True)
def _boxes(images: np.ndarray, eight: bool, choice: int, out: np.ndarray, first: int, last: int) -> None:
    """Fills ``out`` int32 ``(N, 256, 4)`` with the chosen component's box (far corner exclusive); -1 if none."""
    for i in range(first, last):
        table = component_table(images[i], eight)
        if choice == EXTENT:
            for row in table:
                box = out[i, row[VALUE] - 1]
                known = box[0] >= 0
                box[0] = min(box[0], row[X0]) if known else row[X0]
                box[1] = min(box[1], row[Y0]) if known else row[Y0]
                box[2], box[3] = max(box[2], row[X1]), max(box[3], row[Y1])
            continue
        chosen = _largest_contours(images[i], table) if choice == LARGEST_CONTOUR else _largest(table)
        for value in range(1, LEVELS):
            if chosen[value] >= 0:
                copy_row(table[chosen[value], X0:], out[i, value - 1])


@njit(cache=True, nogil=True)
def _largest(table: np.ndarray) -> np.ndarray:
    """Row of the component with most pixels at each value, -1 if none; among equals the first in raster order."""
    chosen = np.full(LEVELS, -1)
    for k in range(len(table)):
        best = chosen[table[k, VALUE]]
        ahead = best < 0 or table[k, PIXELS] > table[best, PIXELS]
        if ahead or (table[k, PIXELS] == table[best, PIXELS] and table[k, SEED] < table[best, SEED]):
            chosen[table[k, VALUE]] = k
    return chosen


@njit(cache=True, nogil=True)
def _largest_contours(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Row of the component with the largest polygon at each value, -1 if none; among equals the last in raster order.

    The largest area never shrinks from one level to the next lower one, and no polygon is larger than its box. Where
    only one box is as large as the area known so far, its component has won; otherwise those that may have won are
    walked around. Holes never win: a hole's polygon is part of its component's, which OpenCV lists first.
    """
    width = image.shape[1]
    framed = pad(image)
    starts = np.zeros(LEVELS + 1, np.int64)
    for k in range(len(table)):
        starts[table[k, VALUE] + 1] += 1
    starts = np.cumsum(starts)
    place, order = starts.copy(), np.empty(len(table), np.int64)
    for k in range(len(table)):
        order[place[table[k, VALUE]]] = k
        place[table[k, VALUE]] += 1
    chosen = np.full(LEVELS, -1)
    known = 0
    for value in range(LEVELS - 1, 0, -1):
        rows = order[starts[value] : starts[value + 1]]
        widest, rivals, bound = -1, 0, -1
        for at in range(len(rows)):
            row = table[rows[at]]
            box = 2 * (row[X1] - row[X0] - 1) * (row[Y1] - row[Y0] - 1)
            rivals += box >= known
            if box > bound:
                widest, bound = at, box
        if widest < 0:
            continue
        chosen[value] = rows[widest]
        if rivals == 1:
            continue
        rows[0], rows[widest] = rows[widest], rows[0]
        largest = -1
        for k in rows:
            row = table[k]
            if 2 * (row[X1] - row[X0] - 1) * (row[Y1] - row[Y0] - 1) < known:
                continue
            area = doubled_contour_area(framed, value, row[SEED] % width, row[SEED] // width)
            if area > largest or (area == largest and row[SEED] > table[chosen[value], SEED]):
                chosen[value], largest = k, area
            known = max(known, area)
    return chosen


@njit(cache=True, nogil=True)
def _ious_of_boxes(
    boxes: np.ndarray, truth: np.ndarray, starts: np.ndarray, best: np.ndarray, first: int, last: int
) -> None:
    """Fills ``best`` ``(N, 256)`` from one box per level; a box of NaN gives 0."""
    for i in range(first, last):
        mine = truth[starts[i] : starts[i + 1]]
        for level in range(LEVELS):
            box = boxes[i, level]
            if not np.isnan(box[0]):
                best[i, level] = best_iou(box[0], box[1], box[2], box[3], mine)


@njit(cache=True, nogil=True)
def _far(corner: int, side: int, mode: int) -> int:
    """A far corner in a rule's convention (see `BoxRule.far_corner`)."""
    if mode == 1:
        return corner + 1
    if mode == 2:
        return min(corner, side - 1) + 1
    return corner - 1 if mode == 3 else corner


@njit(cache=True, nogil=True)
def _ious_of_all(
    images: np.ndarray,
    eight: bool,
    holes: bool,
    mode: int,
    nothing: np.ndarray,
    truth: np.ndarray,
    starts: np.ndarray,
    best: np.ndarray,
    first: int,
    last: int,
) -> None:
    """Fills ``best`` ``(N, 256)`` from the boxes of all components, and of the outlines of all holes."""
    height, width = images.shape[1:]
    for i in range(first, last):
        mine = truth[starts[i] : starts[i + 1]]
        for row in component_table(images[i], eight):
            x1, y1 = _far(row[X1], width, mode), _far(row[Y1], height, mode)
            level = row[VALUE] - 1
            best[i, level] = max(best[i, level], best_iou(row[X0], row[Y0], x1, y1, mine))
        if holes:
            for row in component_table(np.uint8(255) - images[i], not eight):
                if row[X0] > 0 and row[Y0] > 0 and row[X1] < width and row[Y1] < height:
                    x1, y1 = _far(row[X1] + 1, width, mode), _far(row[Y1] + 1, height, mode)
                    level = 255 - row[VALUE]
                    best[i, level] = max(best[i, level], best_iou(row[X0] - 1, row[Y0] - 1, x1, y1, mine))
        if not np.isnan(nothing[0]):
            for level in range(images[i].max(), LEVELS):
                best[i, level] = best_iou(nothing[0], nothing[1], nothing[2], nothing[3], mine)
