"""Features and linear head of any classifier, found in one forward pass.

    images -> ... -> features (B, D, h, w) -> global average -> linear head -> outputs (B, C)

Forward hooks on all modules record the last feature map and the linear layers after it, and the head's input is
compared with the mean of the features, number by number: where anything else stands between the two, there is no class
activation map. Hooks do not see code that calls functions instead of modules. So before a network is refused, a second
pass is traced function by function, which also tells the error what stands between pooling and head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from threading import get_ident
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode

from wsolnb.boxes.quantise import require_finite
from wsolnb.models.cam import Classifier

_RESHAPING = {"flatten", "view", "reshape", "squeeze", "permute", "transpose", "contiguous", "dropout", "dim", "size",
              "to", "type", "float", "unsqueeze", "clone", "detach", "is_floating_point", "numel", "__get__",
              "__getitem__", "__len__"}  # fmt: skip

_Parts = tuple[Tensor | None, Tensor, Tensor | None]  # scale, weight, constant
_Norm = tuple[Sequence[int], Tensor | None, Tensor | None, float]  # shape, weight, bias, eps


@dataclass(frozen=True)
class LinearHead:
    """A forward pass, taken apart: outputs are `scale · W · mean_ij ψ_ij + constant`.

    A layer normalisation between pooling and head divides by the spread of the pooled features: for one image that is
    a number, its `scale`, and the rest is linear.
    """

    features: Tensor  # ψ, what the network pools, (B, D, h, w)
    weight: Tensor  # W, (C, D)
    constant: Tensor  # (C,), without a layer normalisation the bias
    scale: Tensor | None  # positive, (B,); None for one
    outputs: Tensor  # of the head, (B, C)


def read_linear(model: nn.Module, images: Tensor, head: str | None = None) -> LinearHead:
    """Run a classifier once and take its output apart into features and a linear head.

    Args:
        model: In evaluation mode: a network that averages features over all cells and gives the averages to one linear
            layer or 1 x 1 convolution, with at most a layer normalisation in front of it; or a `Classifier` with any
            pooling. It runs twice where its features or its head are not those of modules.
        images: `(B, 3, H, W)`.
        head: Name of the linear layer, as in `model.named_modules()`; None finds the one whose result the model
            returns.

    Returns:
        Tensors in the precision in which the network ran, without gradients.

    Raises:
        ValueError: No such head, several, or one that is not linear in the pooled features (what stands between is
            named); features of a single cell; outputs that are not finite.

    Example:
        >>> import torchvision
        >>> net = torchvision.models.resnet18().eval()
        >>> linear = read_linear(net, torch.rand(2, 3, 64, 96))
        >>> linear.features.shape, linear.weight.shape
        (torch.Size([2, 512, 2, 3]), torch.Size([1000, 512]))
    """
    if isinstance(model, Classifier):
        if head not in (None, "head"):
            raise ValueError(f"a Classifier has one head, 'head', and no {head!r}")
        features = model.features(images)
        return _checked(features, (None, model.head.weight, model.head.bias), model.classify(features))
    weight = None if head is None else _weight_of(model, head)
    for run in (_hooked_pass, _traced_pass):
        record = run(model, images)
        if isinstance(record.output, Tensor) and record.output.is_floating_point():
            output = record.output
            require_finite(output if output.ndim > 1 else output.reshape(-1, 1))  # one logit may come as (B,)
        call = _head_call(record, weight)
        if call is None or record.features is None:
            continue
        for features in (record.features, record.features.permute(0, 3, 1, 2)):  # channels first, or last
            if (parts := _parts(features, call, record.norms)) is not None:
                return _checked(features, parts, call.result)
    _refuse(model, record, call, head)


def _checked(features: Tensor, parts: _Parts, result: Tensor) -> LinearHead:
    if features.shape[2] * features.shape[3] == 1:
        raise ValueError("the network pools a single cell: nothing to localize in; give it larger images")
    require_finite(features)
    scale, weight, constant = parts
    constant = weight.new_zeros(len(weight)) if constant is None else constant
    return LinearHead(features.detach(), weight.detach(), constant.detach(), scale, result.flatten(1).detach())


@dataclass(frozen=True)
class _Call:
    """A linear layer applied to one vector per image, and the functions called between the pooling and it."""

    given: Tensor
    weight: Tensor
    bias: Tensor | None
    result: Tensor
    between: tuple[str, ...] = ()


@dataclass
class _Record:
    """The last feature map of a pass, and the linear layers and layer normalisations after it."""

    output: Any = None
    features: Tensor | None = None
    calls: list[_Call] = field(default_factory=list)
    norms: list[_Norm] = field(default_factory=list)
    # of a traced pass only, for the error message
    pooled: Tensor | None = None
    functions: list[str] = field(default_factory=list)
    flattened: tuple[int, ...] | None = None


def _hooked_pass(model: nn.Module, images: Tensor) -> _Record:
    """A pass with forward hooks on all modules; of the feature maps only the last is kept alive."""
    record, thread = _Record(), get_ident()

    def hook(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        if not isinstance(result, Tensor) or get_ident() != thread:  # another thread may run a model, too
            return
        given = args[0] if args and isinstance(args[0], Tensor) else None
        if _is_map(result):
            record.features, record.calls, record.norms = result, [], []
        elif given is None:
            return
        elif _is_map(given):
            if next(module.children(), None) is None:  # a pooling layer
                record.features, record.calls, record.norms = given, [], []
        elif isinstance(module, nn.LayerNorm):
            record.norms.append((module.normalized_shape, module.weight, module.bias, module.eps))
        elif isinstance(module, nn.Linear | nn.Conv2d) and _is_plain(module) and _is_vector(given, module.weight):
            record.calls.append(_Call(given, module.weight, module.bias, result))

    handle = register_module_forward_hook(hook)
    try:
        record.output = model(images)
    finally:
        handle.remove()
    return record


def _is_plain(module: nn.Module) -> bool:
    """Whether a layer has torch's own `forward`: that of a subclass may compute something else."""
    return getattr(module.forward, "__func__", None) in (nn.Linear.forward, nn.Conv2d.forward)


