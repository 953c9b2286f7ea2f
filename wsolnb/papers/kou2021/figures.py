"""Figures of kou2021: the confidence mask step by step, two maps and their merge, what co-supervision does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import resize

from wsolnb.boxes import BoxRule
from wsolnb.localization.maps import LocalizationMaps
from wsolnb.metrics.bootstrap import Interval
from wsolnb.papers.kou2021.confseg import confidence, confidence_mask, thresholds
from wsolnb.papers.kou2021.maps import readings
from wsolnb.plots.style import HEAT, judge_box, show_picture

_COLOURS = {"base": 7, "csoa": 0, "confseg": 1, "coaug": 2, "centre": 5}  # places in the palette; others share one
_SIDES = ListedColormap([sns.color_palette("colorblind")[k] for k in (0, 7, 1)])  # background, undecided, object


def show_confidence(images: Dataset[Any], maps: Tensor, indices: Sequence[int]) -> Figure:
    """The confidence mask of maps, step by step (kou2021 Eqs. 2 to 4 and 7): a row per image.

    Args:
        images: Items `(image, target)`.
        maps: `S_L` of the true class of all images, `(N, h, w)`.
        indices: Which images.

    Example:
        >>> from wsolnb.data.critters import World
        >>> fig = show_confidence(World(size=32).singles(2), torch.rand(2, 8, 8), [1])
        >>> [ax.get_title() for ax in fig.axes[3:]]
        ['confident cells', 'cells by value']
    """
    fig, axes = plt.subplots(
        len(indices), 5, figsize=(11.5, 2.1 * len(indices)), squeeze=False, width_ratios=(1, 1, 1, 1, 1.7)
    )
    chosen = maps[list(indices)]
    masks, distances, limits = confidence_mask(chosen), confidence(chosen), thresholds(chosen)
    for row, (ax, index) in enumerate(zip(axes, indices, strict=True)):
        values, above = chosen[row], chosen[row] > chosen[row].mean()
        sides = torch.where(masks[row], torch.where(above, 2, 0), 1)
        show_picture(ax[0], images[index][0])
        pictures: list[tuple[Tensor, Any, dict[str, float]]] = [
            (values, HEAT, {}),
            (distances[row], "cividis", {"vmin": 0}),
            (sides, _SIDES, {"vmin": 0, "vmax": 2}),
        ]
        for panel, (picture, colours, ends) in zip(ax[1:4], pictures, strict=True):
            panel.imshow(picture.numpy(), cmap=colours, interpolation="nearest", **ends)
            panel.set_axis_off()
        _sorted_cells(ax[4], values, float(limits[0][row]), float(limits[1][row]))
    titles = ("image", "map $S_L$", r"$|S_L - \mu_1|$", "confident cells", "cells by value")
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title, fontsize=12)
    axes[-1, 4].set_xlabel("cell, from the highest")
    return fig


def _sorted_cells(ax: Axes, values: Tensor, low: float, high: float) -> None:
    ordered = values.flatten().sort(descending=True).values
    sides = torch.where(ordered > high, 2, torch.where(ordered < low, 0, 1))
    for side, name in ((2, "object"), (1, "undecided"), (0, "background")):
        places = (sides == side).nonzero()[:, 0]
        ax.scatter(places.numpy(), ordered[places].numpy(), s=16, color=_SIDES(side / 2), label=name)
    for limit, name in ((high, r"$\xi_1$"), (low, r"$\xi_2$")):
        ax.axhline(limit, color="0.3", linewidth=1.2, linestyle="--")
        ax.text(1.02, limit, name, transform=ax.get_yaxis_transform(), va="center", fontsize=11)
    ax.legend(frameon=False, fontsize=8.5, handletextpad=0.2)
    ax.tick_params(labelsize=9)
    sns.despine(ax=ax)


def show_merge(
    images: Dataset[Any], found: LocalizationMaps, indices: Sequence[int], rule: BoxRule, classes: Sequence[str]
) -> Figure:
    """Regions of both heads at the rule's threshold, their union and intersection with boxes: a column per image.

    The true box is white, the predicted one dashed, with their overlap (IoU); green from 0.5 on, orange below.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.papers.kou2021.maps import RULE, merged
        >>> images, truth = World(size=32).singles(2), [torch.tensor([[4.0, 4.0, 28.0, 28.0]])] * 2
        >>> truth = (torch.zeros(2, 12), torch.tensor([0, 1]), truth, (32, 32))
        >>> found = LocalizationMaps(torch.rand(2, 2, 8, 8), *truth, upsample=merged)
        >>> len(show_merge(images, found, [0, 1], RULE, images.classes).axes)  # four ways to merge, two images
        8
    """
    part = found.subset(torch.tensor(list(indices)))
    names = {"inner": "inner $S_F$", "last": "last $S_L$", "union": "union", "intersection": "intersection"}
    ways = readings(part)
    rows = [name for name in names if name in ways]
    fig, axes = plt.subplots(len(rows), len(indices), figsize=(1.75 * len(indices), 1.7 * len(rows)), squeeze=False)
    for ax, name in zip(axes, rows, strict=True):
        kept, boxes = ways[name].upsampled() > rule.threshold, ways[name].cut(rule)
        for panel, index, mask, box in zip(ax, indices, kept, boxes, strict=True):
            pixels = resize(images[index][0].as_subclass(Tensor), list(found.image_size), antialias=True).float() / 255
            show_picture(panel, pixels * (0.25 + 0.75 * mask))
            judge_box(panel, box[None], found.boxes[index])
        ax[0].text(
            -0.08, 0.5, names[name], transform=ax[0].transAxes, rotation=90, ha="right", va="center", fontweight="bold"
        )
    for panel, index in zip(axes[0], indices, strict=True):
        panel.set_title(classes[int(found.labels[index])], fontsize=10)
    return fig


def plot_embeddings(parts: Mapping[str, tuple[Tensor, Tensor]], labels: Tensor, classes: Sequence[str]) -> Figure:
    """Objects and backgrounds of images in the plane of their two main directions, a panel per network.

    The directions are those of all panels together, so that panels compare.

    Args:
        parts: Name of the network to embeddings of objects and of backgrounds, `(n, D)` each, over the same images.
        labels: Classes of the images, `(n,)`.
        classes: Names of the classes; the first six that occur get a colour and a marker.

    Example:
        >>> parts = {name: (torch.randn(6, 8), torch.randn(6, 8)) for name in ("CSoA", "CSoA + CoAug")}
        >>> fig = plot_embeddings(parts, torch.tensor([0, 0, 1, 1, 2, 2]), ["cat", "dog", "owl"])
        >>> [text.get_text() for text in fig.axes[-1].get_legend().get_texts()]
        ['backgrounds', 'cat', 'dog', 'owl']
    """
    stacked = torch.cat([torch.cat(pair) for pair in parts.values()]).float()
    middle = stacked.mean(dim=0)
    directions = torch.linalg.svd(stacked - middle, full_matrices=False).Vh[:2]
    size = (4.6 * len(parts) + 1.6, 3.7)
    fig, axes = plt.subplots(1, len(parts), figsize=size, squeeze=False, sharex=True, sharey=True)
    palette, markers = sns.color_palette("colorblind"), "oDP^vs"
    shown = labels.unique().tolist()[:6]
    for ax, (name, (objects, backgrounds)) in zip(axes[0], parts.items(), strict=True):
        fore, back = ((each.float() - middle) @ directions.T for each in (objects, backgrounds))
        ax.scatter(*back.T.numpy(), marker="x", s=22, color="0.6", linewidth=1, label="backgrounds")
        for place, label in enumerate(shown):
            rows = labels == label
            style = {"color": palette[place], "marker": markers[place], "edgecolor": "white", "linewidth": 0.5}
            ax.scatter(*fore[rows].T.numpy(), s=42, label=classes[label], **style)
        ax.set_title(name, fontsize=12)
        ax.set_xlabel("first direction")
    axes[0, 0].set_ylabel("second direction")
    axes[0, -1].legend(frameon=False, fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5))
    sns.despine(fig)
    return fig


def plot_errors(
    measured: Mapping[str, Mapping[str, Interval]], rows: Mapping[str, str], metrics: Mapping[str, str]
) -> Figure:
    """Error rates in percent with 95 % intervals: a panel per metric, a row per network; less is better.

    Example:
        >>> measured = {"csoa": {"gt_known_error": Interval(0.3, 0.25, 0.35)}}
        >>> fig = plot_errors(measured, {"csoa": "CSoA"}, {"gt_known_error": "GT-known"})
        >>> fig.axes[0].texts[0].get_text()
        '30.0'
    """
    fig, axes = plt.subplots(
        1, len(metrics), figsize=(2.9 * len(metrics) + 1.8, 0.42 * len(rows) + 1.3), squeeze=False, sharey=True
    )
    for ax, (metric, title) in zip(axes[0], metrics.items(), strict=True):
        for place, name in enumerate(rows):
            score = measured[name][metric]
            colour = f"C{_COLOURS.get(name, 4)}"
            ax.plot([100 * score.low, 100 * score.high], [place, place], color=colour, linewidth=4)
            ax.plot(100 * score.value, place, "o", color=colour, markersize=10)
            text = f"{100 * score.value:.1f}"
            ax.text(100 * score.value, place - 0.22, text, ha="center", va="bottom", fontsize=10.5)
        ax.set_title(title, fontsize=12)
        ax.set_xlabel("error (%)")
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
        ax.margins(y=0.18)
    axes[0, 0].set_yticks(range(len(rows)), list(rows.values()))
    axes[0, 0].invert_yaxis()
    sns.despine(fig, left=True)
    return fig
