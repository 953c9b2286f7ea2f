"""Weights that are shared out to all processes while they are trained (FSDP), and whole wherever they are saved."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_fabric.strategies import ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def sharding(processes: int) -> Strategy:
    """Fabric's strategy that gives every process a part of every weight; on GPUs and on processors.

    Example:
        >>> type(sharding(2)).__name__
        'ModelParallelStrategy'
    """
    return ModelParallelStrategy(_shard, data_parallel_size=processes, tensor_parallel_size=1)


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put tensors together that are shared out; all processes have to call it. Others stay as they are.

    Example:
        >>> whole(nn.Linear(1, 1, bias=False).state_dict())["weight"].shape
        torch.Size([1, 1])
    """
    parts = sorted(tensors.items())  # in one order everywhere
    return {name: each.full_tensor() if isinstance(each, DTensor) else each for name, each in parts}


def shared_out(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Share tensors out as others of the same name and shape are.

    Args:
        tensors: Whole ones.
        like: Whose parts lie where they shall; names that it lacks, and tensors in one piece, change nothing.

    Example:
        >>> weights = nn.Linear(1, 1).state_dict()
        >>> shared_out(weights, weights) == weights
        True
    """
    found = dict(tensors)
    for name, each in tensors.items():
        other = like.get(name)
        if isinstance(other, DTensor) and other.shape == each.shape:
            here = each.to(other.device)  # whole in every process already: nothing has to be sent
            found[name] = distribute_tensor(here, other.device_mesh, other.placements, src_data_rank=None)
    return found


def _shard(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    fully_shard(model, mesh=mesh["data_parallel"])
    return model
