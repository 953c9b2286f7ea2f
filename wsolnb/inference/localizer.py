"""A trained classifier or a model of ours, as `localize_photos` takes both: an input, a pass, a box rule, names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from wsolnb._utils.cache import fingerprint
from wsolnb.boxes import BoxRule
from wsolnb.inference.linear_head import read_linear
from wsolnb.inference.localize import box_rule, localize
from wsolnb.inference.model import LocalizationModel
from wsolnb.models.pretrained import PretrainedClassifier

_LONGEST = 16  # of a photo's longer side, in shorter ones: features of a longer one could fill the memory
_SHOWN = 10  # names of classes in an error message


@dataclass(frozen=True)
class Localizer:
    """How photos become boxes.

    Args:
        run: From a list of photos as the network takes them, `(3, H, W)`, a choice of classes as for
            `wsolnb.inference.localize.localize`, and a rule, to that function's dictionaries.
        rule: How maps become boxes, as long as no other rule is chosen.
        names: Of the classes.
        size: Side in pixels to which a photo's shorter side is resized, or with `square` both sides.
        mean: Per channel, of RGB in [0, 1]; subtracted.
        std: Per channel; divided by.
        square: Whether photos become squares.
        made_by: Network and method, for those who read exports.
        key: Stands for the weights and how they are read.
    """

    run: Callable[[list[Tensor], Any, BoxRule], list[dict[str, Tensor]]]
    rule: BoxRule
    names: Sequence[str]
    size: int
    mean: Sequence[float]
    std: Sequence[float]
    square: bool
    made_by: str
    key: str

    def prepare(self, photo: Image.Image) -> Tensor:
        """A photo as the network takes it, float32 `(3, H, W)`: resized and normalised.

        Raises:
            ValueError: If it would be more than 16 times as long as wide.
        """
        short, long = sorted(photo.size)
        if not self.square and long > _LONGEST * short:
            raise ValueError(
                f"{photo.width} x {photo.height} pixels: with {self.size} on its shorter side it would have "
                f"{self.size * long // short} on the longer one, at most {_LONGEST * self.size} are read: cut it"
            )
        pixels = transforms.to_dtype(transforms.pil_to_tensor(photo), torch.float32, scale=True)
        size = [self.size, self.size] if self.square else [self.size]
        resized = transforms.resize(pixels, size, antialias=True)
        normalised: Tensor = transforms.normalize(resized, list(self.mean), list(self.std))
        return normalised

    @property
    def preparation(self) -> list[Any]:
        """What is done to a photo, as JSON."""
        return [self.size, list(self.mean), list(self.std), self.square]


def classifier_localizer(
    classifier: PretrainedClassifier,
    method: str = "cam",
    rule: BoxRule | str | None = None,
    *,
    head: str | None = None,
    names: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
) -> Localizer:
    """A trained classifier, read as it is.

    Args:
        classifier: See `wsolnb.models.pretrained.pretrained_classifier`; its network is moved to the device.
        method: As for `wsolnb.inference.localize.localize`.
        rule: As there.
        head: As there.
        names: Class names; by default those of the weights, or their indices.
        device: Where it runs.

    Raises:
        ValueError: Too few or too many names; and what `localize` raises.

    Example:
        >>> import torchvision
        >>> net = torchvision.models.resnet18(num_classes=2).eval()
        >>> half = (0.5, 0.5, 0.5)
        >>> localizer = classifier_localizer(PretrainedClassifier(net, 64, half, half, ["cat", "dog"]))
        >>> localizer.run([torch.rand(3, 64, 96)], 1, localizer.rule)[0]["maps"].shape
        torch.Size([1, 2, 3])
    """
    rule, net = box_rule(method, rule), classifier.net.to(device)
    with torch.no_grad():
        blank = torch.zeros(1, 3, classifier.size, classifier.size, device=device)
        count = len(read_linear(net, blank, head).weight)
    names = classifier.names if names is None else names
    names = [str(k) for k in range(count)] if names is None else list(names)
    if len(names) != count:
        raise ValueError(f"{len(names)} names for a network with {count} classes")

    def run(images: list[Tensor], classes: Any, rule: BoxRule) -> list[dict[str, Tensor]]:
        return localize(net, images, method, classes, rule, head=head)

    inputs = (classifier.size, classifier.mean, classifier.std, classifier.square)
    key = fingerprint(net.state_dict(), method, head)
    return Localizer(run, rule, names, *inputs, f"{type(net).__name__}, {method}", key)


def model_localizer(model: LocalizationModel, rule: BoxRule | str | None = None) -> Localizer:
    """A model that `wsolnb.fit` trained, with any of its methods; by default with the rule that it holds.

    Example:
        >>> from torchvision.datasets import FakeData
        >>> from wsolnb.inference.fit import fit
        >>> photos = FakeData(12, (3, 48, 64), num_classes=2)
        >>> photos.classes = ["cat", "dog"]
        >>> options = {"backbone": "tiny", "weights": None, "image_size": 32, "epochs": 1, "device": "cpu"}
        >>> localizer = model_localizer(fit(photos, **options))  # doctest: +ELLIPSIS
        cam: 8 photos of 2 classes to learn from, 4 held out; 1 + 2 epochs
        epoch   1/1 ...
        >>> localizer.names, localizer.size, localizer.square, localizer.made_by
        (['cat', 'dog'], 32, True, 'tiny, cam')
    """
    rule = model.rule if rule is None else BoxRule.preset(rule) if isinstance(rule, str) else rule
    method, networks = model.fitted.method, model.fitted.networks
    states = [networks[each.network].network.state_dict() for each in (*method.needs, method)]

    def run(images: list[Tensor], classes: Any, rule: BoxRule) -> list[dict[str, Tensor]]:
        return model.fitted.localize(torch.stack(images), classes, rule) if images else []

    plain = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # networks of ours know what their weights expect
    made_by = f"{model.body['name']}, {method.key}"
    key = fingerprint(states, method)
    return Localizer(run, rule, list(model.classes), model.image_size, *plain, True, made_by, key)


def class_named(name: str, names: Sequence[str]) -> int:
    """The index of a class by its name, or by its name in other capitals.

    Raises:
        ValueError: If no class has it, or several.

    Example:
        >>> class_named("Dog", ["cat", "dog"])
        1
    """
    matches = [index for index, known in enumerate(names) if known == name]
    matches = matches or [index for index, known in enumerate(names) if known.casefold() == name.casefold()]
    if len(matches) > 1:
        raise ValueError(f"classes {', '.join(map(str, matches))} are all named {name!r}")
    if not matches:
        shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        raise ValueError(f"no class is named {name!r}; there are {shown}")
    return matches[0]
