"""The methods of the comparison: which network each one reads, how, and what box it cuts; all called alike.

    network -> reader: image -> maps of all classes and class scores -> box rule

A method is one line of `METHODS`. Whatever is compared about them (`wsolnb.papers.side_by_side.evaluate`) sees only the reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from wsolnb.boxes import BoxRule
from wsolnb.localization.baselines import centred_gaussian
from wsolnb.localization.read import Reader, Readout
from wsolnb.models.cam import Classifier, class_activation_maps
from wsolnb.papers.barz2022.maps import cam_readout, dcm_readout
from wsolnb.papers.bency2016.maps import BeamReader
from wsolnb.papers.bency2016.search import BeamSearch
from wsolnb.papers.kou2021.maps import merged_map
from wsolnb.papers.kou2021.network import TwoMaps
from wsolnb.papers.side_by_side.networks import NEEDS, Trained

Reading = Literal["cam", "positive", "dcm", "heads", "generator", "beam", "centre", "whole"]


@dataclass(frozen=True)
class Method:
    """One way to localize.

    Args:
        network: The training it reads, of `wsolnb.papers.side_by_side.networks.NETWORKS`.
        reading: `cam`, class activation maps; `positive`, those of the positive weights (NWC); `dcm`, dense class maps;
            `heads`, the merged maps of convolutional heads; `generator`, the map of ORNet, the same for all classes;
            `beam`, heat maps of a search; `centre` and `whole` look at nothing.
        percentile: Boxes are cut at a share of the 90th percentile (PaS) instead of the maximum.
    """

    network: str
    reading: Reading
    percentile: bool = False

    @property
    def absolute(self) -> bool:
        """Whether its maps have a scale of their own and are cut at values instead of shares."""
        return self.reading in ("heads", "generator")

    @property
    def tells_classes_apart(self) -> bool:
        """Whether it has a map for every class; without, it cannot find several classes in one image."""
        return self.reading != "generator"

    @property
    def budgets(self) -> int:
        """How many trainings it takes, each over the same images and epochs."""
        return 1 + len(NEEDS.get(self.network, ()))

    def rule(self, *, scenes: bool = False) -> BoxRule:
        """How its maps become one box per class; the threshold is chosen on held-out images.

        Maps of one object are stretched to [0, 1] when they are enlarged, as `ObjectMaps` does; maps of scenes are cut
        as they are, so that a class that is not there need not get a box.

        Example:
            >>> METHODS["pas"].rule().reference, METHODS["csoa"].rule().reference
            ('percentile', 'absolute')
        """
        if self.absolute:
            return BoxRule(0.5, reference="absolute", resize="bilinear")
        reference: Literal["percentile", "maximum"] = "percentile" if self.percentile else "maximum"
        if scenes:
            return BoxRule(0.5, reference=reference, resize="bilinear")
        return BoxRule(0.5, reference=reference, resize="bicubic", normalise="after")


METHODS: dict[str, Method] = {
    "cam": Method("gap", "cam"),
    "nwc": Method("gap", "positive"),
    "pas": Method("gap", "cam", percentile=True),
    "tap": Method("tap", "cam"),
    "tap+nwc+pas": Method("tap", "positive", percentile=True),
    "has": Method("has", "cam"),
    "adl": Method("adl", "cam"),
    "confseg": Method("confseg", "heads"),
    "coaug": Method("coaug", "heads"),
    "csoa": Method("csoa", "heads"),
    "stage1": Method("stage1", "generator"),
    "stage2": Method("stage2", "generator"),
    "beam": Method("grid", "beam"),
    "dcm-onehot": Method("onehot", "dcm"),
    "dcm-semantic": Method("semantic", "dcm"),
    "cosine+tap": Method("onehot+tap", "dcm"),
    "dcm+pas": Method("onehot", "dcm", percentile=True),
    "centre": Method("gap", "centre"),
    "whole": Method("gap", "whole"),
}
"""All methods by name."""


def chosen_methods(names: Iterable[str]) -> list[str]:
    """The methods that are asked for, in the order of the table; `all` stands for all of them.

    Raises:
        ValueError: If there is no such method (those there are, are named).

    Example:
        >>> chosen_methods(["beam", "cam"])
        ['cam', 'beam']
    """
    wanted = list(names)
    if unknown := [name for name in wanted if name not in METHODS and name != "all"]:
        raise ValueError(f"no method {unknown[0]!r} in the comparison: there are all, {', '.join(METHODS)}")
    return [name for name in METHODS if name in wanted or "all" in wanted]


def readers(
    names: Iterable[str],
    trained: Mapping[str, Trained],
    search: BeamSearch,
    wanted: int | Literal["present", "all"] = "present",
) -> dict[str, Reader]:
    """How each method reads images.

    Args:
        names: Of the methods.
        trained: Their networks.
        search: Of the beam search.
        wanted: Classes that it looks for in an image, as for `wsolnb.papers.bency2016.maps.BeamReader`. All other methods have
            the maps of all classes for nothing. Where it looks for `all`, heat maps give its class scores too.

    Example:
        >>> from wsolnb.losses import CrossEntropy
        >>> from wsolnb.models.cam import classifier
        >>> from wsolnb.train import Training
        >>> nets = {"gap": Trained(classifier("tiny", 4).eval(), CrossEntropy(), Training())}
        >>> maps, scores = readers(["nwc"], nets, BeamSearch())["nwc"](torch.rand(2, 3, 64, 96), torch.ones(2, 4))
        >>> maps.shape, scores.shape
        (torch.Size([2, 4, 8, 12]), torch.Size([2, 4]))
    """
    return {name: _reader(METHODS[name], trained, search, wanted) for name in names}


def _reader(
    method: Method, trained: Mapping[str, Trained], search: BeamSearch, wanted: int | Literal["present", "all"]
) -> Reader:
    net, objective, _ = trained[method.network]
    if method.reading == "beam":
        searching = BeamReader(net, objective, search, wanted)
        return _by_heat(searching) if wanted == "all" else searching
    if method.reading == "heads":
        return lambda images, present: _merged(net(images))
    if method.reading == "generator":
        judge = trained["gap"]
        return lambda images, present: _for_all(net.maps(images), judge.objective.scores(judge.net(images)))
    if method.reading in ("centre", "whole"):
        blind = centred_gaussian((32, 32)).float() if method.reading == "centre" else torch.ones(32, 32)
        return lambda images, present: _for_all(blind.to(images.device), objective.scores(net(images)))
    readouts: dict[str, Readout] = {
        "cam": cam_readout(net, objective),
        "positive": lambda features: (_positive(net, features), objective.scores(net.classify(features))),
    }
    readout = dcm_readout(net, objective) if method.reading == "dcm" else readouts[method.reading]
    return lambda images, present: readout(net.features(images))


def _by_heat(searching: BeamReader) -> Reader:
    """Score classes by the maxima of their heat maps (bency2016 Sec. 4.2), where all are searched."""

    def read(images: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        maps = searching(images, present)[0]
        return maps, maps.amax(dim=(2, 3))

    return read


def _for_all(maps: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """One map of an image, or of all images, for every class."""
    return maps.expand(*scores.shape, *maps.shape[-2:]), scores


def _positive(net: Classifier, features: Tensor) -> Tensor:
    """Class activation maps of the positive weights (bae2020 Eq. 5)."""
    return class_activation_maps(features, net.head.weight.clamp(min=0))


def _merged(outputs: TwoMaps) -> tuple[Tensor, Tensor]:
    """The union of both heads' regions (kou2021 Eq. 13), merged cell by cell, before the map is enlarged."""
    last, cells = outputs.last, (outputs.last.shape[2], outputs.last.shape[3])
    inner = None if outputs.inner is None else outputs.inner.flatten(0, 1)
    return merged_map(inner, last.flatten(0, 1), cells).view_as(last), outputs.scores()
