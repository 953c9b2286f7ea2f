"""Figures of images: scenes with their truth, maps over them, dense class maps, detections side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Dataset

from wsolnb.localization.detect import Prediction
from wsolnb.plots.style import HEAT, TRUTH, Colour, class_colours, draw_boxes, show_picture


def show_singles(images: Dataset[Any], classes: Sequence[str], indices: Sequence[int], *, title: str = "") -> Figure:
    """Images of one object each, with the name of its class above, in one row.

    Example:
        >>> from wsolnb.data.critters import World
        >>> images = World(families=2, species=2, size=32).singles(4)
        >>> [ax.get_title() for ax in show_singles(images, images.classes, [0, 3]).axes] == images.classes[::3]
        True
    """
    fig, axes = plt.subplots(1, len(indices), figsize=(2.4 * len(indices), 2.9), squeeze=False)
    for ax, index in zip(axes[0], indices, strict=True):
        image, target = images[index]
        show_picture(ax, image)
        ax.set_title(classes[int(target["labels"] if isinstance(target, Mapping) else target)], fontsize=11)
    fig.suptitle(title)
    return fig


def show_scenes(scenes: Dataset[Any], classes: Sequence[str], indices: Sequence[int], *, title: str = "") -> Figure:
    """Images of a data set with their true boxes and class names, in one row.

    Example:
        >>> from wsolnb.data.critters import World
        >>> scenes = World(families=2, species=2, size=32).scenes(2, size=(48, 64))
        >>> fig = show_scenes(scenes, scenes.classes, [0, 1], title="drawn")
        >>> [len(ax.patches) for ax in fig.axes] == [len(scenes[k][1]["boxes"]) for k in range(2)]
        True
    """
    fig, axes = plt.subplots(1, len(indices), figsize=(3.1 * len(indices), 3.1), squeeze=False)
    for ax, index in zip(axes[0], indices, strict=True):
        image, target = scenes[index]
        show_picture(ax, image)
        labels = target["labels"].tolist()
        draw_boxes(ax, target["boxes"], labels, class_colours(labels), [classes[k] for k in labels])
    fig.suptitle(title)
    return fig


def show_maps(
    image: Tensor, maps: Mapping[str, Tensor], *, target: Mapping[str, Any] | None = None, title: str = ""
) -> Figure:
    """Maps `(h, w)` of one image side by side, each on its own scale, which the colour bar gives.

    Example:
        >>> fig = show_maps(torch.rand(3, 48, 64), {"cam": torch.rand(6, 8), "dcm": torch.rand(6, 8)})
        >>> [ax.get_title() for ax in fig.axes[:3]]
        ['image', 'cam', 'dcm']
    """
    fig, axes = plt.subplots(1, len(maps) + 1, figsize=(3.1 * (len(maps) + 1), 3.0), squeeze=False)
    show_picture(axes[0, 0], image)
    axes[0, 0].set_title("image")
    if target is not None:
        labels = target["labels"].tolist()
        draw_boxes(axes[0, 0], target["boxes"], labels, dict.fromkeys(labels, TRUTH))
    for ax, (name, values) in zip(axes[0, 1:], maps.items(), strict=True):
        drawn = ax.imshow(values.float().cpu().numpy(), cmap=HEAT, interpolation="nearest")
        ax.set(title=name, xticks=[], yticks=[])
        fig.colorbar(drawn, ax=ax, shrink=0.8)
    fig.suptitle(title)
    return fig


def show_detections(
    scenes: Dataset[Any],
    classes: Sequence[str],
    indices: Sequence[int],
    found: Mapping[str, Sequence[Prediction]],
) -> Figure:
    """Detections of several methods on several images, a column per method after the truth (barz2022 Fig. 5).

    Example:
        >>> from wsolnb.data.critters import World
        >>> scenes = World(families=2, species=2, size=32).scenes(2, size=(48, 64))
        >>> truth = [scenes[k][1] for k in range(2)]
        >>> found = {"perfect": [{**each, "scores": torch.ones(len(each["labels"]))} for each in truth]}
        >>> fig = show_detections(scenes, scenes.classes, [0, 1], found)
        >>> len(fig.axes), [ax.get_title() for ax in fig.axes[:2]]
        (4, ['truth', 'perfect'])
    """
    columns = ["truth", *found]
    fig, axes = plt.subplots(
        len(indices), len(columns), figsize=(3.0 * len(columns), 2.6 * len(indices)), squeeze=False
    )
    for row, index in zip(axes, indices, strict=True):
        image, target = scenes[index]
        every = [target["labels"], *(result[index]["labels"].cpu() for result in found.values())]
        colours = class_colours(torch.cat(every).tolist())
        for ax, name in zip(row, columns, strict=True):
            show_picture(ax, image)
            truth: Prediction = {"boxes": target["boxes"], "labels": target["labels"]}
            _draw(ax, truth if name == "truth" else found[name][index], classes, colours)
    for ax, name in zip(axes[0], columns, strict=True):
        ax.set_title(name)
    return fig


def _draw(
    ax: Axes, found: Prediction, classes: Sequence[str], colours: Mapping[int, Colour], *, named: bool = True
) -> None:
    labels = found["labels"].tolist()
    names = None
    if named:
        scores = found["scores"].tolist() if "scores" in found else [None] * len(labels)
        names = [classes[k] if s is None else f"{classes[k]} {s:.2f}" for k, s in zip(labels, scores, strict=True)]
    draw_boxes(ax, found["boxes"].float().cpu(), labels, colours, names)
