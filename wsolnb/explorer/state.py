"""Which boxes a view shows: the classes that are present, and a rule's boxes for each. The browser does the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wsolnb.boxes import BoxRule
from wsolnb.explorer.payload import Reading
from wsolnb.papers.barz2022.maps import class_scores

ANY = -1
"""The label of a map that belongs to no class."""


@dataclass(frozen=True)
class View:
    """What does not change while the reader explores.

    Attributes:
        readings: Maps by method.
        rules: The box rule of every method.
        dense: Methods whose maps are similarities of dense class embeddings.
    """

    readings: Mapping[str, Reading]
    rules: Mapping[str, BoxRule]
    dense: frozenset[str]


def scores(view: View, method: str, image: int) -> Tensor | None:
    """Scores of all classes `(C,)`: of Eq. 8 of barz2022 for a dense method, else those that came with the maps.

    Example:
        >>> reading = Reading([torch.rand(2, 5, 7)], torch.tensor([[0.9, 0.2]]), agnostic=False)
        >>> scores(View({"cam": reading}, {"cam": BoxRule()}, frozenset()), "cam", 0)
        tensor([0.9000, 0.2000])
    """
    reading = view.readings[method]
    if method in view.dense and not reading.agnostic:
        return class_scores(reading.maps[image][None])[0]
    return None if reading.scores is None else reading.scores[image]


def shown_labels(
    view: View, method: str, image: int, labels: Sequence[int], presence: float, picture: Mapping[str, Any]
) -> list[int]:
    """Classes that a method shows on an image.

    Args:
        view: What is explored.
        method: Its name.
        image: Index of the image.
        labels: Chosen classes; none for all that are present.
        presence: A class scoring more is present. Where scores are unknown, the true classes are shown.
        picture: The image with its truth.

    Example:
        >>> reading = Reading([torch.rand(3, 5, 7)], torch.tensor([[0.9, 0.2, 0.6]]), agnostic=False)
        >>> view = View({"cam": reading}, {"cam": BoxRule()}, frozenset())
        >>> [shown_labels(view, "cam", 0, chosen, 0.5, {"labels": [0]}) for chosen in ([], [1])]
        [[0, 2], [1]]
    """
    if view.readings[method].agnostic:
        return [ANY]
    if labels:
        return sorted(set(labels))
    known = scores(view, method, image)
    if known is None:
        return sorted(set(picture["labels"])) or list(range(len(view.readings[method].maps[image])))
    return (known > presence).nonzero().flatten().tolist()


def found_boxes(
    view: View,
    method: str,
    image: int,
    rule: BoxRule,
    labels: Sequence[int],
    presence: float,
    picture: Mapping[str, Any],
) -> list[tuple[int, float, Tensor]]:
    """Boxes of all classes shown: label, score (NaN where unknown) and box `(4,)`.

    Example:
        >>> maps = torch.zeros(2, 3, 4)
        >>> maps[0, :, 2:] = 1.0
        >>> reading = Reading([maps], torch.tensor([[0.75, 0.25]]), agnostic=False)
        >>> view, picture = View({"cam": reading}, {"cam": BoxRule()}, frozenset()), {"labels": [0], "size": [30, 40]}
        >>> found_boxes(view, "cam", 0, BoxRule(0.5), [], 0.5, picture)
        [(0, 0.75, tensor([20.,  0., 40., 30.]))]
    """
    shown = shown_labels(view, method, image, labels, presence, picture)
    if not shown:
        return []
    maps = view.readings[method].maps[image]
    picked = maps if shown == [ANY] else maps[shown]
    boxes, _, which = rule.all_boxes(picked[None], tuple(picture["size"]))
    known = scores(view, method, image)
    every = torch.full((len(maps),), float("nan")) if known is None else known
    return [(shown[k], float(every[max(shown[k], 0)]), box) for k, box in zip(which.tolist(), boxes, strict=True)]