def _is_map(tensor: Tensor) -> bool:
    """Whether it is 4D and neither `(B, D, 1, 1)` nor `(B, 1, 1, D)`."""
    return tensor.ndim == 4 and sum(size > 1 for size in tensor.shape[1:]) > 1


def _is_vector(given: Tensor, weight: Tensor) -> bool:
    """Whether a layer is given one vector per image."""
    return given.ndim == 2 or (given.ndim == 4 and weight.shape[1:] == given.shape[1:] == (given.shape[1], 1, 1))


def _traced_pass(model: nn.Module, images: Tensor) -> _Record:
    with _Trace() as trace:
        output = model(images)
    trace.record.output = output
    return trace.record


class _Trace(TorchFunctionMode):
    """Records the input of the last global average over cells, and the functions called after it."""

    def __init__(self) -> None:
        super().__init__()
        self.record = _Record()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name, record = getattr(func, "__name__", ""), self.record
        if name in ("mean", "adaptive_avg_pool2d", "avg_pool2d"):
            (given,) = _arguments(args, kwargs, "input")
            # one number per image and channel, whether channels come second or last
            shapes = (given.shape[:2], given.shape[::3])
            if given.ndim == 4 and result.ndim > 1 and result.flatten(1).shape in shapes:
                self.record = _Record(features=given, pooled=result)
                return result
        if name in ("linear", "conv2d"):
            given, weight, bias = _arguments(args, kwargs, "input", "weight", "bias")
            if _is_vector(given, weight):
                record.calls.append(_Call(given, weight, bias, result, tuple(dict.fromkeys(record.functions))))
        elif name == "layer_norm":
            _, shape, *affine, eps = _arguments(args, kwargs, "input", "normalized_shape", "weight", "bias", "eps")
            record.norms.append((shape, *affine, 1e-5 if eps is None else eps))
        elif name in ("flatten", "view", "reshape") and args and result.ndim == 2 and args[0].shape[2:].numel() > 1:
            record.flattened = tuple(args[0].shape[1:])
        if name not in _RESHAPING:
            record.functions.append(name.strip("_"))
        return result


def _arguments(args: Sequence[Any], kwargs: dict[str, Any], *names: str) -> list[Any]:
    given = dict(zip(names, args, strict=False)) | kwargs
    return [given.get(name) for name in names]


def _weight_of(model: nn.Module, head: str) -> Tensor:
    modules = dict(model.named_modules())
    if head not in modules:
        close = get_close_matches(head, modules, 3)
        raise ValueError(f"the model has no layer {head!r}" + (f"; close: {', '.join(close)}" if close else ""))
    weight = getattr(modules[head], "weight", None)
    if not isinstance(modules[head], nn.Linear | nn.Conv2d) or not isinstance(weight, Tensor):
        raise ValueError(f"the head {head!r} is no linear layer but {type(modules[head]).__name__}")
    return weight


