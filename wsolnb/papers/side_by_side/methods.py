"""The methods of the comparison: from one start and with one budget, every paper's method and what it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from wsolnb.localization.baselines import centred_gaussian
from wsolnb.localization.read import FeatureReader, Labels, Reader, cam_reader
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
    (`shallow` to `area_weight`) and `Beam` (`grid` to `frozen`). Learning rates: `lr` with cross-entropy, `lr_heads` of
    CSoA's networks, `lr_coarse` and `lr_refine` of ORNet's stages (Adam), `lr_grid` for beam search, `lr_cosine` with
    the cosine loss.
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
    shallow: str | None = "block2"
    generator_width: int = 8
    entropy_weight: float = 1.5
    area_weight: float = 0.2
    grid: int = 6
    hidden: tuple[int, ...] = (256,)
    adapt: int = 128
    frozen: tuple[str, ...] = ()
    lr: float = 0.1
    lr_heads: float = 0.05
    lr_coarse: float = 0.001
    lr_refine: float = 0.001
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


@dataclass(frozen=True, kw_only=True)
class CosineCAM(DCM):
    """Class activation maps and pooled scores of the network that dense class maps read: the loss without the map."""

    def reader(self, networks: Mapping[str, Trained]) -> Reader:
        """Class activation maps, with the similarities of the pooled features as scores."""
        return cam_reader(*networks[self.network][:2])


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
    ornet: dict[str, Any] = {"evaluator_lr": own.lr, "stage": own.shallow, "width": own.generator_width}
    refined = partial(ORNet, lr=own.lr_refine, coarse_lr=own.lr_coarse, alpha=own.entropy_weight, beta=own.area_weight)
    beam: dict[str, Any] = {"grid": own.grid, "hidden": tuple(own.hidden), "adapt": own.adapt}
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
        CoarseMap(key="stage1", lr=own.lr_coarse, **ornet),
        refined(key="stage2", **ornet),
        Beam(key="beam", lr=own.lr_grid, frozen=tuple(own.frozen), **beam),
        DCM(key="dcm-onehot", lr=own.lr_cosine),
        DCM(key="dcm-semantic", lr=own.lr_cosine, semantic=True),
        DCM(key="cosine+tap", lr=own.lr_cosine, pool=pool, training="onehot+tap"),
        DCM(key="dcm+pas", lr=own.lr_cosine, percentile=True),
        CosineCAM(key="cosine-cam", lr=own.lr_cosine),
        Blind(key="centre", lr=own.lr),
        Blind(key="whole", lr=own.lr, whole=True),
    )
    return {method.key: method for method in methods}


METHODS = build_methods()
"""All methods by name, with the default settings."""


def classes_of(name: str) -> str:
    """The method whose class scores a method has: the first in the order of the tables that reads the same network.

    Example:
        >>> classes_of("nwc"), classes_of("stage2"), classes_of("dcm-onehot"), classes_of("cosine-cam")
        ('cam', 'cam', 'dcm-onehot', 'cosine-cam')
    """
    method = METHODS[name]
    if isinstance(method, CosineCAM):  # scores by the pooled features, where dense class maps score by the best cell
        return name
    network = method.network if method.class_specific else method.needs[0].network
    return next(key for key, each in METHODS.items() if each.network == network)


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
    return {name: with_search(each, search, wanted).reader for name, each in fitted.items()}


def with_search(fitted: Fitted, search: BeamSearch, wanted: int | Literal["present", "all"]) -> Fitted:
    """A method with these settings if it is beam search, see `readers`; any other one as it is.

    Example:
        >>> with_search(Fitted(METHODS["beam"], {}), BeamSearch(width=2), "all").method.search.width
        2
    """
    if not isinstance(fitted.method, Beam):
        return fitted
    return replace(fitted, method=replace(fitted.method, search=search, wanted=wanted))
