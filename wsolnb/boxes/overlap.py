"""The intersection over union (IoU) of boxes."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor


def iou(boxes: Tensor, truth: Tensor, *, clamped: bool = True) -> Tensor:
    """IoU of boxes ``(n, 4)`` with ground truth ``(m, 4)``, far corners exclusive: float64 ``(n, m)`` on the CPU.

    Equals the inclusive IoU of the field's evaluators if one was added to their integer far corners, as `BoxRule` does.
    A union that is not positive gives 0. ``clamped=False`` keeps negative overlaps, as the released code of Rethinking
    CAM does: boxes that are apart on both axes then get a positive, meaningless value.

    Example:
        >>> iou(torch.tensor([[0, 0, 20, 20]]), torch.tensor([[45, 45, 65, 65]])).item()
        0.0
        >>> iou(torch.tensor([[0, 0, 20, 20]]), torch.tensor([[45, 45, 65, 65]]), clamped=False).item()
        3.571...
    """
    a, b = boxes.detach().cpu().double()[:, None], truth.detach().cpu().double()[None]
    overlap = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    shared = (overlap.clamp(min=0) if clamped else overlap).prod(dim=-1)
    union = (a[..., 2:] - a[..., :2]).prod(dim=-1) + (b[..., 2:] - b[..., :2]).prod(dim=-1) - shared
    return torch.where(union <= 0, 0.0, shared / union) if clamped else shared / union


@njit(cache=True, nogil=True)
def best_iou(x0: float, y0: float, x1: float, y1: float, truth: np.ndarray) -> float:
    """Best IoU of one box with the rows of ``truth``."""
    best = 0.0
    for box in truth:
        across, down = min(x1, box[2]) - max(x0, box[0]), min(y1, box[3]) - max(y0, box[1])
        if across > 0 and down > 0:
            shared = across * down
            best = max(best, shared / ((x1 - x0) * (y1 - y0) + (box[2] - box[0]) * (box[3] - box[1]) - shared))
    return best
