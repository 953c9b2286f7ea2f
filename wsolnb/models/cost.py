"""The cost of a forward pass, counted instead of timed: the same number on every machine."""

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
    """Multiply-adds in the convolutions and matrix products of one call `function(*arguments)` without gradients.

    Normalisation, activations and resizing are not counted.

    Example:
        >>> multiply_adds(torch.nn.Conv2d(3, 8, 3, padding=1), torch.rand(1, 3, 10, 20))  # 3·8·9 for each of 200 cells
        43200
    """
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        function(*arguments)
    return int(counter.get_total_flops()) // 2


def tensor_memory(function: Callable[..., Any], *arguments: Any) -> int:
    """Peak bytes of the tensors that one call `function(*arguments)` creates, without gradients.

    Weights, arguments, and memory that libraries allocate inside an operation are not counted.

    Example:
        >>> tensor_memory(lambda x: (x + 1).relu().sum(), torch.rand(10, 20))  # two tensors of 200 numbers
        1600
    """
    counter = _LiveStorage()
    with counter, torch.no_grad():
        function(*arguments)
    return counter.peak


class _LiveStorage(TorchDispatchMode):
    """Bytes of the storages that operations return, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self.keys: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (key := tensor.untyped_storage()._cdata) not in self.keys | inputs:
                storage = tensor.untyped_storage()
                self.keys.add(key)
                self.bytes += storage.nbytes()
                self.peak = max(self.peak, self.bytes)
                finalize(storage, self._free, key, storage.nbytes())
        return result

    def _free(self, key: int, size: int) -> None:
        self.keys.discard(key)
        self.bytes -= size
