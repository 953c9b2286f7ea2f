"""Train a localization method on labelled photos: from a folder per class, without a box, to a model that finds boxes.

photos with a label each -> a tenth held out -> Method.fit in two cycles -> threshold by Otsu -> LocalizationModel
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from wsolnb._utils.progress import Outlook
from wsolnb.data.taxonomy import Taxonomy
from wsolnb.data.wordnet import wordnet_taxonomy
from wsolnb.inference.model import LocalizationModel
from wsolnb.inference.threshold import otsu_rule
from wsolnb.inference.training_photos import training_photos
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

_HELD_BATCH = 8  # so few that even a slow reader shows how long it will take
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

    A tenth of each class, at least two photos, is held out, or all photos of the folder's `val`. Training has two
    cycles, the second twice as long and kept only if it lowers the loss on the held-out photos. It can be stopped and
    called again: it goes on, and what was trained is cached. The box threshold is Otsu's over maps of held-out photos,
    as nobody drew a box. What is trained and, while it runs, the time left are printed.

    Args:
        photos: Folder with a sub-folder of photos per class, or with `train` and `val` made like that; or a data set
            like torchvision's: items `(image, label)` and names in `classes`. Images are PIL's or tensors.
        method: One of `METHOD_NAMES`.
        backbone: One of `wsolnb.models.backbones.BACKBONES`.
        weights: First weights, a name or a file, as for `wsolnb.models.backbones.backbone`; None: random.
        convention: Input that the weights expect, as there.
        image_size: Side of the squares that photos are resized to, in pixels.
        epochs: Passes of the first cycle; None: so many that it takes about 160 batches, at least 4.
        batch_size: Photos in a batch.
        taxonomy: Tree with a node for every class's name, for `dcm-semantic`; None: WordNet's, see
            `wsolnb.data.wordnet.wordnet_taxonomy`. Names that it does not have are printed.
        skip_broken: Replace photos that do not decode, and name them in `trained`; otherwise the first one ends the
            training.
        seed: Of the held-out photos, new layers and the order of the photos.
        loop: As for `wsolnb.train.train`, such as `device`.

    Raises:
        ValueError: For an unknown method, a class with too few photos, or one that the tree lacks.
        UnreadableImage: For a photo that does not decode.
        ModuleNotFoundError: If WordNet is wanted, but the library `wn` is not there.

    Example:
        >>> from torchvision.datasets import FakeData
        >>> photos = FakeData(12, (3, 48, 64), num_classes=2)
        >>> photos.classes = ["cat", "dog"]
        >>> options = {"backbone": "tiny", "weights": None, "image_size": 32, "epochs": 1, "device": "cpu"}
        >>> model = fit(photos, **options)  # doctest: +ELLIPSIS
        cam: 8 photos of 2 classes to learn from, 4 held out; 1 + 2 epochs
        epoch   1/1 ...
        >>> model.localize(torch.rand(1, 3, 48, 64))[0]["boxes"].shape
        torch.Size([1, 4])
    """
    if method not in METHOD_NAMES:
        raise ValueError(f"no method {method!r}: choose one of {', '.join(METHOD_NAMES)}")
    with Outlook(0) as outlook:
        found = training_photos(photos, image_size, seed=seed, skip_broken=skip_broken)
        if method == "dcm-semantic" and taxonomy is None:
            taxonomy, unknown = wordnet_taxonomy(found.classes)
            if unknown:
                print(
                    f"not in WordNet, and so directly below the root of the class tree: {', '.join(unknown)}",
                    flush=True,
                )
        fresh = weights is None
        stride = 32 if method == "beam" and backbone not in ("tiny", "tiny_gap") else None if fresh else 16
        body: dict[str, Any] = {"name": backbone, "stride": stride, "convention": convention, "freeze_norm": not fresh}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # so that a training that was stopped is known again
            network = build_backbone(**body, weights=weights)
        own = build_methods(_settings(network, image_size, fresh=fresh))[METHOD_NAMES[method]]
        passes = epochs or max(4, round(_STEPS * batch_size / len(found.train)))
        plan = Plan(passes, batch_size, weight_decay=5e-4, clip=1.0, head_rate=1.0 if fresh else 10.0, seed=seed)
        networks = 1 + len(own.needs)
        amount = f"{len(found.train)} photos of {len(found.classes)} classes to learn from, {len(found.held)} held out"
        each = f" for each of {networks} networks" * (networks > 1)
        print(f"{method}: {amount}; {passes} + {2 * passes} epochs{each}", flush=True)
        if found.imbalance and method != "csoa":  # its batches are balanced
            print(found.imbalance, flush=True)
        outlook.units = 3 * passes * networks
        start = Start(network, found.train, found.classes, plan, taxonomy, found.held, cycles=2)
        fitted = own.fit(start, **loop)
        result = fitted.networks[own.network]
        device = next(result.network.parameters()).device
        readers = {method: fitted.method.searching("present").reader(fitted.networks)}
        maps = read_objects(found.held, readers, device=device, batch_size=_HELD_BATCH)[method]
    trained = {
        "data": found.name,
        "photos": len(found.train),
        "photos of the rarest class": min(found.counts.values()),
        "photos of the commonest class": max(found.counts.values()),
        "held out": len(found.held),
        "accuracy on those": round(maps.accuracy, 4),
        "first weights": "random" if weights is None else Path(weights).name,
        "epochs of the cycles": [passes, 2 * passes],
        "loss on held-out photos after each": [round(loss, 4) for loss in result.held_losses],
        "batch size": batch_size,
        "seed": seed,
    }
    if skip_broken:
        trained["skipped"] = [f"{path.parent.name}/{path.name}" for path in found.skipped]
    chosen = {"by": "Otsu's criterion over maps of held-out photos, as nobody drew a box", "photos": len(found.held)}
    rule = otsu_rule(maps.maps, own.rule())
    return LocalizationModel(fitted, found.classes, image_size, body, rule, taxonomy, trained, chosen)


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
