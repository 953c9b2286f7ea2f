"""One forward pass of any classifier, watched: its last feature maps, and the linear layers after them.

Forward hooks on all modules see what layers make. They do not see code that calls functions instead of modules; a pass
that is traced function by function sees that, too, and tells an error message what stands between pooling and head.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any, TypeGuard

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode

_LAYOUT = {"flatten", "view", "view_as", "reshape", "reshape_as", "squeeze", "unsqueeze", "unflatten", "permute",
           "transpose", "movedim", "moveaxis", "swapaxes", "swapdims"}  # fmt: skip
_IDLE = _LAYOUT | {"contiguous", "dropout", "dim", "size", "to", "type", "float", "clone", "detach", "numel", "__get__",
                   "is_floating_point", "__getitem__", "__len__", "requires_grad"}  # fmt: skip
_AVERAGES = {"mean", "sum", "einsum", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"}
_KEPT = 8  # feature maps of a traced pass, enough for what is computed beside the pooled ones

Norm = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, float]
"""Mean and variance (None: of the vector itself, a layer normalisation), weight, bias, eps."""


@dataclass(frozen=True)
class Call:
    """A linear layer applied to one vector per image or, `dense`, at every cell of a map."""

    given: Tensor
    weight: Tensor
    bias: Tensor | None
    result: Tensor
    between: tuple[str, ...] = ()  # functions called since the last pooling


@dataclass
class Record:
    """What a pass showed."""

    output: Any = None
    maps: list[Tensor] = field(default_factory=list)  # candidates for the pooled features, oldest first
    grids: set[tuple[int, int]] = field(default_factory=set)  # sizes of all maps on the way
    calls: list[Call] = field(default_factory=list)
    dense: Call | None = None
    norms: list[Norm] = field(default_factory=list)  # of one vector per image
    # of a traced pass only, for the error message
    pooled: Tensor | None = None  # what the last function made that leaves no cells
    pooling: str = ""  # its name
    shape: tuple[int, ...] = ()  # of what it was given, without the batch
    functions: list[str] = field(default_factory=list)  # called since

    @property
    def averaged(self) -> bool:
        """Whether the last pooling is an average or a sum by its name."""
        return self.pooling in _AVERAGES


def hooked_pass(model: nn.Module, images: Tensor) -> Record:
    """Run a model with forward hooks on all modules; at most one 4D and one 3D feature map are kept alive.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
        >>> record = hooked_pass(net, torch.rand(2, 3, 8, 8))
        >>> [tuple(each.shape) for each in record.maps], len(record.calls)
        ([(2, 6, 6, 6)], 1)
    """
    record, thread, batch = Record(), get_ident(), len(images)

    def keep(tensor: Tensor) -> None:
        record.maps = [each for each in record.maps if each.ndim != tensor.ndim and tensor.ndim == 3] + [tensor]
        record.grids |= _grids(tensor)
        record.calls, record.norms = [], []

    def hook(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        if not isinstance(result, Tensor) or get_ident() != thread:  # another thread may run a model, too
            return
        given = args[0] if args and isinstance(args[0], Tensor) else None
        layer = module if _is_plain(module) else None
        if _is_map(result, batch):
            keep(result)
            if given is not None and layer is not None and _is_dense(given, layer.weight, result):
                record.dense = Call(given, layer.weight, layer.bias, result)
            elif next(module.children(), None) is None and next(module.parameters(), None) is not None:
                record.dense = None  # no class maps, since more is learned after them: let their memory go
        elif given is None:
            return
        elif _is_map(given, batch):
            if next(module.children(), None) is None:  # a pooling layer
                keep(given)
        elif isinstance(module, nn.LayerNorm):
            record.norms.append((None, None, module.weight, module.bias, module.eps))
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            statistics = (module.running_mean, module.running_var)
            record.norms.append((*statistics, module.weight, module.bias, module.eps))
        elif layer is not None and _is_vector(given, layer.weight):
            record.calls.append(Call(given, layer.weight, layer.bias, result))

    handle = register_module_forward_hook(hook)
    try:
        record.output = logits(model(images))
    finally:
        handle.remove()
    return record


def traced_pass(model: nn.Module, images: Tensor) -> Record:
    """Run a model traced function by function; the last few feature maps are kept alive.

    Example:
        >>> import torch
        >>> class Net(nn.Module):
        ...     def forward(self, images): return images.relu().flatten(2).mean(2)
        >>> record = traced_pass(Net(), torch.rand(2, 3, 8, 8))
        >>> record.pooling, record.shape, record.functions
        ('mean', (3, 64), [])
    """
    with _Trace(len(images)) as trace:
        output = model(images)
    record = trace.record
    record.output, record.maps = logits(output), [*([] if trace.given is None else [trace.given]), *trace.maps]
    return record


def logits(output: Any) -> Any:
    """The entry or attribute `logits` of an output, as of Hugging Face's classifiers, else the output itself.

    Example:
        >>> import torch
        >>> logits({"loss": None, "logits": torch.ones(1)})
        tensor([1.])
    """
    if isinstance(output, Tensor):
        return output
    inner = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    return inner if isinstance(inner, Tensor) else output


class _Trace(TorchFunctionMode):
    """Records maps, the last function that leaves no cells, and the functions called after it."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.record, self.batch = Record(), batch
        self.maps: deque[Tensor] = deque(maxlen=_KEPT)
        self.given: Tensor | None = None  # what was pooled last, perhaps with its cells in another order

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name, record = getattr(func, "__name__", ""), self.record
        if not isinstance(result, Tensor):
            if name not in _IDLE:
                record.functions.append(name.strip("_"))
            return result
        flat = [*args, *kwargs.values()]
        flat += [each for parts in flat if isinstance(parts, list | tuple) for each in parts]
        given = next((each for each in flat if isinstance(each, Tensor)), None)
        if _is_map(result, self.batch):
            record.grids |= _grids(result)
            if name not in _LAYOUT:  # these may bring cells into another order
                self.maps.append(result)
        if name in ("linear", "conv2d"):
            given, weight, bias = _arguments(args, kwargs, "input", "weight", "bias")
            if _is_vector(given, weight):
                record.calls.append(Call(given, weight, bias, result, tuple(dict.fromkeys(record.functions))))
            elif _is_map(result, self.batch) and _is_dense(given, weight, result):
                record.dense = Call(given, weight, bias, result)
        if given is not None and _is_map(given, self.batch) and _leaves_no_cells(result, self.batch):
            record.pooled, record.pooling, record.shape = result, name, tuple(given.shape[1:])
            record.functions = []
            self.given = given
            return result
        if given is not None and name in _AVERAGES and given.ndim == 4 and given.shape[2] * given.shape[3] == 1:
            self.given = given  # a map of a single cell
        if name == "layer_norm" and given is not None and not _is_map(given, self.batch):
            _, _, *affine, eps = _arguments(args, kwargs, "input", "normalized_shape", "weight", "bias", "eps")
            record.norms.append((None, None, *affine, 1e-5 if eps is None else eps))
        elif name == "batch_norm" and given is not None and not _is_map(given, self.batch):
            names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
            _, mean, variance, *affine, _, _, eps = _arguments(args, kwargs, *names)
            record.norms.append((mean, variance, *affine, 1e-5 if eps is None else eps))
        if name not in _IDLE:
            record.functions.append(name.strip("_"))
        return result


