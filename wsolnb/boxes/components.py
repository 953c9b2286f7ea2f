"""Connected components of binary masks, their boxes, and the areas that their outlines enclose.

Each row of a mask is split into runs; runs of neighbouring rows that touch are joined by union-find. The functions that
take a stack of masks are run in `torch.get_num_threads` threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numba import njit

LARGEST, LARGEST_CONTOUR, EXTENT = 0, 1, 2
ONE_BOX = {"largest": LARGEST, "largest_contour": LARGEST_CONTOUR, "extent": EXTENT}
"""The components of a `BoxRule` that give one box per map."""


def in_threads(kernel: Callable[..., Any], count: int, *arguments: Any, least: int = 1) -> None:
    """Run ``kernel(*arguments, first, last)`` over ``range(count)``, split among threads of at least ``least`` items.

    The kernel must release the GIL. The threads end with the call, so that a forked worker inherits none of them.

    Example:
        >>> squares = np.zeros(5, int)
        >>> def kernel(out, first, last):
        ...     out[first:last] = np.arange(first, last) ** 2
        >>> in_threads(kernel, 5, squares)
        >>> squares.tolist()
        [0, 1, 4, 9, 16]
    """
    threads = max(1, min(torch.get_num_threads(), count // least))
    if threads == 1:
        kernel(*arguments, 0, count)
        return
    edges = np.linspace(0, count, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(kernel, *arguments, *span) for span in pairwise(edges)]
        for future in futures:
            future.result()


@njit(cache=True, nogil=True)
def root(parent: np.ndarray, node: int) -> int:
    """The root of a node's tree in a union-find forest; halves the path on the way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@njit(cache=True, nogil=True)
def copy_row(source: np.ndarray, target: np.ndarray) -> None:
    """``target[:] = source[: len(target)]``; a loop, because Numba needs seconds to compile an assignment of slices."""
    for k in range(len(target)):
        target[k] = source[k]


@njit(cache=True, nogil=True)
def components(mask: np.ndarray, eight: bool) -> np.ndarray:
    """Components of one mask ``(H, W)``, in raster order of their first pixels, int32 ``(n, 6)``.

    The columns: x0, y0, x1, y1 (far corner exclusive), pixels, column of the first pixel (its row is y0).
    """
    height, width = mask.shape
    # count the runs, so that the arrays can be allocated
    runs = 0
    for y in range(height):
        inside = False
        for x in range(width):
            runs += mask[y, x] and not inside
            inside = mask[y, x]
    begin, end, row = np.empty(runs, np.int32), np.empty(runs, np.int32), np.empty(runs, np.int32)
    parent = np.arange(runs)
    # list the runs and join each with those it touches in the row above
    reach = 1 if eight else 0
    run = above = above_end = 0
    for y in range(height):
        row_start = run
        x = 0
        while x < width:
            if not mask[y, x]:
                x += 1
                continue
            begin[run], row[run] = x, y
            while x < width and mask[y, x]:
                x += 1
            end[run] = x
            while above < above_end and end[above] + reach <= begin[run]:
                above += 1
            touching = above
            while touching < above_end and begin[touching] < x + reach:
                a, b = root(parent, touching), root(parent, run)
                parent[max(a, b)] = min(a, b)
                touching += 1
            run += 1
        above, above_end = row_start, run
    # a component is numbered by its first run, which is the root of its tree
    number = np.full(runs, -1, np.int32)
    count = 0
    for i in range(runs):
        if parent[i] == i:
            number[i] = count
            count += 1
    table = np.empty((count, 6), np.int32)
    for i in range(runs):
        first = root(parent, i)
        k = number[first]
        if first == i:
            table[k, 0], table[k, 1], table[k, 2], table[k, 3] = begin[i], row[i], end[i], row[i] + 1
            table[k, 4], table[k, 5] = 0, begin[i]
        table[k, 0] = min(table[k, 0], begin[i])
        table[k, 2] = max(table[k, 2], end[i])
        table[k, 3] = row[i] + 1
        table[k, 4] += end[i] - begin[i]
    return table


@njit(cache=True, nogil=True)
def _hole_boxes(mask: np.ndarray, eight: bool) -> np.ndarray:
    """Boxes around the outlines of a mask's holes, one pixel larger than the hole on every side, int32 ``(n, 4)``."""
    height, width = mask.shape
    table = components(~mask, not eight)
    inner = 0
    for k in range(len(table)):
        if table[k, 0] > 0 and table[k, 1] > 0 and table[k, 2] < width and table[k, 3] < height:
            table[inner, 0], table[inner, 1] = table[k, 0] - 1, table[k, 1] - 1
            table[inner, 2], table[inner, 3] = table[k, 2] + 1, table[k, 3] + 1
            inner += 1
    return table[:inner, :4]


