"""Classifiers of torchvision and timm with trained weights and the preprocessing of their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import timm
import torchvision
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import nn

from wsolnb.models.checkpoint_file import SUFFIXES
from wsolnb.models.weights import load_into, weights_for

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


@dataclass(frozen=True)
class PretrainedClassifier:
    """A classifier in evaluation mode, and the preprocessing of its images."""

    net: nn.Module
    size: int  # side in pixels of its test images
    mean: Sequence[float]  # per channel, of RGB in [0, 1]
    std: Sequence[float]
    names: Sequence[str] | None  # of the classes; None where the weights come from a file
    square: bool = False  # whether it takes only images of exactly that size


def pretrained_classifier(name: str, weights: str) -> PretrainedClassifier:
    """Build a classifier and load its weights.

    Args:
        name: A classifier of torchvision, else one of timm; `timm/NAME` takes timm's where both have one, and
            `timm/NAME.TAG` the preprocessing of these weights.
        weights: A name known to torchvision or timm, `DEFAULT` for the best, or a file as for
            `wsolnb.models.checkpoint_file.read_weights` with any number of classes, for which the preprocessing of the
            tagged or default weights is assumed.

    Raises:
        ValueError: Unknown network or weights, or keys that do not fit (the first are named).
        FileNotFoundError: `weights` is a path without a file.

    Example:
        >>> pretrained_classifier("resnet81", "DEFAULT")
        Traceback (most recent call last):
        ValueError: no classifier 'resnet81' in torchvision or timm (did you mean 'resnet18'?)
    """
    local = weights.endswith(SUFFIXES) or "/" in weights
    plain = name.removeprefix("timm/")
    vision = torchvision.models.list_models(module=torchvision.models)
    if plain == name and name in vision:
        return _torchvision(name, weights, local)
    if plain.partition(".")[0] in timm.list_models():
        return _timm(plain, weights, local)
    close = get_close_matches(plain, [*vision, *timm.list_models()], 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(f"no classifier {name!r} in torchvision or timm{hint}")


def _torchvision(name: str, weights: str, local: bool) -> PretrainedClassifier:
    build = torchvision.models.get_model_builder(name)
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}  # slow, and loaded over
    net = build(weights=None, **options)
    if local and (classes := _classes(net, weights)):
        net = build(weights=None, num_classes=classes, **options)
    load_into(net, name, weights, ())
    entry = torchvision.models.get_model_weights(name)["DEFAULT" if local else weights]
    prepared = entry.transforms()
    names = None if local else entry.meta["categories"]
    return PretrainedClassifier(net.eval(), prepared.crop_size[0], prepared.mean, prepared.std, names)


def _timm(name: str, weights: str, local: bool) -> PretrainedClassifier:
    base, _, tag = name.partition(".")
    tags = [tagged.partition(".")[2] for tagged in timm.list_pretrained(base)]
    for given in filter(None, (tag, "" if local or weights == "DEFAULT" else weights)):
        if given not in tags:
            raise ValueError(f"{base} has no weights {given!r}; known: {', '.join(tags) or 'none'}, or a file")
    if not local:
        net = timm.create_model(name if weights == "DEFAULT" else f"{base}.{weights}", pretrained=True)
        return timm_classifier(net, names=_imagenet_names(net))
    net = timm.create_model(name, pretrained=False)
    if classes := _classes(net, weights):
        net = timm.create_model(name, pretrained=False, num_classes=classes)
    load_into(net, name, weights, ())
    return timm_classifier(net)


def timm_classifier(net: nn.Module, names: Sequence[str] | None = None) -> PretrainedClassifier:
    """Put the preprocessing of `net.pretrained_cfg` beside a network of `timm.create_model`, in evaluation mode.

    The network may have weights of its own, as of `timm.create_model(name, checkpoint_path=...)`.

    Example:
        >>> prepared = timm_classifier(timm.create_model("vit_tiny_patch16_224", num_classes=2))
        >>> prepared.size, prepared.mean, prepared.square
        (224, (0.5, 0.5, 0.5), True)
    """
    config: Any = net.pretrained_cfg
    size = (config.get("input_size") or (3, 224, 224))[1]
    mean, std = config.get("mean") or _MEAN, config.get("std") or _STD
    return PretrainedClassifier(net.eval(), size, mean, std, names, square=bool(config.get("fixed_input_size")))


def _imagenet_names(net: nn.Module) -> list[str] | None:
    subset = infer_imagenet_subset(net)
    if not subset:
        return None
    info = ImageNetInfo(subset)
    return [info.index_to_description(index) for index in range(info.num_classes())]


def _classes(net: nn.Module, weights: str) -> int | None:
    """Number of classes in a file of weights, where it differs from the network's."""
    expected, state = net.state_dict(), weights_for(net, weights)
    shared = [key for key in expected.keys() & state.keys() if expected[key].ndim and state[key].ndim]
    other = [key for key in shared if expected[key].shape != state[key].shape]
    counts = {len(state[key]) for key in other if expected[key].shape[1:] == state[key].shape[1:]}
    return counts.pop() if len(counts) == 1 else None
