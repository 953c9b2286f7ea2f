"""Where a classifier was found to pool and to be read, so that its next pass needs no watching: two hooks suffice.

    first pass: watched, function by function -> names of two layers -> every later pass: what these two give

Watching costs some microseconds for every function that a network calls; hooks on two of its layers cost nothing that
could be measured. They are set for one pass and taken away again. Only names are kept, and only as long as the model
lives: whatever hangs at those names is asked anew each time, and what it gives is checked by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import get_ident
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary, ref

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook


@dataclass(frozen=True)
class Tap:
    """Names of the layers in whose hands features and outputs are, and what kinds of layers these were.

    Args:
        features: The layer that gives the features.
        head: The linear layer.
        norm: The layer normalisation between pooling and head; None where there is none.
        kinds: Types of head and normalisation. A layer of another type at the same name may compute something else.
    """

    features: str
    head: str
    norm: str | None
    kinds: tuple[type, ...]

    def layers(self, model: nn.Module) -> list[nn.Module] | None:
        """The layers as they are now: of the features, the head, the normalisation; None where they are others."""
        try:
            found = [model.get_submodule(name) for name in (self.features, self.head, self.norm) if name is not None]
        except AttributeError:
            return None
        return found if tuple(type(layer) for layer in found[1:]) == self.kinds else None


@dataclass(frozen=True)
class Tapped:
    """What one pass gave at a tap.

    Args:
        features: `(B, D, h, w)`.
        given: What the head was given.
        result: What it gave.
        output: What the model gave.
        head: The linear layer.
        norm: The layer normalisation in front of it, if any.
    """

    features: Tensor
    given: Tensor
    result: Tensor
    output: Any
    head: Any
    norm: Any


_TAPS: WeakKeyDictionary[nn.Module, dict[str | None, Tap | None]] = WeakKeyDictionary()


class LayerOutputs:
    """Knows, after a pass inside of its `with`, which layer gave a tensor; keeps no tensor alive.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
        >>> with LayerOutputs() as outputs:
        ...     result = net[1](net[0](torch.rand(1, 3, 2, 2)))
        >>> outputs.layer_of(result)
        ReLU()
    """

    def __enter__(self) -> LayerOutputs:
        self._given: list[tuple[nn.Module, ref[Tensor]]] = []
        thread = get_ident()

        def note(layer: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor) and get_ident() == thread:
                self._given.append((layer, ref(output)))

        self._hook = register_module_forward_hook(note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._hook.remove()

    def layer_of(self, tensor: Tensor) -> nn.Module | None:
        """The last, and so the outermost, layer that gave the tensor; None if no layer did."""
        return next((layer for layer, given in reversed(self._given) if given() is tensor), None)


def remember_tap(
    model: nn.Module, asked: str | None, features: nn.Module | None, weights: Sequence[Tensor | None]
) -> None:
    """Keep where a model is read, if all of it belongs to layers with names.

    Args:
        model: The classifier.
        asked: The head's name as the caller gave it, or None.
        features: The layer that gives the features.
        weights: Of the head, and of the layer normalisation in front of it if there is one.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> remember_tap(net, None, net[0], [net[3].weight])
        >>> tapped_pass(net, torch.rand(1, 3, 2, 2), None).given.shape
        torch.Size([1, 4])
    """
    names = {layer: name for name, layer in model.named_modules()}
    owners = {id(each): layer for layer in names for each in layer.parameters(recurse=False)}
    layers = [features, *(owners.get(id(weight)) for weight in weights)]
    if all(layer in names for layer in layers):
        found, head, *norm = (names[layer] for layer in layers if layer is not None)
        kinds = tuple(type(layer) for layer in layers[1:])
        _TAPS.setdefault(model, {}).setdefault(asked, Tap(found, head, norm[0] if norm else None, kinds))


def forget_tap(model: nn.Module, asked: str | None) -> None:
    """Watch a model from now on: what its tap gave was no linear reading.

    Example:
        >>> import torch
        >>> net = nn.Linear(4, 2)
        >>> forget_tap(net, None)
        >>> tapped_pass(net, torch.rand(1, 4), None) is None
        True
    """
    _TAPS.setdefault(model, {})[asked] = None


def tapped_pass(model: nn.Module, images: Tensor, asked: str | None) -> Tapped | None:
    """Run a model once, with two hooks at the places where it was read before.

    Args:
        model: The classifier.
        images: As it takes them.
        asked: As for `remember_tap`.

    Returns:
        None where no such place is known, where other layers are there by now, or where these gave nothing (the weights
        were used without calling the layer: forgotten, as by `forget_tap`); then the model has to be watched.

    Example:
        >>> import torch
        >>> tapped_pass(nn.Linear(4, 2), torch.rand(1, 4), None) is None
        True
    """
    tap = _TAPS.get(model, {}).get(asked)
    layers = None if tap is None else tap.layers(model)
    if layers is None:
        return None
    seen: dict[nn.Module, tuple[Any, Any]] = {}
    thread = get_ident()

    def note(layer: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        if get_ident() == thread:  # another thread may run the same model
            seen[layer] = (given[0] if given else None, result)

    hooks = [layer.register_forward_hook(note) for layer in layers[:2]]
    try:
        output = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    _, features = seen.get(layers[0], (None, None))
    given, result = seen.get(layers[1], (None, None))
    if not (isinstance(features, Tensor) and isinstance(given, Tensor) and isinstance(result, Tensor)):
        forget_tap(model, asked)
        return None
    return Tapped(features, given, result, output, layers[1], layers[2] if len(layers) == 3 else None)
