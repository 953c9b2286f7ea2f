"""The boxes of a map at all thresholds, and their best IoU with the ground truth, in one pass.

The field's evaluators cut every map at a thousand thresholds to find the best one. A uint8 map has only 256 levels,
whose components follow from one tree (`wsolnb.boxes.component_tree`). In all results, column ``l`` stands for
``map > l``; `levels` gives the column of a fractional threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit
from torch import Tensor

from wsolnb.boxes.component_tree import LEVELS, PIXELS, SEED, VALUE, X0, X1, Y0, Y1, component_table
from wsolnb.boxes.components import EXTENT, LARGEST_CONTOUR, ONE_BOX, copy_row, doubled_contour_area, in_threads, pad
from wsolnb.boxes.overlap import best_iou
from wsolnb.boxes.quantise import percentile
from wsolnb.boxes.rule import BoxRule

_FAR_CORNERS = {"exclusive": 0, "padded": 1, "padded_clamped": 2, "last": 3}


def levels(maps: Tensor, thresholds: Tensor | np.ndarray | Sequence[float], rule: BoxRule) -> Tensor:
    """The level of each threshold in each map: ``int(threshold * reference)``, as the field's code computes it.

    The maps are uint8 ``(N, H, W)``, from `wsolnb.boxes.quantise.quantise`; the thresholds ``(T,)`` fractions, 0 to 1,
    of the rule's reference (of 255 if that is absolute). The result is int64 ``(N, T)`` on the CPU, 0 to 255.

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
    if fractions.ndim != 1 or not ((fractions >= 0) & (fractions <= 1)).all():
        raise ValueError(f"thresholds must be one row of fractions between 0 and 1, not {thresholds}")
    return (fractions * reference[:, None]).floor().long()


def sweep_boxes(maps: Tensor, rule: BoxRule) -> Tensor:
    """The rule's box of every map at every level: float32 ``(N, 256, 4)`` in pixels of the map; NaN without a box.

    The maps, uint8 ``(N, H, W)`` on any device, are swept on the CPU in `torch.get_num_threads` threads. Of the rule, a
    strict one for one box, only component, connectivity, far corner and empty box are used.

    Raises:
        ValueError: If the rule gives several boxes or is not strict, or the maps have another shape.

    Example:
        >>> sweep_boxes(torch.tensor([[[9, 0, 7, 8]]], dtype=torch.uint8), BoxRule())[0, [0, 7, 8]]
        tensor([[2., 0., 4., 1.],
                [0., 0., 1., 1.],
                [0., 0., 1., 1.]])
    """
    if rule.component not in ONE_BOX:
        raise ValueError(f"a rule with component {rule.component!r} gives several boxes per level; use sweep_ious")
    images = _image_stack(maps, rule)
    cells = np.full((len(images), LEVELS, 4), -1, np.int32)
    in_threads(_boxes, len(images), images, rule.connectivity == 8, ONE_BOX[rule.component], cells)
    size = (images.shape[1], images.shape[2])
    return torch.from_numpy(rule.convert(cells.reshape(-1, 4), size, size).reshape(cells.shape))


def sweep_ious(maps: Tensor, boxes: Sequence[Tensor], rule: BoxRule) -> Tensor:
    """The best IoU, at every level, of any of the rule's boxes with any ground-truth box: float64 ``(N, 256)``.

    The inner loop of MaxBoxAcc with the preset ``wsoleval``, and of MaxBoxAccV2 (all contours, those of holes
    included) with ``wsoleval_multi``, equal to the last digit.

    Args:
        maps: uint8 ``(N, H, W)``, any device.
        boxes: Ground truth of each map, ``(n, 4)`` xyxy in pixels of the map, far corner EXCLUSIVE: add one to the far
            corners of inclusive boxes. A map without boxes gets 0.
        rule: A strict rule; only its component, connectivity, far corner and empty box are used.

    Raises:
        ValueError: If counts differ, a box has negative size or is not finite, the rule is not strict, or the maps
            have another shape.

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
    if rule.component in ONE_BOX:
        swept = sweep_boxes(maps, rule).double().numpy()
        in_threads(_ious_of_boxes, len(images), swept, truth, starts, best)
    else:
        settings = (rule.connectivity == 8, rule.component == "all_contours", _FAR_CORNERS[rule.far_corner], nothing)
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
    """The ground-truth boxes of all images, float64 ``(n, 4)``, and the first row of each image."""
    if len(boxes) != images:
        raise ValueError(f"{images} maps but boxes of {len(boxes)} images")
    rows = [torch.as_tensor(b).detach().cpu().double() for b in boxes]
    for i, row in enumerate(rows):
        if row.ndim != 2 or row.shape[1] != 4:
            raise ValueError(f"the boxes of image {i} of this batch must be (n, 4), not {tuple(row.shape)}")
    starts = np.cumsum([0, *map(len, rows)])
    truth = torch.cat(rows).numpy() if rows else np.empty((0, 4))
    bad = np.flatnonzero(~(np.isfinite(truth).all(axis=1) & (truth[:, 2:] >= truth[:, :2]).all(axis=1)))
    if len(bad):
        i = int(np.searchsorted(starts, bad[0], side="right")) - 1
        raise ValueError(f"image {i} of this batch has a box with a negative size or NaN: {rows[i].tolist()}")
    return truth, starts


@njit(cache=True, nogil=True)
def _boxes(images: np.ndarray, eight: bool, choice: int, out: np.ndarray, first: int, last: int) -> None:
    """Fill ``out`` int32 ``(N, 256, 4)`` with the chosen component's box (far corner exclusive), or -1."""
    for i in range(first, last):
        table = component_table(images[i], eight)
        if choice == EXTENT:
            for row in table:
                box = out[i, row[VALUE] - 1]
                filled = box[0] >= 0
                box[0] = min(box[0], row[X0]) if filled else row[X0]
                box[1] = min(box[1], row[Y0]) if filled else row[Y0]
                box[2], box[3] = max(box[2], row[X1]), max(box[3], row[Y1])
            continue
        chosen = _largest_contours(images[i], table) if choice == LARGEST_CONTOUR else _largest(table)
        for value in range(1, LEVELS):
            if chosen[value] >= 0:
                copy_row(table[chosen[value], X0:], out[i, value - 1])


