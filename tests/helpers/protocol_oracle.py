"""The field's box protocol, slow and literal: the reference that the fast code is compared with.

Written from the description of the protocol (one binary image and one search for contours per threshold), with
OpenCV for the contours. Boxes are the protocol's own: integers ``[x0, y0, x1, y1]`` whose far corner is read as
inclusive.
"""

from __future__ import annotations

import cv2
import numpy as np

THRESHOLDS = np.arange(0, 1, 0.001)


def quantised(score_map: np.ndarray) -> np.ndarray:
    """The uint8 image of a map in [0, 1]: truncated, never rounded."""
    return (score_map.astype(np.float64) * 255).astype(np.uint8)


def minmax(score_map: np.ndarray) -> np.ndarray:
    """A map stretched to [0, 1]; a constant one becomes zero."""
    low, high = score_map.min(), score_map.max()
    if low == high:
        return np.zeros_like(score_map)
    shifted = score_map - low
    return shifted / shifted.max()


def contours_above(image: np.ndarray, level: int) -> list[np.ndarray]:
    """All contours of ``image > level``, in OpenCV's order, those of holes among them."""
    _, binary = cv2.threshold(image, level, 255, cv2.THRESH_BINARY)
    return list(cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[-2])


def boxes_at(image: np.ndarray, level: int, every: bool) -> np.ndarray:
    """The protocol's boxes of ``image > level``: of the largest contour, or of every contour."""
    height, width = image.shape
    contours = contours_above(image, level)
    if not contours:
        return np.zeros((1, 4), np.int64)
    if not every:
        contours = [max(contours, key=cv2.contourArea)]
    boxes = []
    for contour in contours:
        x, y, w, h = cv2.boundingRect(contour)
        boxes.append([x, y, min(x + w, width - 1), min(y + h, height - 1)])
    return np.array(boxes, np.int64)


def inclusive_iou(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """IoU of every box with every ground truth, far corners inclusive, float64 ``(n, m)``."""
    a, b = boxes[:, None].astype(np.float64), truth[None].astype(np.float64)
    near, far = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = np.prod(np.maximum(far - near + 1, 0), axis=-1)
    union = np.prod(a[..., 2:] - a[..., :2] + 1, axis=-1) + np.prod(b[..., 2:] - b[..., :2] + 1, axis=-1) - shared
    return np.where(union <= 0, 0.0, shared / np.where(union <= 0, 1.0, union))


def best_ious(
    score_map: np.ndarray, truth: np.ndarray, *, every: bool, thresholds: np.ndarray = THRESHOLDS
) -> np.ndarray:
    """Best IoU of a map's boxes with any ground truth at each threshold: the protocol's inner loop, float64 ``(T,)``.

    Args:
        score_map: ``(H, W)`` in [0, 1].
        truth: ``(n, 4)`` boxes, far corner inclusive.
        every: False for one box per threshold (MaxBoxAcc), True for all contours (MaxBoxAccV2).
        thresholds: Fractions of the map's maximum.
    """
    image = quantised(score_map)
    result = np.zeros(len(thresholds))
    for t, threshold in enumerate(thresholds):
        result[t] = inclusive_iou(boxes_at(image, int(threshold * image.max()), every), truth).max()
    return result


def max_box_acc(
    score_maps: list[np.ndarray],
    truths: list[np.ndarray],
    *,
    every: bool,
    ious: tuple[float, ...] = (0.5,),
    thresholds: np.ndarray = THRESHOLDS,
) -> float:
    """MaxBoxAcc (``every=False``, one IoU) or MaxBoxAccV2 (``every=True``, IoUs 0.3, 0.5, 0.7), as a fraction.

    Each IoU is given its own best threshold; the result is the mean over the IoUs.
    """
    best = np.stack(
        [best_ious(m, t, every=every, thresholds=thresholds) for m, t in zip(score_maps, truths, strict=True)]
    )
    return float(np.mean([(best >= iou).mean(axis=0).max() for iou in ious]))
