"""Layers that see a whole batch, of which each process has a share: batch normalisation and dropout."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolnb._utils.whole_batch import counted, draw_rows, sum_over_processes


class SharedNorm(nn.BatchNorm2d):
    """Batch normalisation with mean and variance over the images of all processes, on any device.

    It has the weights and buffers of `torch.nn.BatchNorm2d`, and in evaluation mode its forward pass. Unlike
    `torch.nn.SyncBatchNorm` it also runs on CPUs, and skips the image of a process that has none of the batch's.

    Example:
        >>> SharedNorm(3)(torch.ones(2, 3, 4, 4)).shape
        torch.Size([2, 3, 4, 4])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise images `(B, D, h, w)` by all processes' statistics, in float32 or the input's higher precision."""
        if not self.training:
            return super().forward(input)
        values, weight = input.to(torch.promote_types(input.dtype, torch.float32)), counted()
        here = values.new_full((1,), values.numel() // values.shape[1])
        total, number = sum_over_processes(torch.cat([values.sum(dim=(0, 2, 3)), here]) * weight).tensor_split([-1])
        mean = total / number
        apart = values - mean[:, None, None]
        variance = sum_over_processes((apart**2).sum(dim=(0, 2, 3)) * weight) / number
        with torch.no_grad():
            seen = cast(Tensor, self.num_batches_tracked).add_(1)
            share = 1 / float(seen) if self.momentum is None else self.momentum
            cast(Tensor, self.running_mean).lerp_(mean, share)
            cast(Tensor, self.running_var).lerp_(variance * number / (number - 1), share)
        scale = self.weight / (variance + self.eps).sqrt()
        return (apart * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


class SharedDropout(nn.Dropout):
    """Dropout by a mask that is drawn for the whole batch, whatever its layout in memory.

    Example:
        >>> SharedDropout(0.0)(torch.ones(2))
        tensor([1., 1.])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Drop and scale values `(B, ...)`."""
        if not self.training:
            return input
        return input * draw_rows(len(input), lambda n: F.dropout(input.new_ones(n, *input.shape[1:]), self.p))


_SHARED: dict[type[nn.Module], type[nn.Module]] = {nn.BatchNorm2d: SharedNorm, nn.Dropout: SharedDropout}
_OWN = {shared: own for own, shared in _SHARED.items()}


def share_layers(model: nn.Module, *kinds: type[nn.Module]) -> None:
    """Let a model's layers of some kinds see the whole batch, and the others their own images.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))
        >>> share_layers(net, nn.Dropout)
        >>> net
        Sequential(
          (0): BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
          (1): SharedDropout(p=0.5, inplace=False)
        )
    """
    for module in model.modules():
        kind = _OWN.get(type(module), type(module))
        module.__class__ = _SHARED[kind] if kind in kinds else kind
