"""Loss of kou2021: cross-entropy of both heads, ConfSeg and CoAug (https://arxiv.org/abs/1911.07160)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolnb.papers.kou2021.coaug import CoAug
from wsolnb.papers.kou2021.confseg import Over, confidence_mask, fixed_mask, inner_loss

if TYPE_CHECKING:
    from wsolnb.papers.kou2021.network import TwoMaps


Ramp = Literal["linear", "constant"]


class CSoALoss(nn.Module):
    """`L = L_cls + α L_inner + λ L_D` (kou2021 Eqs. 6 and 12).

    `L_cls` is the cross-entropy of every head, summed. `α` and `λ` rise over the epochs, since an untrained `S_L` has
    nothing to teach and splits no image. Co-supervision acts on `S_L` only (Sec. 4.1).

    Args:
        alpha: Largest `α`; 0: no confidence segmentation.
        ramp: `linear` from 0 in the first epoch to `alpha` and `coaug_weight` in the last one, or `constant`. The paper
            says that `α` increases, not how; of `λ` it says nothing.
        over: Reduction over the cells, as for `wsolnb.papers.kou2021.confseg.inner_loss`.
        fixed: Thresholds `(low, high)` of `wsolnb.papers.kou2021.confseg.fixed_mask`, in place of the adaptive mask.
        coaug_weight: Largest `λ`; 1 in the paper.

    Raises:
        ValueError: If `alpha` is outside of [0, 1] or the ramp is unknown.

    Example:
        >>> from wsolnb.papers.kou2021.network import TwoMaps
        >>> maps, images = torch.zeros(2, 4, 3, 5), torch.rand(2, 3, 24, 40)
        >>> round(float(CSoALoss()(TwoMaps(maps, maps, images), torch.tensor([0, 3]))), 4)  # twice the log of 4
        2.7726
    """

    epoch_state = ("risen",)

    def __init__(
        self,
        *,
        alpha: float = 0.0,
        ramp: Ramp = "linear",
        over: Over = "mean",
        fixed: tuple[float, float] | None = None,
        coaug: CoAug | None = None,
        coaug_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
        if ramp not in ("linear", "constant"):
            raise ValueError(f"ramp must be 'linear' or 'constant', not {ramp!r}")
        self.alpha, self.fixed, self.coaug, self.coaug_weight = alpha, fixed, coaug, coaug_weight
        self.ramp: Ramp = ramp
        self.over: Over = over
        self.mask: Callable[[Tensor], Tensor] = confidence_mask
        if fixed is not None:
            low, high = fixed
            self.mask = lambda maps: fixed_mask(maps, low, high)
        self.begin_epoch(0, 1)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set the fraction of both weights for an epoch, counted from 0; the training loop calls it."""
        self.risen = epoch / (epochs - 1) if epochs > 1 and self.ramp == "linear" else 1.0

    def forward(self, outputs: TwoMaps, labels: Tensor) -> Tensor:
        """Mean loss of the network's outputs for labels, int64 `(B,)`.

        Raises:
            ValueError: If `alpha` is above 0, but the network has one head.
        """
        loss = torch.stack([F.cross_entropy(logits, labels) for logits in outputs.logits()]).sum()
        rows = torch.arange(len(labels), device=labels.device)
        last = outputs.last[rows, labels]
        if self.alpha:
            if outputs.inner is None:
                raise ValueError("confidence segmentation supervises an inner map: build the network with `inner`")
            inner = outputs.inner[rows, labels]
            loss = loss + self.alpha * self.risen * inner_loss(inner, last, self.mask(last.detach()), over=self.over)
        if self.coaug is not None:
            loss = loss + self.coaug_weight * self.risen * self.coaug(last, outputs.images, labels)
        return loss

    def scores(self, outputs: TwoMaps) -> Tensor:
        """Class probabilities `(B, C)`, averaged over the heads."""
        return outputs.scores()

    def extra_repr(self) -> str:
        """The settings, for `repr`."""
        settings = {"alpha": self.alpha, "ramp": self.ramp, "over": self.over, "fixed": self.fixed}
        return ", ".join(f"{k}={v}" for k, v in (settings | {"coaug_weight": self.coaug_weight}).items())
