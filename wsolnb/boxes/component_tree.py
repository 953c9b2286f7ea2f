"""The component tree (max-tree) of a grey image: its connected components at all thresholds, in one pass.

Lowering a threshold never splits a component, so the components of all levels form a tree. It is built from its leaves:

1. Cut every row at its valleys into hills (values that rise, then fall). Attach a hill to the brightest pixel next to
   its peak in the rows above and below if that is at least as bright; hills attached to each other form a basin. Every
   pixel of a basin is connected to the basin's peak at the pixel's own level, so no search within a basin is needed.
2. For each basin and level, tabulate the number of pixels of that level and their extent.
3. Join touching basins at their highest saddle, brightest saddle first (Kruskal's algorithm). Between two saddles, a
   component only accumulates its table, level by level.

A smooth map of 50,000 pixels has about 3,000 hills, 100 basins and 4,000 components over all levels; after a few linear
passes, nothing else remains to be visited.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from wsolnb.boxes.components import copy_row, root

LEVELS = 256
VALUE, X0, Y0, X1, Y1, PIXELS, SEED = range(7)
_COUNT, _LEFT, _RIGHT, _TOP, _BOTTOM = range(5)


@njit(cache=True, nogil=True)
def _hills(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hills ``(n, 4)``: start, stop, first and last column of the peak; and the index of the first hill of each row."""
    height, width = image.shape
    hills = np.empty((height * (width // 2 + 1), 4), np.int32)
    rows = np.empty(height + 1, np.int32)
    n = 0
    for y in range(height):
        rows[y] = n
        hills[n, 0] = plateau = 0
        falling = False
        before = image[y, 0]
        for x in range(1, width):
            value = image[y, x]
            if value > before:
                if falling:
                    hills[n, 1] = x
                    n += 1
                    hills[n, 0] = x
                    falling = False
                plateau = x
            elif value < before and not falling:
                hills[n, 2], hills[n, 3] = plateau, x - 1
                falling = True
            before = value
        if not falling:
            hills[n, 2], hills[n, 3] = plateau, width - 1
        hills[n, 1] = width
        n += 1
    rows[height] = n
    return hills[:n], rows


@njit(cache=True, nogil=True)
def _basins(image: np.ndarray, hills: np.ndarray, rows: np.ndarray, reach: int) -> tuple[np.ndarray, int]:
    """The basin of each hill, and the number of basins."""
    height, width = image.shape
    parent = np.arange(len(hills))
    for y in range(height):
        above, below = rows[max(y - 1, 0)], rows[y + 1]
        for hill in range(rows[y], rows[y + 1]):
            first, last = max(hills[hill, 2] - reach, 0), min(hills[hill, 3] + reach, width - 1)
            brightest, column, up = image[y, hills[hill, 2]], -1, False
            if y > 0:
                for x in range(first, last + 1):
                    if image[y - 1, x] > brightest or (column < 0 and image[y - 1, x] == brightest):
                        brightest, column, up = image[y - 1, x], x, True
            if y < height - 1:
                for x in range(first, last + 1):
                    if image[y + 1, x] >= brightest:
                        brightest, column, up = image[y + 1, x], x, False
            if column < 0:
                continue
            target = above if up else below
            while hills[target, 1] <= column:
                target += 1
            if up:
                above = target
            else:
                below = target
            parent[root(parent, hill)] = root(parent, target)
    number = np.full(len(hills), -1, np.int32)
    basin = np.empty(len(hills), np.int32)
    count = 0
    for hill in range(len(hills)):
        r = root(parent, hill)
        if number[r] < 0:
            number[r] = count
            count += 1
        basin[hill] = number[r]
    return basin, count


@njit(cache=True, nogil=True)
def _tables(image: np.ndarray, hills: np.ndarray, rows: np.ndarray, basin: np.ndarray, basins: int) -> np.ndarray:
    """Pixels and extent of each level of each basin, int32 ``(basins, 5, 256)``; ``_TOP`` is a raster index."""
    height, width = image.shape
    tables = np.empty((basins, 5, LEVELS), np.int32)
    for b in range(basins):
        tables[b, _COUNT], tables[b, _LEFT], tables[b, _RIGHT] = 0, width, 0
        tables[b, _TOP], tables[b, _BOTTOM] = height * width, 0
    for y in range(height):
        line = image[y]
        for hill in range(rows[y], rows[y + 1]):
            table = tables[basin[hill]]
            count, left, right = table[_COUNT], table[_LEFT], table[_RIGHT]
            peak = hills[hill, 2]
            for x in range(hills[hill, 0], peak):
                value = line[x]
                count[value] += 1
                left[value] = min(left[value], x)
            top = line[peak]
            left[top] = min(left[top], peak)
            for x in range(peak, hills[hill, 1]):
                value = line[x]
                count[value] += 1
                right[value] = max(right[value], x + 1)
            table[_TOP, top] = min(table[_TOP, top], y * width + peak)
            table[_BOTTOM, top] = y + 1
    return tables


@njit(cache=True, nogil=True)
def _saddle(upper: np.ndarray, lower: np.ndarray, a: np.ndarray, b: np.ndarray, diagonal: bool) -> int:
    """The highest level at which hill ``a`` of one row touches hill ``b`` of the next."""
    level = 0
    for x in range(max(a[0], b[0]), min(a[1], b[1])):
        level = max(level, min(upper[x], lower[x]))
    if diagonal:
        for x in range(max(a[0], b[0] - 1), min(a[1], b[1] - 1)):
            level = max(level, min(upper[x], lower[x + 1]))
        for x in range(max(a[0], b[0] + 1), min(a[1], b[1] + 1)):
            level = max(level, min(upper[x], lower[x - 1]))
    return level


@njit(cache=True, nogil=True)
def _saddles(image: np.ndarray, hills: np.ndarray, rows: np.ndarray, basin: np.ndarray, reach: int) -> np.ndarray:
    """Saddles between touching basins above level 0, brightest first: int32 ``(n, 3)``, level and both basins."""
    height = len(rows) - 1
    pairs = np.empty((5 * len(hills), 3), np.int32)
    n = 0
    for y in range(height):
        for hill in range(rows[y], rows[y + 1] - 1):
            if basin[hill] != basin[hill + 1]:
                stop = hills[hill, 1]
                level = min(image[y, stop - 1], image[y, stop])
                pairs[n, 0], pairs[n, 1], pairs[n, 2] = level, basin[hill], basin[hill + 1]
                n += 1
        if y == height - 1:
            break
        below = rows[y + 1]
        for hill in range(rows[y], rows[y + 1]):
            while hills[below, 1] + reach <= hills[hill, 0]:
                below += 1
            touching = below
            while touching < rows[y + 2] and hills[touching, 0] - reach < hills[hill, 1]:
                if basin[hill] != basin[touching]:
                    level = _saddle(image[y], image[y + 1], hills[hill], hills[touching], reach > 0)
                    pairs[n, 0], pairs[n, 1], pairs[n, 2] = level, basin[hill], basin[touching]
                    n += 1
                touching += 1
    # counting sort by falling level
    starts = np.zeros(LEVELS + 1, np.int64)
    for i in range(n):
        starts[LEVELS - 1 - pairs[i, 0] + 1] += 1
    starts = np.cumsum(starts)
    ordered = np.empty((starts[LEVELS - 1], 3), np.int32)
    for i in range(n):
        bucket = LEVELS - 1 - pairs[i, 0]
        if bucket < LEVELS - 1:
            copy_row(pairs[i], ordered[starts[bucket]])
            starts[bucket] += 1
    return ordered


@njit(cache=True, nogil=True)
def component_table(image: np.ndarray, eight: bool) -> np.ndarray:
    """Every component, 8- or 4-connected, of ``image >= v`` for every v from 255 to 1; the image is uint8 ``(H, W)``.

    The rows, int32 ``(n, 7)`` in no order: v; x0, y0, x1, y1 (far corner exclusive); pixels; raster index of a pixel in
    the component's topmost row, which orders the components of a level as their first pixels do.
    """
    height, width = image.shape
    reach = 1 if eight else 0
    hills, rows = _hills(image)
    basin, basins = _basins(image, hills, rows, reach)
    tables = _tables(image, hills, rows, basin, basins)
    saddles = _saddles(image, hills, rows, basin, reach)
    parent = np.arange(basins)
    state = np.empty((basins, 6), np.int32)  # the next level to add; extent and pixels so far
    for b in range(basins):
        value = LEVELS - 1
        while value > 0 and tables[b, _COUNT, value] == 0:
            value -= 1
        state[b, 0], state[b, 1], state[b, 2] = value, width, 0
        state[b, 3], state[b, 4], state[b, 5] = height * width, 0, 0
    out = np.empty((16 * LEVELS, 7), np.int32)
    n = 0
    for s in range(len(saddles) + basins):
        # all saddles, then the components that are left, down to level 1
        if s < len(saddles):
            level = saddles[s, 0]
            a, b = root(parent, saddles[s, 1]), root(parent, saddles[s, 2])
            if a == b:
                continue
        else:
            level, a = 0, s - len(saddles)
            b = a
            if parent[a] != a:
                continue
        if n + 2 * LEVELS > len(out):
            larger = np.empty((2 * len(out), 7), np.int32)
            for k in range(n):
                copy_row(out[k], larger[k])
            out = larger
        n = _lower(state[a], tables[a], level, width, out, n)
        if a != b:
            n = _lower(state[b], tables[b], level, width, out, n)
            _join(state[a], state[b], tables[a], tables[b], level)
            parent[b] = a
    return out[:n]


@njit(cache=True, nogil=True)
def _lower(state: np.ndarray, table: np.ndarray, level: int, width: int, out: np.ndarray, n: int) -> int:
    """Append a component at all levels above ``level``, brightest first, to ``out``; returns its new length."""
    value, left, right, top, bottom, pixels = state
    while value > level:
        pixels += table[_COUNT, value]
        left, right = min(left, table[_LEFT, value]), max(right, table[_RIGHT, value])
        top, bottom = min(top, table[_TOP, value]), max(bottom, table[_BOTTOM, value])
        row = out[n]
        row[VALUE], row[X0], row[Y0], row[X1], row[Y1] = value, left, top // width, right, bottom
        row[PIXELS], row[SEED] = pixels, top
        value -= 1
        n += 1
    state[0], state[1], state[2], state[3], state[4], state[5] = value, left, right, top, bottom, pixels
    return n


@njit(cache=True, nogil=True)
def _join(a: np.ndarray, b: np.ndarray, table: np.ndarray, other: np.ndarray, level: int) -> None:
    """Add component ``b`` to ``a``: the state so far, and the tables of the levels from ``level`` down."""
    a[1], a[2] = min(a[1], b[1]), max(a[2], b[2])
    a[3], a[4] = min(a[3], b[3]), max(a[4], b[4])
    a[5] += b[5]
    for v in range(1, level + 1):
        table[_COUNT, v] += other[_COUNT, v]
        table[_LEFT, v] = min(table[_LEFT, v], other[_LEFT, v])
        table[_RIGHT, v] = max(table[_RIGHT, v], other[_RIGHT, v])
        table[_TOP, v] = min(table[_TOP, v], other[_TOP, v])
        table[_BOTTOM, v] = max(table[_BOTTOM, v], other[_BOTTOM, v])