def _name(model: nn.Module, weight: Tensor) -> str:
    return next((repr(key.rpartition(".")[0]) for key, value in model.named_parameters() if value is weight), "unnamed")


def _same(one: Any, other: Tensor) -> bool:
    return isinstance(one, Tensor) and one.numel() == other.numel() and torch.equal(one.reshape(other.shape), other)


def _head_call(record: _Record, weight: Tensor | None) -> _Call | None:
    """The last call with the given weight, or without one, that whose result the model returned."""
    if weight is not None:
        calls = [call for call in record.calls if call.weight is weight]
    else:
        calls = [call for call in record.calls if call.result is record.output]
        calls = calls or [call for call in record.calls if _same(record.output, call.result)]
    return calls[-1] if calls else None


def _refuse(model: nn.Module, record: _Record, call: _Call | None, head: str | None) -> NoReturn:
    """Say why no head was found in a traced pass, or why it is not linear in the pooled features."""
    kind, pooled = type(model).__name__, record.pooled
    if call is None and head is not None:
        raise ValueError(f"the head {head!r} did not read one vector per image after the last pooling in this pass")
    if call is None:
        direct = [call for call in record.calls if pooled is not None and _same(call.given, pooled)]
        if direct:
            names = ", ".join(_name(model, call.weight) for call in direct)
            layers = "linear layers read" if len(direct) > 1 else "a linear layer reads"
            output = type(record.output).__name__
            verb = "changes what they give" if isinstance(record.output, Tensor) else f"returns a {output}"
            raise ValueError(f"{layers} the pooled features ({names}), and the model {verb}: name one with head=")
        later = ", ".join(dict.fromkeys(record.functions)) or "nothing"
        why = "nothing is averaged over all cells" if pooled is None else f"after the pooling comes {later}"
        raise ValueError(f"no linear layer reads pooled features and gives the output of {kind}: {why}")
    name = _name(model, call.weight)
    if pooled is None and record.flattened is not None:
        channels, *cells = record.flattened
        raise ValueError(
            f"{kind} flattens {channels} x {' x '.join(map(str, cells))} features in front of its dense layers "
            "and does not pool them: every cell has weights of its own, so there is no class activation map; replace "
            "its end by global average pooling and one linear layer, and train that"
        )
    if pooled is None:
        raise ValueError(f"nothing is averaged over all cells of a feature map in front of the head {name}")
    between = ", ".join(call.between) or "another value"
    raise ValueError(f"the head {name} is not linear in the pooled features; between the two: {between}")


def _parts(features: Tensor, call: _Call, norms: Sequence[_Norm]) -> _Parts | None:
    """Scale, weight and constant, if the head was given the mean of the features or the normalised mean."""
    given, weight, bias = call.given.flatten(1), call.weight.flatten(1), call.bias
    if features.shape[:2] != given.shape:
        return None
    mean = features.to(torch.promote_types(given.dtype, torch.float32)).mean(dim=(2, 3))
    if _near(given, mean):
        return None, weight, bias
    if len(norms) != 1 or tuple(norms[0][0]) != given.shape[1:]:
        return None
    _, gain, shift, eps = norms[0]
    gain = weight.new_ones(weight.shape[1]) if gain is None else gain
    shift = weight.new_zeros(weight.shape[1]) if shift is None else shift
    scale = (mean.var(dim=1, correction=0) + eps).rsqrt()
    centred = mean - mean.mean(dim=1, keepdim=True)
    wide = mean.dtype
    if not _near(given, centred * scale[:, None] * gain.to(wide) + shift.to(wide)):
        return None
    constant = weight.to(wide) @ shift.to(wide)
    constant = constant if bias is None else bias.to(wide) + constant
    weight = weight.to(wide) * gain.to(wide)
    return scale, weight - weight.mean(dim=1, keepdim=True), constant


def _near(values: Tensor, expected: Tensor) -> bool:
    """Whether values are those expected, up to their precision."""
    fraction = 1e-4 if values.dtype in (torch.float32, torch.float64) else 3e-2
    return bool((values - expected).abs().max() <= fraction * expected.abs().max())
