"""Train a localization method on labelled photos: from a folder per class, without a box, to a model that finds boxes.

photos with a label each -> a tenth held out -> Method.fit in two cycles -> threshold by Otsu -> LocalizationModel
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from wsolnb.data.readers.folders import ClassFolders
from wsolnb.data.readers.images import SkipUnreadable, file_of
from wsolnb.data.tasks.split import shuffled
from wsolnb.data.taxonomy import Taxonomy
from wsolnb.inference.model import LocalizationModel
from wsolnb.inference.threshold import otsu_rule
from wsolnb.localization.read import read_objects
from wsolnb.models.backbones import Backbone, Convention, backbone as build_backbone
from wsolnb.papers.method import Start
from wsolnb.papers.side_by_side.methods import Settings, build_methods
from wsolnb.train import Plan

METHOD_NAMES = {
    name: {"ornet": "stage2"}.get(name, name)
    for name in ("cam", "has", "adl", "tap", "tap+nwc+pas", "csoa", "ornet", "dcm-onehot", "dcm-semantic", "beam")
}
"""The methods that `fit` trains, with their names in the comparison of all methods."""

_STEPS = 160  # of the first cycle; the second has twice as many


def fit(
    photos: str | Path | Dataset[Any],
    method: str = "cam",
    *,
    backbone: str = "mobilenet_v2",
    weights: str | None = "DEFAULT",
    convention: Convention = "torchvision",
    image_size: int = 224,
    epochs: int | None = None,
    batch_size: int = 16,
    taxonomy: Taxonomy | None = None,
    skip_broken: bool = False,
    seed: int = 0,
    **loop: Any,
) -> LocalizationModel:
    """Train a localization method on photos with one class each, without any box.

    A tenth of each class, at least two photos, is held out. Training has two cycles, the second twice as long and kept
    only if it lowers the loss on the held-out photos. It can be stopped and called again: it goes on, and what was
    trained is cached. The box threshold is Otsu's over maps of held-out photos, as nobody drew a box.

    Args:
        photos: Folder with a sub-folder of photos per class; or a data set like torchvision's: items `(image, label)`
            and names in `classes`. Images are PIL's or tensors.
        method: One of `METHOD_NAMES`; `dcm-semantic` wants a `taxonomy`.
        backbone: One of `wsolnb.models.backbones.BACKBONES`.
        weights: First weights, a name or a file, as for `wsolnb.models.backbones.backbone`; None: random.
        convention: Input that the weights expect, as there.
        image_size: Side of the squares that photos are resized to, in pixels.
        epochs: Passes of the first cycle; None: so many that it takes about 160 batches, at least 4.
        batch_size: Photos in a batch.
        taxonomy: Tree with a node for every class's name.
        skip_broken: Replace photos that do not decode, and count them; otherwise the first one ends the training.
        seed: Of the held-out photos, new layers and the order of the photos.
        loop: As for `wsolnb.train.train`, such as `device`.

    Raises:
        ValueError: For an unknown method, a class with fewer than four photos, or one that the tree lacks.

    Example:
        >>> from torchvision.datasets import FakeData
        >>> photos = FakeData(12, (3, 48, 64), num_classes=2)
        >>> photos.classes = ["cat", "dog"]
        >>> options = {"backbone": "tiny", "weights": None, "image_size": 32, "epochs": 1, "device": "cpu"}
        >>> model = fit(photos, **options)  # doctest: +ELLIPSIS
        epoch   1/1 ...
        >>> model.localize(torch.rand(1, 3, 48, 64))[0]["boxes"].shape
        torch.Size([1, 4])
    """
    if method not in METHOD_NAMES:
        raise ValueError(f"no method {method!r}: choose one of {', '.join(METHOD_NAMES)}")
    source: Any = ClassFolders(photos) if isinstance(photos, str | Path) else photos
    classes, labels = tuple(source.classes), _labels(source)
    train, held = _split(labels, classes, seed)
    size = round(256 / 224 * image_size)
    augment = v2.Compose([v2.Resize([size, size]), v2.RandomCrop(image_size), v2.RandomHorizontalFlip()])
    images: Any = _Labelled(source, labels, train, augment)
    images = SkipUnreadable(images) if skip_broken else images
    unseen = _Labelled(source, labels, held, v2.Resize([image_size, image_size]))
    fresh = weights is None
    stride = 32 if method == "beam" and backbone not in ("tiny", "tiny_gap") else None if fresh else 16
    body: dict[str, Any] = {"name": backbone, "stride": stride, "convention": convention, "freeze_norm": not fresh}
    network = build_backbone(**body, weights=weights)
    own = build_methods(_settings(network, image_size, fresh=fresh))[METHOD_NAMES[method]]
    passes = epochs or max(4, round(_STEPS * batch_size / len(train)))
    plan = Plan(passes, batch_size, weight_decay=5e-4, clip=1.0, head_rate=1.0 if fresh else 10.0, seed=seed)
    start = Start(network, images, classes, plan, taxonomy, unseen, cycles=2)
    fitted = own.fit(start, **loop)
    device = next(fitted.networks[fitted.method.network].network.parameters()).device
    found = read_objects(unseen, {method: fitted.reader}, device=device)[method]
    rule = otsu_rule(found.maps, fitted.method.rule())
    trained = {"photos": len(train), "held out": len(held), "accuracy on those": round(found.accuracy, 4)}
    chosen = {"by": "Otsu's criterion over maps of held-out photos, as nobody drew a box", "photos": len(held)}
    return LocalizationModel(fitted, classes, image_size, body, rule, taxonomy, trained, chosen)


def _settings(network: Backbone, image_size: int, *, fresh: bool) -> Settings:
    """Settings of the methods for a backbone: parts by its stages, rates for fine-tuning unless it is `fresh`."""
    stages = list(network.stages)
    inner = stages[-2]
    options: dict[str, Any] = {"inner": inner, "inner_pool": network.stride // network.strides[inner]}
    options |= {"shallow": None, "grid": max(2, image_size // network.stride)}
    options |= {"head_width": 128, "embed_size": min(96, image_size), "generator_width": 16, "area_weight": 0.02}
    if fresh:
        return Settings(**options)
    options |= dict.fromkeys(("lr", "lr_heads"), 0.003) | dict.fromkeys(("lr_coarse", "lr_refine"), 3e-4)
    options |= {
        "lr_grid": 0.002,
        "lr_cosine": 0.01,
        "has_patch": 32,
        "hidden": (),
        "adapt": 256,
        "frozen": ("backbone",),
    }
    return Settings(**options)


def _labels(source: Any) -> Tensor:
    """Labels of all photos, int64 `(n,)`, where the data set knows them without decoding; else photo by photo."""
    for name in ("labels", "targets"):
        if (known := getattr(source, name, None)) is not None:
            return torch.as_tensor(known, dtype=torch.int64)
    return torch.tensor([int(source[index][1]) for index in range(len(source))])


def _split(labels: Tensor, classes: Sequence[str], seed: int) -> tuple[list[int], list[int]]:
    """Indices to train on, and those held out: a tenth of every class, but two photos, as some losses compare pairs."""
    train: list[int] = []
    held: list[int] = []
    for label, name in enumerate(classes):
        order = shuffled((labels == label).nonzero()[:, 0].tolist(), seed)
        if len(order) < 4:
            raise ValueError(f"class {name!r} has {len(order)} photos: two have to be learned from and two held out")
        count = max(2, round(len(order) / 10))
        held += order[:count]
        train += order[count:]
    return sorted(train), sorted(held)


class _Labelled(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Some photos of a data set, transformed, with their labels and no box."""

    def __init__(self, source: Any, labels: Tensor, indices: list[int], transform: v2.Transform) -> None:
        self.source, self.indices, self.transform = source, indices, transform
        self.labels = labels[indices]

    def __len__(self) -> int:
        return len(self.indices)

    def file(self, index: int) -> Path:
        """Path of a photo."""
        return file_of(self.source, self.indices[index])

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image = v2.functional.to_image(self.source[self.indices[index]][0])
        return self.transform(image), {"labels": self.labels[index, None], "boxes": torch.zeros(0, 4)}
