"""What any classifier pools and which linear layer reads it, found by watching one forward pass.

    images -> ... -> features (B, D, h, w) -> global average -> linear head -> outputs (B, C)

A network's first pass is watched from outside, function by function: no layer is wrapped, and the model is the same
afterwards. Nothing is assumed from names. What is taken for the pooled features is what the head was really given,
compared number by number; where anything else stands between the two, there is no class activation map, and the error
says what stands there. Later passes are read where the first one was (`wsolnb.inference.taps`), and compared in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wsolnb.boxes.quantise import require_finite
from wsolnb.inference.taps import LayerOutputs, Tapped, forget_tap, remember_tap, tapped_pass
from wsolnb.models.cam import Classifier

_RESHAPING = {"flatten", "view", "reshape", "squeeze", "permute", "transpose", "contiguous", "dropout", "dim", "size",
              "to", "type", "float", "unsqueeze", "clone", "detach", "is_floating_point", "numel", "__get__",
              "__getitem__", "__len__"}  # fmt: skip

_Parts = tuple[Tensor | None, Tensor, Tensor | None]  # scale, weights, constant
_Norm = tuple[Sequence[int], Tensor | None, Tensor | None, float]  # shape, gain, shift, eps


@dataclass(frozen=True)
class LinearReading:
    """A forward pass, taken apart: outputs are `scale · W · mean_ij ψ_ij + constant`.

    Args:
        features: `ψ`, what the network pools, `(B, D, h, w)`.
        weight: `W`, `(C, D)`.
        constant: What the outputs hold beside it, `(C,)`: the bias.
        scale: One positive number per image, `(B,)`, or None for one. A layer normalisation between pooling and head
            divides by the spread of the pooled features: for one image that is a number, and the rest is linear.
        outputs: Of the head, `(B, C)`.
    """

    features: Tensor
    weight: Tensor
    constant: Tensor
    scale: Tensor | None
    outputs: Tensor


def read_linear(model: nn.Module, images: Tensor, head: str | None = None) -> LinearReading:
    """Run a classifier once and take its output apart into features and a linear head.

    Args:
        model: Any network that averages features over all cells and gives the averages to one linear layer (or to a
            1 x 1 convolution), with at most a layer normalisation between the two; or a `Classifier` with any pooling.
            In evaluation mode.
        images: As the model takes them, `(B, 3, H, W)`.
        head: Name of the linear layer, as in `model.named_modules()`; None finds the one whose result the model gives.

    Returns:
        Tensors in the precision in which the network ran, without gradients.

    Raises:
        ValueError: No such head, several, or one that is not linear in the pooled features (what stands between is
            named); features of a single cell; outputs that are not finite.

    Example:
        >>> import torchvision
        >>> net = torchvision.models.resnet18().eval()
        >>> reading = read_linear(net, torch.rand(2, 3, 64, 96))
        >>> reading.features.shape, reading.weight.shape
        (torch.Size([2, 512, 2, 3]), torch.Size([1000, 512]))
    """
    if isinstance(model, Classifier):
        if head not in (None, "head"):
            raise ValueError(f"a Classifier has one head, 'head', and no {head!r}")
        features = model.features(images)
        return _checked(features, (None, model.head.weight, model.head.bias), model.classify(features))
    wanted = None if head is None else _weight_of(model, head)
    if (tapped := tapped_pass(model, images, head)) is not None:
        if (reading := _again(tapped, head)) is not None:
            return reading
        forget_tap(model, head)
    with LayerOutputs() as outputs, _Watch() as seen:
        output = model(images)
    call = _choose(model, seen, output, wanted, head)
    parts, norm = _between(model, seen, call)
    assert seen.features is not None
    gains = [] if norm is None else [norm[1]]
    remember_tap(model, head, outputs.layer_of(seen.features), [call.weight, *gains])
    return _checked(seen.features, parts, call.result)


def _again(tapped: Tapped, head: str | None) -> LinearReading | None:
    """The reading at a tap, or None if what it gave is not that of a linear head any more."""
    linear, norm = tapped.head, tapped.norm
    _require_finite(tapped.output)
    if head is None and not (tapped.output is tapped.result or _same(tapped.output, tapped.result)):
        return None
    between = None if norm is None else (norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    parts = _parts(tapped.features, tapped.given.flatten(1), linear.weight.flatten(1), linear.bias, between)
    return None if parts is None else _checked(tapped.features, parts, tapped.result)


def _checked(features: Tensor, parts: _Parts, result: Tensor) -> LinearReading:
    if features.shape[2] * features.shape[3] == 1:
        raise ValueError("the network pools a single cell: nothing to localize in; give it larger images")
    require_finite(features)
    scale, weight, constant = parts
    constant = weight.new_zeros(len(weight)) if constant is None else constant
    return LinearReading(features.detach(), weight.detach(), constant.detach(), scale, result.flatten(1).detach())


@dataclass(frozen=True)
class _Call:
    """One linear layer at work on one vector per image, and what was computed between the pooling and it."""

    given: Tensor
    weight: Tensor
    bias: Tensor | None
    result: Tensor
    before: tuple[str, ...]


class _Watch(TorchFunctionMode):
    """Remembers the last global average over cells, and what is computed after it."""

    def __init__(self) -> None:
        super().__init__()
        self.features: Tensor | None = None
        self.pooled: Tensor | None = None
        self.calls: list[_Call] = []
        self.norms: list[_Norm] = []
        self.names: list[str] = []
        self.flattened: tuple[int, ...] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _AVERAGES:
            cells = _AVERAGES[name](result, *args, **kwargs)
            if cells is not None:
                self.features, self.pooled = cells, result
                self.calls, self.norms, self.names, self.flattened = [], [], [], None
                return result
        if name in ("linear", "conv2d"):
            self._linear(result, *args, **kwargs)
        elif name == "layer_norm":
            self.norms.append(_norm(*args, **kwargs))
        elif name in ("flatten", "view", "reshape") and args and result.ndim == 2 and args[0].shape[2:].numel() > 1:
            self.flattened = tuple(args[0].shape[1:])
        if name not in _RESHAPING:
            self.names.append(name.strip("_"))
        return result

    def _linear(
        self, result: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None, *_: Any, **__: Any
    ) -> None:
        if input.ndim == 2 or (input.ndim == 4 and weight.shape[1:] == input.shape[1:] == (input.shape[1], 1, 1)):
            self.calls.append(_Call(input, weight, bias, result, tuple(dict.fromkeys(self.names))))


def _norm(
    input: Tensor, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> _Norm:
    return shape, weight, bias, eps


def _mean(result: Tensor, input: Tensor, dim: Any = None, *_: Any, **options: Any) -> Tensor | None:
    dim = options.get("axis", dim)
    if input.ndim != 4 or dim is None:
        return None
    axes = {axis % 4 for axis in ([dim] if isinstance(dim, int) else dim)}
    if axes == {1, 2}:
        return input.permute(0, 3, 1, 2)
    return input if axes == {2, 3} else None


def _window(result: Tensor, input: Tensor, *_: Any, **__: Any) -> Tensor | None:
    return input if input.ndim == 4 and result.shape[2:].numel() == 1 else None


_AVERAGES: dict[str, Callable[..., Tensor | None]] = {
    "mean": _mean,
    "adaptive_avg_pool2d": _window,
    "avg_pool2d": _window,
}


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
    return next((repr(key.rpartition(".")[0]) for key, each in model.named_parameters() if each is weight), "unnamed")


def _same(one: Any, other: Tensor) -> bool:
    return isinstance(one, Tensor) and one.numel() == other.numel() and torch.equal(one.reshape(other.shape), other)


def _choose(model: nn.Module, seen: _Watch, output: Any, wanted: Tensor | None, head: str | None) -> _Call:
    """The call of the head, or an error that says why there is none."""
    _require_finite(output)
    if wanted is not None:
        named = [call for call in seen.calls if call.weight is wanted]
        if not named:
            raise ValueError(f"the head {head!r} did not read one vector per image after the last pooling in this pass")
        return named[-1]
    found = [call for call in seen.calls if call.result is output] or [
        call for call in seen.calls if _same(output, call.result)
    ]
    if found:
        return found[-1]
    direct = [call for call in seen.calls if seen.pooled is not None and _same(call.given, seen.pooled)]
    if direct:
        names = ", ".join(_name(model, call.weight) for call in direct)
        what = f"returns a {type(output).__name__}" if not isinstance(output, Tensor) else "changes what they give"
        several = "linear layers read" if len(direct) > 1 else "a linear layer reads"
        raise ValueError(f"{several} the pooled features ({names}), and the model {what}: name one with head=")
    later = ", ".join(dict.fromkeys(seen.names)) or "nothing"
    why = "nothing is averaged over all cells" if seen.pooled is None else f"after the pooling comes {later}"
    raise ValueError(f"no linear layer reads pooled features and gives the output of {type(model).__name__}: {why}")


def _between(model: nn.Module, seen: _Watch, call: _Call) -> tuple[_Parts, _Norm | None]:
    """What leads from the pooled features to the head's result, and the layer normalisation in it."""
    name = _name(model, call.weight)
    if seen.pooled is None:
        if seen.flattened is not None:
            channels, *cells = seen.flattened
            raise ValueError(
                f"{type(model).__name__} flattens {channels} x {' x '.join(map(str, cells))} features in front of its "
                "dense layers and does not pool them: every cell has weights of its own, so there is no class "
                "activation map; replace its end by global average pooling and one linear layer, and train that"
            )
        raise ValueError(f"nothing is averaged over all cells of a feature map in front of the head {name}")
    assert seen.features is not None
    given, pooled = call.given.flatten(1), seen.pooled.flatten(1)
    plain = _same(given, pooled)
    norm = None if plain or len(seen.norms) != 1 else seen.norms[0]
    # pooled is not the mean where a window was smaller or padded, or where the average was changed in place
    if (plain or norm) and _near(pooled, _mean_of(seen.features, pooled)):
        parts = _parts(seen.features, given, call.weight.flatten(1), call.bias, norm)
        if parts is not None:
            return parts, norm
    between = ", ".join(call.before) or "another value"
    raise ValueError(f"the head {name} is not linear in the pooled features; between the two: {between}")


