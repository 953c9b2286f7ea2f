"""What a forward pass costs, counted instead of timed, so that the number is the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import finalize

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def multiply_adds(function: Callable[..., Any], *arguments: Any) -> int:
    """Multiplications with an addition in the convolutions and matrix products of one call.

    Normalisation, activations and resizing are not counted. No gradient is computed.

    Args:
        function: A module or anything that calls some.
        *arguments: What it is called with.

    Example:
        >>> multiply_adds(torch.nn.Conv2d(3, 8, 3, padding=1), torch.rand(1, 3, 10, 20))  # 3·8·9 for each of 200 cells
        43200
    """
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        function(*arguments)
    return int(counter.get_total_flops()) // 2


def tensor_memory(function: Callable[..., Any], *arguments: Any) -> int:
    """The most bytes of tensors that are alive at once while a call runs: those it makes, not weights and arguments.

    Memory that libraries take inside of an operation is not counted.

    Args:
        function: A module or anything that calls some.
        *arguments: What it is called with.

    Example:
        >>> tensor_memory(lambda x: (x + 1).relu().sum(), torch.rand(10, 20))  # two tensors of 200 numbers at once
        1600
    """
    counter = _Alive()
    with counter, torch.no_grad():
        function(*arguments)
    return counter.most


class _Alive(TorchDispatchMode):
    """Counts the storages that operations give back, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {each.untyped_storage()._cdata for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (key := tensor.untyped_storage()._cdata) not in self.seen | known:
                storage = tensor.untyped_storage()
                self.seen.add(key)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                finalize(storage, self._free, key, storage.nbytes())
        return result

    def _free(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size
