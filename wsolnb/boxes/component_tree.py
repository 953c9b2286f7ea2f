"""The connected components of ALL thresholds of a grey image, in one pass.

Lowering a threshold never splits a component: the components of all levels form a tree, which is built from its leaves.

1. Every row is cut at its valleys into hills: rising, then falling values. A hill hangs on the brightest pixel next to
   its peak in the rows above and below if that is at least as bright; hills that hang together are a basin. Each pixel
   of a basin is connected with the basin's peak at the pixel's own level: within a basin nothing need be searched.
2. Per basin and level: how many pixels have that level, and how far they reach.
3. Two basins that touch are joined at the level of their highest saddle. Saddles are taken from the brightest down
   (Kruskal's algorithm); between two of its saddles a component only accumulates its table, level by level.

A smooth map of 50,000 pixels has about 3,000 hills, 100 basins and 4,000 pairs of a component and a level, which is
all the work that is left after a few linear passes.
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
    """Rows cut at their valleys: ``(n, 4)`` start, stop, first and last column of the peak; first hill per row."""
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
    """Number of the basin of each hill, and how many basins there are."""
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
            if up:
                while hills[above, 1] <= column:
                    above += 1
                target = above
            else:
                while hills[below, 1] <= column:
                    below += 1
                target = below
            parent[root(parent, hill)] = root(parent, target)
    number = np.full(len(hills), -1, np.int32)
    basin = np.empty(len(hills), np.int32)
    found = 0
    for hill in range(len(hills)):
        r = root(parent, hill)
        if number[r] < 0:
            number[r] = found
            found += 1
        basin[hill] = number[r]
    return basin, found


@njit(cache=True, nogil=True)
def _tables(image: np.ndarray, hills: np.ndarray, rows: np.ndarray, basin: np.ndarray, found: int) -> np.ndarray:
    """What each level adds to each basin, int32 ``(basins, 5, 256)``: pixels and reach; ``_TOP`` is a raster index."""
    height, width = image.shape
    tables = np.empty((found, 5, LEVELS), np.int32)
    for b in range(found):
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
    """Highest level at which hill ``a`` of one row touches hill ``b`` of the next."""
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
    """Pairs of touching basins, brightest first: int32 ``(n, 3)`` level and both basins; level 0 is left out."""
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
        other = rows[y + 1]
        for hill in range(rows[y], rows[y + 1]):
            while hills[other, 1] + reach <= hills[hill, 0]:
                other += 1
            touching = other
            while touching < rows[y + 2] and hills[touching, 0] - reach < hills[hill, 1]:
                if basin[hill] != basin[touching]:
                    level = _saddle(image[y], image[y + 1], hills[hill], hills[touching], reach > 0)
                    pairs[n, 0], pairs[n, 1], pairs[n, 2] = level, basin[hill], basin[touching]
                    n += 1
                touching += 1
    place = np.zeros(LEVELS + 1, np.int64)
    for i in range(n):
        place[LEVELS - 1 - pairs[i, 0] + 1] += 1
    place = np.cumsum(place)
    ordered = np.empty((place[LEVELS - 1], 3), np.int32)
    for i in range(n):
        at = LEVELS - 1 - pairs[i, 0]
        if at < LEVELS - 1:
            copy_row(pairs[i], ordered[place[at]])
            place[at] += 1
    return ordered


@njit(cache=True, nogil=True)
def component_table(image: np.ndarray, eight: bool) -> np.ndarray:
    """Every component of ``image >= v`` for every v from 255 to 1.

    Args:
        image: uint8 ``(H, W)``.
        eight: 8-connected if True, else 4-connected.

    Returns:
        int32 ``(n, 7)``: v; x0, y0, x1, y1 (far corner exclusive); pixels; raster index of a pixel of the component's
        topmost row (it orders components as their first pixels do). In no order across levels.
    """
    height, width = image.shape
    reach = 1 if eight else 0
    hills, rows = _hills(image)
    basin, found = _basins(image, hills, rows, reach)
    tables = _tables(image, hills, rows, basin, found)
    saddles = _saddles(image, hills, rows, basin, reach)
    parent = np.arange(found)
    state = np.empty((found, 6), np.int32)  # level still to be added; reach and pixels so far
    for b in range(found):
        value = LEVELS - 1
        while value > 0 and tables[b, _COUNT, value] == 0:
            value -= 1
        state[b, 0], state[b, 1], state[b, 2] = value, width, 0
        state[b, 3], state[b, 4], state[b, 5] = height * width, 0, 0
    out = np.empty((16 * LEVELS, 7), np.int32)
    n = 0
    for s in range(len(saddles) + found):
        # first all saddles, then whatever is left, down to the lowest level
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
    """Lists a component at all levels above ``level``, brightest first; returns the new length of the list."""
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
    """Adds component ``b`` to ``a``: what they have so far, and what the levels from ``level`` down will add."""
    a[1], a[2] = min(a[1], b[1]), max(a[2], b[2])
    a[3], a[4] = min(a[3], b[3]), max(a[4], b[4])
    a[5] += b[5]
    for v in range(1, level + 1):
        table[_COUNT, v] += other[_COUNT, v]
        table[_LEFT, v] = min(table[_LEFT, v], other[_LEFT, v])
        table[_RIGHT, v] = max(table[_RIGHT, v], other[_RIGHT, v])
        table[_TOP, v] = min(table[_TOP, v], other[_TOP, v])
        table[_BOTTOM, v] = max(table[_BOTTOM, v], other[_BOTTOM, v])