@njit(cache=True, nogil=True)
def largest_contour(mask: np.ndarray, table: np.ndarray) -> int:
    """Index of the component with the largest polygon area; among equals the last: OpenCV lists it first."""
    framed = pad(mask.astype(np.uint8))
    best, best_area = -1, -1
    for k in range(len(table)):
        if 2 * (table[k, 2] - table[k, 0] - 1) * (table[k, 3] - table[k, 1] - 1) < best_area:
            continue
        area = doubled_contour_area(framed, 1, table[k, 5], table[k, 1])
        if area >= best_area:
            best, best_area = k, area
    return best


@njit(cache=True, nogil=True)
def one_box(masks: np.ndarray, eight: bool, choice: int, out: np.ndarray, first: int, last: int) -> None:
    """Fill ``out[i]`` (int32, far corner exclusive) with the chosen box of ``masks[i]``, or with -1 if it is empty."""
    for i in range(first, last):
        out[i, :] = -1
        table = components(masks[i], eight)
        if len(table) == 0:
            continue
        if choice == EXTENT:
            out[i, 0], out[i, 1] = table[:, 0].min(), table[:, 1].min()
            out[i, 2], out[i, 3] = table[:, 2].max(), table[:, 3].max()
        elif choice == LARGEST:
            copy_row(table[np.argmax(table[:, 4])], out[i])
        else:
            copy_row(table[largest_contour(masks[i], table)], out[i])


@njit(cache=True, nogil=True)
def count_boxes(masks: np.ndarray, eight: bool, holes: bool, counts: np.ndarray, first: int, last: int) -> None:
    """Fill ``counts[i]`` with the number of boxes that `all_boxes` writes for ``masks[i]``."""
    for i in range(first, last):
        counts[i] = len(components(masks[i], eight))
        if holes:
            counts[i] += len(_hole_boxes(masks[i], eight))


@njit(cache=True, nogil=True)
def all_boxes(
    masks: np.ndarray, eight: bool, holes: bool, starts: np.ndarray, out: np.ndarray, first: int, last: int
) -> None:
    """Write the boxes of all components of ``masks[i]``, then those of its holes, to ``out`` from row ``starts[i]``."""
    for i in range(first, last):
        table = components(masks[i], eight)
        start = starts[i]
        for k in range(len(table)):
            copy_row(table[k], out[start + k])
        if holes:
            inner = _hole_boxes(masks[i], eight)
            for k in range(len(inner)):
                copy_row(inner[k], out[start + len(table) + k])


@njit(cache=True, nogil=True)
def pad(image: np.ndarray) -> np.ndarray:
    """A uint8 image ``(H, W)`` with a border of zeros, ``(H + 2, W + 2)``: no step along an outline leaves it."""
    height, width = image.shape
    framed = np.zeros((height + 2, width + 2), np.uint8)
    for y in range(height):
        for x in range(width):  # an assignment of slices would take Numba seconds to compile
            framed[y + 1, x + 1] = image[y, x]
    return framed


@njit(cache=True, nogil=True)
def doubled_contour_area(framed: np.ndarray, value: int, x: int, y: int) -> int:
    """Twice the area, an integer, of the outer polygon of the component of ``image >= value`` at pixel (x, y).

    Follows the outline clockwise with the outside on its left: at each pixel it turns as far left as possible, then
    clockwise to the first neighbour in the component, until it would leave the first pixel the same way again. The
    shoelace formula gives the area of the polygon through the pixels' centres, as OpenCV's ``contourArea`` does.

    ``framed`` comes from `pad`; ``value`` is a grey value of at least 1; components are 8-connected. ``x`` and ``y``
    are without the border; row ``y`` must be the topmost of the component.
    """
    stride = framed.shape[1]
    flat = framed.ravel()
    offsets = (1, stride + 1, stride, stride - 1, -1, -stride - 1, -stride, -stride + 1)  # east, then clockwise
    across = (1, 1, 0, -1, -1, -1, 0, 1)
    down = (0, 1, 1, 1, 0, -1, -1, -1)
    position = (y + 1) * stride + x + 1
    while flat[position - 1] >= value:
        position -= 1
    start, first_step, column, area = position, -1, 0, 0
    turn = 0
    while True:
        step = -1
        for k in range(8):
            candidate = (turn + k) & 7
            if flat[position + offsets[candidate]] >= value:
                step = candidate
                break
        if step < 0:
            return 0
        if position == start:
            if first_step < 0:
                first_step = step
            elif step == first_step:
                return abs(area)
        area += (2 * column + across[step]) * down[step]
        column += across[step]
        position += offsets[step]
        turn = (step + 6 - (step & 1)) & 7
