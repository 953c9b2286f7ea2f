"""Batch normalisation by the statistics of a whole batch, of which each process has a share."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn


class SharedNorm(nn.BatchNorm2d):
    """Batch normalisation with mean and variance over the images of all processes, on any device.

    It has the weights and buffers of `torch.nn.BatchNorm2d`, and in evaluation mode its forward pass. Unlike
    `torch.nn.SyncBatchNorm` it also runs on CPUs, and skips the image of a process that has none of the batch's.

    Example:
        >>> SharedNorm(3).eval()(torch.ones(2, 3, 4, 4)).shape
        torch.Size([2, 3, 4, 4])
    """

    counted = True  # whether this process's images are of the batch

    def forward(self, input: Tensor) -> Tensor:
        """Normalise images `(B, D, h, w)` by all processes' statistics, in float32 or the input's higher precision."""
        if not self.training:
            return super().forward(input)
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        number = torch.tensor(float(values.numel() // values.shape[1]), device=input.device) * self.counted
        dist.all_reduce(number)
        mean = _summed(values, self.counted) / number
        apart = values - mean[:, None, None]
        variance = _summed(apart**2, self.counted) / number
        with torch.no_grad():
            seen = cast(Tensor, self.num_batches_tracked).add_(1)
            share = 1 / float(seen) if self.momentum is None else self.momentum
            cast(Tensor, self.running_mean).lerp_(mean, share)
            cast(Tensor, self.running_var).lerp_(variance * number / (number - 1), share)
        scale = self.weight / (variance + self.eps).sqrt()
        return (apart * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


def share_norms(model: nn.Module, *, shared: bool) -> list[SharedNorm]:
    """Let all batch normalisation of a model be shared between processes, or each process's own again; the layers.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm2d(3))
        >>> share_norms(net, shared=True)
        [SharedNorm(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)]
        >>> share_norms(net, shared=False), net[0]
        ([], BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True))
    """
    old, new = (nn.BatchNorm2d, SharedNorm) if shared else (SharedNorm, nn.BatchNorm2d)
    for module in model.modules():
        if type(module) is old:
            module.__class__ = new
    return [module for module in model.modules() if isinstance(module, SharedNorm)]


class _AllReduce(torch.autograd.Function):
    """The sum over all processes; every process's loss depends on it."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def _summed(values: Tensor, counted: bool) -> Tensor:
    """Sum over the images of all processes, `(D,)`."""
    return _AllReduce.apply(values.sum(dim=(0, 2, 3)) * counted)