def _parts(features: Tensor, given: Tensor, weight: Tensor, bias: Tensor | None, norm: _Norm | None) -> _Parts | None:
    """Scale, weights and constant, if the head was given the mean of the features or the normalised mean."""
    mean = _mean_of(features, given)
    if norm is None:
        return (None, weight, bias) if _near(given, mean) else None
    shape, gain, shift, eps = norm
    if tuple(shape) != given.shape[1:]:
        return None
    gain = weight.new_ones(weight.shape[1]) if gain is None else gain
    shift = weight.new_zeros(weight.shape[1]) if shift is None else shift
    scale = (mean.var(dim=1, correction=0) + eps).rsqrt()
    centred = mean - mean.mean(dim=1, keepdim=True)
    wide = mean.dtype
    if not _near(given, centred * scale[:, None] * gain.to(wide) + shift.to(wide)):
        return None
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    constant = bias.to(wide) + weight.to(wide) @ shift.to(wide)
    weight = weight.to(wide) * gain.to(wide)
    return scale, weight - weight.mean(dim=1, keepdim=True), constant


def _mean_of(features: Tensor, like: Tensor) -> Tensor:
    return features.to(torch.promote_types(like.dtype, torch.float32)).mean(dim=(2, 3))


def _require_finite(output: Any) -> None:
    if isinstance(output, Tensor) and output.is_floating_point():
        require_finite(output)


def _near(values: Tensor, expected: Tensor) -> bool:
    """Whether values are those expected, up to their precision."""
    share = 1e-4 if values.dtype in (torch.float32, torch.float64) else 3e-2
    return values.shape == expected.shape and bool((values - expected).abs().max() <= share * expected.abs().max())
