"""Area enclosed by the outline of a connected component, as OpenCV measures it.

The field's protocol ranks components by the area of the polygon through the CENTRES of their outermost pixels, not by
their number of pixels: a line has area 0, a 3x3 square 4, and holes count as filled. The polygon is found by walking
once around the component.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def pad(image: np.ndarray) -> np.ndarray:
    """The uint8 image ``(H, W)`` inside a frame of zeros, ``(H + 2, W + 2)``, so that a walk needs no bounds."""
    height, width = image.shape
    framed = np.zeros((height + 2, width + 2), np.uint8)
    for y in range(height):
        for x in range(width):  # an assignment of slices would take Numba seconds to compile
            framed[y + 1, x + 1] = image[y, x]
    return framed


@njit(cache=True, nogil=True)
def twice_contour_area(framed: np.ndarray, value: int, x: int, y: int) -> int:
    """Twice the area of the outer polygon of the component of ``image >= value`` that holds pixel (x, y).

    The walk keeps the outside on its left: from the direction of the last step it turns as far left as it may, then
    clockwise to the first pixel of the component. It ends when it would leave its first pixel the same way again.

    Args:
        framed: uint8 ``(H + 2, W + 2)`` from `pad`.
        value: Grey value, at least 1: pixels at or above it belong to a component (8-connected).
        x: Column in the unframed image.
        y: Row in the unframed image; the pixel must lie in the topmost row of its component.

    Returns:
        Twice the area in pixels squared: an integer, because the corners are integers.
    """
    stride = framed.shape[1]
    flat = framed.ravel()
    offsets = (1, stride + 1, stride, stride - 1, -1, -stride - 1, -stride, -stride + 1)  # east, then clockwise
    across = (1, 1, 0, -1, -1, -1, 0, 1)
    down = (0, 1, 1, 1, 0, -1, -1, -1)
    here = (y + 1) * stride + x + 1
    while flat[here - 1] >= value:
        here -= 1
    start, first_step, column, area = here, -1, 0, 0
    turn = 0
    while True:
        step = -1
        for k in range(8):
            candidate = (turn + k) & 7
            if flat[here + offsets[candidate]] >= value:
                step = candidate
                break
        if step < 0:
            return 0
        if here == start:
            if first_step < 0:
                first_step = step
            elif step == first_step:
                return abs(area)
        area += (2 * column + across[step]) * down[step]
        column += across[step]
        here += offsets[step]
        turn = (step + 6 - (step & 1)) & 7
