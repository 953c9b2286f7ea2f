"""The methods of the comparison: from one start and with one budget, every paper's method and what it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from wsolnb.localization.baselines import centred_gaussian
from wsolnb.localization.read import FeatureReader, Labels, Reader
from wsolnb.papers.bae2020.method import ADL, TAP, HaS
from wsolnb.papers.bae2020.pooling import ThresholdedAveragePooling
from wsolnb.papers.barz2022.method import DCM
from wsolnb.papers.bency2016.method import Beam
from wsolnb.papers.bency2016.search import BeamSearch
from wsolnb.papers.kou2021.method import CSoA
from wsolnb.papers.method import CAM, Fitted, Method, Trained
from wsolnb.papers.xie2021.method import CoarseMap, ORNet


@dataclass(frozen=True)
class Settings:
    """The settings of single methods at the size of the comparison's images, by the names of its parameters.

    They are explained in the docs of `TAP`, `HaS` and `ADL`, `CSoA` (`inner` to `embed_size`), `CoarseMap` and `ORNet`
    (`shallow` to `area_weight`) and `Beam` (`grid` to `adapt`). Learning rates: `lr` with cross-entropy and of both
    stages of ORNet, `lr_heads` of CSoA's networks, `lr_grid` for beam search, `lr_cosine` with the cosine loss.
    """

    tap_threshold: float = 0.1
    has_patch: int = 8
    adl_threshold: float = 0.8
    inner: str = "block2"
    inner_pool: int = 2
    head_width: int = 64
    alpha: float = 1.0
    coaug_weight: float = 0.1
    embed_size: int = 32
    shallow: str = "block2"
    generator_width: int = 8
    entropy_weight: float = 1.5
    area_weight: float = 0.2
    grid: int = 6
    hidden: tuple[int, ...] = (256,)
    adapt: int = 128
    lr: float = 0.1
    lr_heads: float = 0.05
    lr_grid: float = 0.05
    lr_cosine: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Blind(CAM):
    """A map that looks at no image (a central Gaussian or the whole image), with the class scores of CAM's network."""

    paper = "side_by_side"
    reading = (*CAM.reading, "whole")
    whole: bool = False

    def reader(self, networks: Mapping[str, Trained]) -> Reader:
        """The same map for every image and class."""
        network, objective = networks[self.network][:2]
        values = torch.ones(32, 32) if self.whole else centred_gaussian((32, 32)).float()

        def readout(features: Tensor, labels: Labels | None) -> tuple[Tensor, Tensor]:
            scores = objective.scores(network.classify(features))
            return values.to(scores.device).expand(*scores.shape, 32, 32), scores

        return FeatureReader(network.features, readout)


def build_methods(settings: Settings | None = None) -> dict[str, Method]:
    """All methods by name, in the order of the tables.

    Example:
        >>> build_methods(Settings(lr=0.01))["tap"].lr
        0.01
    """
    own = settings or Settings()
    tap = partial(TAP, lr=own.lr, threshold=own.tap_threshold)
    heads = partial(CSoA, lr=own.lr_heads, pool=own.inner_pool, width=own.head_width, alpha=own.alpha)
    heads = partial(heads, coaug_weight=own.coaug_weight, embed_size=own.embed_size)
    ornet: dict[str, Any] = {"lr": own.lr, "evaluator_lr": own.lr, "stage": own.shallow, "width": own.generator_width}
    pool = partial(ThresholdedAveragePooling, own.tap_threshold)
    methods = (
        CAM(key="cam", lr=own.lr),
        CAM(key="nwc", lr=own.lr, clamp=True),
        CAM(key="pas", lr=own.lr, percentile=True),
        tap(key="tap"),
        tap(key="tap+nwc+pas", clamp=True, percentile=True),
        HaS(key="has", lr=own.lr, patch=own.has_patch),
        ADL(key="adl", lr=own.lr, threshold=own.adl_threshold),
        heads(key="confseg", inner=own.inner, coaug_weight=0),
        heads(key="coaug"),
        heads(key="csoa", inner=own.inner),
        CoarseMap(key="stage1", **ornet),
        ORNet(key="stage2", alpha=own.entropy_weight, beta=own.area_weight, **ornet),
        Beam(key="beam", lr=own.lr_grid, grid=own.grid, hidden=own.hidden, adapt=own.adapt),
        DCM(key="dcm-onehot", lr=own.lr_cosine),
        DCM(key="dcm-semantic", lr=own.lr_cosine, semantic=True),
        DCM(key="cosine+tap", lr=own.lr_cosine, pool=pool, training="onehot+tap"),
        DCM(key="dcm+pas", lr=own.lr_cosine, percentile=True),
        Blind(key="centre", lr=own.lr),
        Blind(key="whole", lr=own.lr, whole=True),
    )
    return {method.key: method for method in methods}


METHODS = build_methods()
"""All methods by name, with the default settings."""


def chosen_methods(names: Iterable[str]) -> list[str]:
    """The names of the requested methods, in the order of the tables; `all` requests all of them.

    Raises:
        ValueError: If there is no such method; the message lists all.

    Example:
        >>> chosen_methods(["beam", "cam"])
        ['cam', 'beam']
    """
    requested = list(names)
    if unknown := [name for name in requested if name not in METHODS and name != "all"]:
        raise ValueError(f"no method {unknown[0]!r} in the comparison: there are all, {', '.join(METHODS)}")
    return [name for name in METHODS if name in requested or "all" in requested]


def readers(
    fitted: Mapping[str, Fitted], search: BeamSearch, wanted: int | Literal["present", "all"] = "present"
) -> dict[str, Reader]:
    """The reader of each method, given with its networks by name.

    Beam search has the settings `search` and searches the classes `wanted` in an image, as for
    `wsolnb.papers.bency2016.maps.BeamReader`; all other methods have the maps of all classes at no extra cost.

    Example:
        >>> from wsolnb.losses import CrossEntropy
        >>> from wsolnb.models.cam import classifier
        >>> from wsolnb.train import Training
        >>> networks = {"gap": Trained(classifier("tiny", 4).eval(), CrossEntropy(), Training())}
        >>> nwc = readers({"nwc": Fitted(METHODS["nwc"], networks)}, BeamSearch())["nwc"]
        >>> [part.shape for part in nwc(torch.rand(2, 3, 64, 96), None)]
        [torch.Size([2, 4, 8, 12]), torch.Size([2, 4])]
    """
    return {name: _with_search(each, search, wanted).reader for name, each in fitted.items()}


def _with_search(fitted: Fitted, search: BeamSearch, wanted: int | Literal["present", "all"]) -> Fitted:
    if not isinstance(fitted.method, Beam):
        return fitted
    return replace(fitted, method=replace(fitted.method, search=search, wanted=wanted))
