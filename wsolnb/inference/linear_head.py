"""Features and linear head of any classifier, found in one forward pass.

    images -> ... -> features (B, D, h, w) -> global average -> linear head -> outputs (B, C)

The head's input is compared with the mean of the features, number by number: where anything else stands between the
two, there is no class activation map. Where hooks on layers do not show the two, a second pass is traced function by
function before a network is refused (`wsolnb.inference.passes`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from math import isqrt
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from wsolnb.boxes.quantise import require_finite
from wsolnb.inference.passes import Call, Norm, Record, hooked_pass, traced_pass
from wsolnb.models.cam import Classifier

FORMS = (
    "what can be read: an average over all cells of a feature map or all patch tokens, then one linear layer, with at "
    "most a layer or batch normalisation between; class maps that are averaged; a wsolnb Classifier"
)
"""The networks that can be read, for error messages."""

_OTHER_TOKENS = 8  # that may stand in front of the patch tokens: class, distillation, registers

_Parts = tuple[Tensor | None, Tensor, Tensor | None]  # scale, weight, constant


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
        model: In evaluation mode: a network that averages features over all cells, or tokens over all patches, and
            gives the averages to one linear layer or 1 x 1 convolution, with at most a layer or batch normalisation in
            front of it; or one that averages class maps; or a `Classifier` with any pooling. It returns logits, or an
            object or dictionary with `logits`. It runs twice where its features or its head are not those of modules.
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
    for run in (hooked_pass, traced_pass):
        record = run(model, images)
        if isinstance(record.output, Tensor) and record.output.is_floating_point():
            output = record.output
            require_finite(output if output.ndim > 1 else output.reshape(-1, 1))  # one logit may come as (B,)
        call = _head_call(record, weight)
        if call is None:
            if (parts := _averaged_class_maps(record, weight)) is not None:
                return _checked(*parts)
            continue
        for features in _feature_maps(record, (images.shape[2], images.shape[3])):
            if (found := _parts(features, call, record.norms)) is not None:
                return _checked(features, found, call.result)
    _refuse(model, record, call, head)


def _checked(features: Tensor, parts: _Parts, result: Tensor) -> LinearHead:
    if features.shape[2] * features.shape[3] == 1:
        raise ValueError("the network pools a single cell: nothing to localize in; give it larger images")
    require_finite(features)
    scale, weight, constant = parts
    constant = weight.new_zeros(len(weight)) if constant is None else constant
    return LinearHead(features.detach(), weight.detach(), constant.detach(), scale, result.flatten(1).detach())


def _feature_maps(record: Record, size: tuple[int, int]) -> Iterator[Tensor]:
    """Candidates `(B, D, h, w)` for the pooled features: 4D maps, the last first, then tokens on their grids."""
    for features in reversed([each for each in record.maps if each.ndim == 4]):
        yield features
        yield features.permute(0, 3, 1, 2)  # channels last
    for tokens in reversed([each for each in record.maps if each.ndim == 3]):
        for cells, exact in ((tokens.transpose(1, 2), True), (tokens, False)):  # (B, D, N)
            for h, w in _token_grids(record, cells.shape[2], size, exact):
                yield cells[:, :, -h * w :].unflatten(2, (h, w))


def _token_grids(record: Record, count: int, size: tuple[int, int], exact: bool) -> list[tuple[int, int]]:
    """Grids on which the last of `count` tokens may lie, in rows: those of maps on the way, or of the image's shape."""
    height, width = size
    found = [(h, w) for h, w in record.grids if 0 <= count - h * w <= _OTHER_TOKENS and min(h, w) > 0]
    found = [(h, w) for h, w in found if 0.5 < h * width / (w * height) < 2]
    found.sort(key=lambda grid: (grid[0] * grid[1], -abs(grid[0] * width - grid[1] * height)), reverse=True)
    for cells in range(count, max(0, count - _OTHER_TOKENS - 1), -1) if exact else ():
        h = isqrt(cells * height // width)
        if h and h * (cells // h) == cells and h * width == cells // h * height and (h, cells // h) not in found:
            found.append((h, cells // h))
    return found


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


def _head_call(record: Record, weight: Tensor | None) -> Call | None:
    """The last call with the given weight, or without one, that whose result the model returned."""
    if weight is not None:
        calls = [call for call in record.calls if call.weight is weight]
    else:
        calls = [call for call in record.calls if call.result is record.output]
        calls = calls or [call for call in record.calls if _same(record.output, call.result)]
    return calls[-1] if calls else None


def _averaged_class_maps(record: Record, weight: Tensor | None) -> tuple[Tensor, _Parts, Tensor] | None:
    """Features, parts and outputs of a network that applies its head at every cell and returns the mean."""
    dense, output = record.dense, record.output
    if dense is None or not isinstance(output, Tensor) or (weight is not None and dense.weight is not weight):
        return None
    given, maps = (
        (each if dense.weight.ndim == 4 or each.ndim != 4 else each.permute(0, 3, 1, 2))
        for each in (dense.given, dense.result)
    )
    if maps.ndim != 4 or output.numel() != maps.shape[0] * maps.shape[1]:
        return None
    wide, output = torch.promote_types(output.dtype, torch.float32), output.reshape(maps.shape[:2])
    weight, bias = dense.weight.flatten(1), dense.bias
    mean = given.to(wide).mean(dim=(2, 3)) @ weight.to(wide).T  # maps may have been rectified in place
    if _near(output, mean if bias is None else mean + bias.to(wide)):
        return given, (None, weight, bias), output
    maps = maps.relu()
    if _near(output, maps.to(wide).mean(dim=(2, 3))):
        return maps, (None, torch.eye(maps.shape[1]).to(maps), None), output
    return None


def _refuse(model: nn.Module, record: Record, call: Call | None, head: str | None) -> NoReturn:
    """Say what a traced pass showed in place of a readable head, and what can be read."""
    found, remedy = _finding(model, record, call, head)
    raise ValueError(f"{found}; {remedy or FORMS}")


def _finding(model: nn.Module, record: Record, call: Call | None, head: str | None) -> tuple[str, str]:
    """What was found, and a remedy where it is a simple one."""
    kind, pooled = type(model).__name__, record.pooled
    shape = " x ".join(map(str, record.shape))
    if call is None and head is not None:
        return f"the head {head!r} did not read one vector per image after the last pooling in this pass", ""
    if call is None:
        direct = [call for call in record.calls if pooled is not None and _same(call.given, pooled)]
        if direct and record.averaged:
            names = ", ".join(_name(model, call.weight) for call in direct)
            layers = "linear layers read" if len(direct) > 1 else "a linear layer reads"
            output = type(record.output).__name__
            verb = "changes what they give" if isinstance(record.output, Tensor) else f"returns a {output}"
            return f"{layers} the pooled features ({names}), and the model {verb}", "name one with head="
        later = ", ".join(dict.fromkeys(record.functions)) or "nothing"
        why = f"after the pooling comes {later}" if record.averaged else "nothing is averaged over all cells"
        return f"no linear layer reads pooled features and gives the output of {kind}: {why}", ""
    name = _name(model, call.weight)
    if record.averaged:
        between = ", ".join(call.between) or "another value"
        return f"the head {name} is not linear in the pooled features; between the two: {between}", ""
    if record.pooling in ("flatten", "view", "reshape"):
        return (
            f"{kind} flattens {shape} features in front of its dense layers and does not pool them: every cell has "
            "weights of its own, so there is no class activation map",
            "replace its end by global average pooling and one linear layer, and train that",
        )
    why = f"nothing is averaged over all cells of a feature map in front of the head {name}"
    if record.pooling in ("__getitem__", "select"):
        return f"{why}: it reads one of {shape} tokens (a class token)", ""
    return f"{why}: it reads what {record.pooling.strip('_')} makes of {shape} features" if shape else why, ""


def _parts(features: Tensor, call: Call, norms: list[Norm]) -> _Parts | None:
    """Scale, weight and constant, if the head was given the mean of the features or the normalised mean."""
    given, weight, bias = call.given.flatten(1), call.weight.flatten(1), call.bias
    if features.shape[:2] != given.shape:
        return None
    mean = features.to(torch.promote_types(given.dtype, torch.float32)).mean(dim=(2, 3))
    if _near(given, mean):
        return None, weight, bias
    for norm in norms:
        if (parts := _normalised(mean, given, weight, bias, norm)) is not None:
            return parts
    return None


def _normalised(mean: Tensor, given: Tensor, weight: Tensor, bias: Tensor | None, norm: Norm) -> _Parts | None:
    """Scale, weight and constant, if the head was given the mean normalised so."""
    centre, variance, gain, shift, eps = norm
    size = mean.shape[1]
    if any(each is not None and each.shape != (size,) for each in norm[:4]):
        return None
    wide = weight.to(mean.dtype)
    gain = mean.new_ones(size) if gain is None else gain.to(mean.dtype)
    shift = mean.new_zeros(size) if shift is None else shift.to(mean.dtype)
    scale = None
    if variance is None or centre is None:  # layer normalisation
        scale = (mean.var(dim=1, correction=0) + eps).rsqrt()
        normal = (mean - mean.mean(dim=1, keepdim=True)) * scale[:, None] * gain + shift
        constant, wide = wide @ shift, wide * gain
        wide = wide - wide.mean(dim=1, keepdim=True)
    else:
        gain = gain * (variance.to(mean.dtype) + eps).rsqrt()
        shift = shift - centre.to(mean.dtype) * gain
        normal, constant, wide = mean * gain + shift, wide @ shift, wide * gain
    if not _near(given, normal):
        return None
    return scale, wide, constant if bias is None else bias.to(mean.dtype) + constant


def _near(values: Tensor, expected: Tensor) -> bool:
    """Whether values are those expected, up to their precision."""
    fraction = 1e-4 if values.dtype in (torch.float32, torch.float64) else 3e-2
    return bool((values - expected).abs().max() <= fraction * expected.abs().max())
