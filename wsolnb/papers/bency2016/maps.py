"""Readers of bency2016: heat maps of a beam search, the sliding window's score map, scores alone, positive CAM.

Paper: https://doi.org/10.48550/arXiv.1603.00489
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolnb.localization.read import FeatureReader, Labels, Reader, present_classes
from wsolnb.losses import Objective
from wsolnb.models.cam import Classifier, class_activation_maps
from wsolnb.papers.bency2016.network import GridClassifier, MaxPooled, resized
from wsolnb.papers.bency2016.search import BeamSearch


@dataclass
class BeamReader:
    """Heat maps of a beam search, and the scores of the whole image.

    Args:
        model: In evaluation mode, on its device.
        objective: Its `scores` rank the windows.
        wanted: Classes to search in an image: the number of best-scored ones, `all`, or those `present`, which suffice
            for points ranked by class scores, as an absent class is wrong wherever it points.
        spent: Totals: `images`, `windows` (scored), `crops` (through the backbone) and `seconds`.
    """

    model: GridClassifier
    objective: Objective
    search: BeamSearch
    wanted: int | Literal["present", "all"] = "all"
    cells: int = 32
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("images", "windows", "crops", "seconds"), 0))

    def __call__(self, images: Tensor, labels: Labels | None) -> tuple[Tensor, Tensor]:
        """Search a batch."""
        which = classes_to_search(self.wanted, labels, self.model)
        started = time.perf_counter()
        tree = self.search(self.model, images, self.objective.scores, which)
        heat = tree.heat(self.cells)
        self.spent["seconds"] += time.perf_counter() - started
        self.spent["images"] += len(images)
        self.spent["windows"] += sum(tree.windows)
        self.spent["crops"] += sum(tree.crops)
        return heat, tree.scores

    def per_image(self) -> dict[str, float]:
        """Cost per image: windows, crops and milliseconds."""
        count = max(1, self.spent["images"])
        cost = {name: self.spent[name] / count for name in ("windows", "crops")}
        return cost | {"milliseconds": 1000 * self.spent["seconds"] / count}


def classes_to_search(
    wanted: int | Literal["present", "all"], labels: Labels | None, model: GridClassifier
) -> Tensor | int | None:
    """`wanted` in the form that `BeamSearch` takes: a number, bool `(B, K)` for the classes present, or None for all.

    Raises:
        ValueError: If only present classes are to be searched, but there are no labels.

    Example:
        >>> from wsolnb.papers.bency2016.network import grid_classifier
        >>> net = grid_classifier("tiny", 3, grid=4, hidden=(8,))
        >>> classes_to_search("present", [torch.tensor([2, 2])], net)
        tensor([[False, False,  True]])
    """
    if wanted != "present":
        return None if wanted == "all" else wanted
    if labels is None:
        raise ValueError("the classes that are present are to be searched, but no labels are given: search 'all'")
    return present_classes(labels, cast("nn.Linear", model.head[-1]).out_features)


def positive_cam_reader(model: Classifier, objective: Objective) -> FeatureReader:
    """Class activation maps clamped at 0, as heat maps have no negative values either.

    Example:
        >>> from wsolnb.losses import MultiLabelCrossEntropy
        >>> from wsolnb.models.cam import classifier
        >>> read = positive_cam_reader(classifier("tiny", 4).eval(), MultiLabelCrossEntropy())
        >>> bool((read(torch.rand(2, 3, 96, 96), None)[0] >= 0).all())
        True
    """

    def readout(features: Tensor, labels: Labels | None) -> tuple[Tensor, Tensor]:
        maps = class_activation_maps(features, model.head.weight, model.head.bias)
        return maps.clamp(min=0), objective.scores(model.classify(features))

    return FeatureReader(model.features, readout)


def score_reader(model: GridClassifier, objective: Objective) -> Reader:
    """The class scores of the whole image only; maps of a single cell.

    Example:
        >>> from wsolnb.losses import MultiLabelCrossEntropy
        >>> from wsolnb.papers.bency2016.network import grid_classifier
        >>> read = score_reader(grid_classifier("tiny", 4, grid=4, hidden=(8,)).eval(), MultiLabelCrossEntropy())
        >>> maps, scores = read(torch.rand(2, 3, 48, 48), None)
        >>> maps.shape, scores.shape
        (torch.Size([2, 4, 1, 1]), torch.Size([2, 4]))
    """

    def read(images: Tensor, labels: Labels | None) -> tuple[Tensor, Tensor]:
        scores = objective.scores(model(resized(images, model.side)))
        return torch.zeros_like(scores)[:, :, None, None], scores

    return read


def peak_reader(
    model: GridClassifier, objective: Objective, positions: Sequence[int], *, pooled: bool = False
) -> Reader:
    """The score map of a sliding window, after oquab2015; of several sizes of window the largest score.

    For every size the image is enlarged until `positions` x `positions` windows of the network's input fit into its
    grid, one cell apart. The map is zero where no window has its centre. Class scores are those of the whole image, or
    with `pooled` the largest of the map, for a network that was trained so (`MaxPooled`).

    Example:
        >>> from wsolnb.losses import MultiLabelCrossEntropy
        >>> from wsolnb.papers.bency2016.network import grid_classifier
        >>> net = grid_classifier("tiny", 4, grid=4, hidden=(8,)).eval()
        >>> maps, _ = peak_reader(net, MultiLabelCrossEntropy(), [2, 3])(torch.rand(2, 3, 48, 48), None)
        >>> maps.shape  # 3 positions and 3 cells around them, in half cells
        torch.Size([2, 4, 12, 12])
    """
    sliding, side = MaxPooled(model, positions), 2 * (model.grid - 1 + max(positions))

    def read(images: Tensor, labels: Labels | None) -> tuple[Tensor, Tensor]:
        found = []
        for count in sliding.positions:
            outputs = sliding.score_map(images, count).movedim(1, 3)
            scores = objective.scores(outputs.flatten(0, 2)).view_as(outputs).movedim(3, 1)
            # half cells: the centre of an even window; no window has its centre in the margin
            halves = F.pad(scores.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3), [model.grid - 1] * 4)
            found.append(F.interpolate(halves, (side, side)))
        maps = torch.stack(found).amax(dim=0)
        return maps, maps.amax(dim=(2, 3)) if pooled else objective.scores(model(resized(images, model.side)))

    return read