@njit(cache=True, nogil=True)
def _largest(table: np.ndarray) -> np.ndarray:
    """Row of the component with most pixels at each value, -1 if none; of equal ones the first in raster order."""
    chosen = np.full(LEVELS, -1)
    for k in range(len(table)):
        best = chosen[table[k, VALUE]]
        ahead = best < 0 or table[k, PIXELS] > table[best, PIXELS]
        if ahead or (table[k, PIXELS] == table[best, PIXELS] and table[k, SEED] < table[best, SEED]):
            chosen[table[k, VALUE]] = k
    return chosen


@njit(cache=True, nogil=True)
def _largest_contours(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Row of the component with the largest polygon at each value, -1 if none; of equal ones the last in raster order.

    From one level to the next lower one the largest area never shrinks, and no polygon is larger than its box. If only
    one box reaches the largest area so far, its component is chosen without following its outline. Holes are never
    chosen: the polygon of a hole lies in that of its component, which OpenCV lists first.
    """
    width = image.shape[1]
    framed = pad(image)
    starts = np.zeros(LEVELS + 1, np.int64)
    for k in range(len(table)):
        starts[table[k, VALUE] + 1] += 1
    starts = np.cumsum(starts)
    # counting sort of the rows by value
    slots, order = starts.copy(), np.empty(len(table), np.int64)
    for k in range(len(table)):
        order[slots[table[k, VALUE]]] = k
        slots[table[k, VALUE]] += 1
    chosen = np.full(LEVELS, -1)
    lower_bound = 0
    for value in range(LEVELS - 1, 0, -1):
        rows = order[starts[value] : starts[value + 1]]
        largest_box, candidates, bound = -1, 0, -1
        for i in range(len(rows)):
            row = table[rows[i]]
            box = 2 * (row[X1] - row[X0] - 1) * (row[Y1] - row[Y0] - 1)
            candidates += box >= lower_bound
            if box > bound:
                largest_box, bound = i, box
        if largest_box < 0:
            continue
        chosen[value] = rows[largest_box]
        if candidates == 1:
            continue
        # follow outlines, that of the largest box first: it raises the bound that rules out others
        rows[0], rows[largest_box] = rows[largest_box], rows[0]
        largest = -1
        for k in rows:
            row = table[k]
            if 2 * (row[X1] - row[X0] - 1) * (row[Y1] - row[Y0] - 1) < lower_bound:
                continue
            area = doubled_contour_area(framed, value, row[SEED] % width, row[SEED] // width)
            if area > largest or (area == largest and row[SEED] > table[chosen[value], SEED]):
                chosen[value], largest = k, area
            lower_bound = max(lower_bound, area)
    return chosen


@njit(cache=True, nogil=True)
def _ious_of_boxes(
    boxes: np.ndarray, truth: np.ndarray, starts: np.ndarray, best: np.ndarray, first: int, last: int
) -> None:
    """Fill ``best`` ``(N, 256)`` from one box per level; a box of NaN gives 0."""
    for i in range(first, last):
        image_truth = truth[starts[i] : starts[i + 1]]
        for level in range(LEVELS):
            box = boxes[i, level]
            if not np.isnan(box[0]):
                best[i, level] = best_iou(box[0], box[1], box[2], box[3], image_truth)


@njit(cache=True, nogil=True)
def _far(corner: int, side: int, mode: int) -> int:
    """A far corner in the rule's convention (see `BoxRule.far_corner`)."""
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
    """Fill ``best`` ``(N, 256)`` from the boxes of all components and, if asked, of the outlines of all holes."""
    height, width = images.shape[1:]
    for i in range(first, last):
        image_truth = truth[starts[i] : starts[i + 1]]
        for row in component_table(images[i], eight):
            x1, y1 = _far(row[X1], width, mode), _far(row[Y1], height, mode)
            level = row[VALUE] - 1
            best[i, level] = max(best[i, level], best_iou(row[X0], row[Y0], x1, y1, image_truth))
        if holes:  # the components of the inverted image that do not touch its border
            for row in component_table(np.uint8(255) - images[i], not eight):
                if row[X0] > 0 and row[Y0] > 0 and row[X1] < width and row[Y1] < height:
                    x1, y1 = _far(row[X1] + 1, width, mode), _far(row[Y1] + 1, height, mode)
                    level = 255 - row[VALUE]
                    best[i, level] = max(best[i, level], best_iou(row[X0] - 1, row[Y0] - 1, x1, y1, image_truth))
        if not np.isnan(nothing[0]):
            for level in range(images[i].max(), LEVELS):
                best[i, level] = best_iou(nothing[0], nothing[1], nothing[2], nothing[3], image_truth)