def _arguments(args: Sequence[Any], kwargs: dict[str, Any], *names: str) -> list[Any]:
    given = dict(zip(names, args, strict=False)) | kwargs
    return [given.get(name) for name in names]


def _is_plain(module: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    """Whether it is a linear layer with torch's own `forward`: that of a subclass may compute something else."""
    if not isinstance(module, nn.Linear | nn.Conv2d):
        return False
    return getattr(module.forward, "__func__", None) in (nn.Linear.forward, nn.Conv2d.forward)


def _is_map(tensor: Tensor, batch: int) -> bool:
    """Whether it has one 3D or 2D array per image, and not one of a single row, column or cell."""
    if tensor.ndim not in (3, 4) or len(tensor) != batch or not tensor.is_floating_point():
        return False
    return sum(size > 1 for size in tensor.shape[1:]) > 1


def _leaves_no_cells(tensor: Tensor, batch: int) -> bool:
    """Whether it has one vector per image."""
    return tensor.ndim > 0 and len(tensor) == batch and sum(size > 1 for size in tensor.shape[1:]) <= 1


def _is_vector(given: Tensor, weight: Tensor) -> bool:
    """Whether a layer is given one vector per image."""
    return given.ndim == 2 or (given.ndim == 4 and weight.shape[1:] == given.shape[1:] == (given.shape[1], 1, 1))


def _is_dense(given: Tensor, weight: Tensor, result: Tensor) -> bool:
    """Whether a layer is applied at every cell: a 1 x 1 convolution that moves nothing, or a linear layer."""
    if weight.ndim == 4:
        return weight.shape[1:] == (given.shape[1], 1, 1) and given.shape[2:] == result.shape[2:]
    return given.shape[:-1] == result.shape[:-1]


def _grids(tensor: Tensor) -> set[tuple[int, int]]:
    """Rows and columns of a 4D map, whether channels come second or last."""
    return {tuple(tensor.shape[2:]), tuple(tensor.shape[1:3])} if tensor.ndim == 4 else set()  # type: ignore[arg-type]
