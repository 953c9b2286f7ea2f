"""Heat maps of a beam search over windows of the feature grid, as a method (bency2016).

Paper: https://doi.org/10.48550/arXiv.1603.00489
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from wsolnb.localization.read import Reader
from wsolnb.losses import CrossEntropy
from wsolnb.papers.bency2016.maps import BeamReader
from wsolnb.papers.bency2016.network import grid_classifier
from wsolnb.papers.bency2016.search import BeamSearch
from wsolnb.papers.method import Method, Start, Trained, Untrained


@dataclass(frozen=True, kw_only=True)
class Beam(Method):
    """Beam search with a network that has fully connected layers on a grid.

    Args:
        grid: Cells of the grid on a side; None: the network's own.
        hidden: Widths of the fully connected layers.
        adapt: Width of the adaptation layer.
        frozen: Parts that keep their weights (Sec. 4.1 trains the last layers only), as for `GridClassifier.freeze`.
        wanted: Classes to search in an image, as for `BeamReader`.

    Example:
        >>> Beam(key="beam").search.width
        8
    """

    paper = "bency2016"
    reading = (*Method.reading, "search", "wanted")
    network = "grid"
    grid: int | None = None
    hidden: tuple[int, ...] = (512,)
    adapt: int = 2048
    frozen: tuple[str, ...] = ()
    search: BeamSearch = field(default_factory=BeamSearch)
    wanted: int | Literal["present", "all"] = "all"

    def untrained(self, start: Start, networks: Mapping[str, Trained]) -> Untrained:
        """Fully connected layers on a grid of the backbone's features; windows will be searched at the images' size."""
        shape: dict[str, Any] = {"grid": self.grid, "hidden": self.hidden, "adapt": self.adapt}
        shape["side"] = start.images[0][0].shape[-1]
        network = grid_classifier(start.backbone.name, len(start.classes), seed=start.plan.seed, **shape)
        network.backbone = copy.deepcopy(start.backbone)
        return Untrained(network.freeze(*self.frozen), CrossEntropy())

    def searching(self, wanted: int | Literal["present", "all"]) -> Beam:
        """The same search for fewer classes: each takes passes of its own."""
        return replace(self, wanted=wanted)

    def reader(self, networks: Mapping[str, Trained]) -> Reader:
        """Heat maps of the search, with the class scores of the whole image."""
        network, objective = networks[self.network][:2]
        return BeamReader(network, objective, self.search, self.wanted)
