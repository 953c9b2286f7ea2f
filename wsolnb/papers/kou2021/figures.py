"""Figures of the two heads and their training: the confidence mask, merged maps, embeddings, error rates.

Paper: https://arxiv.org/abs/1911.07160
"""

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
from wsolnb.plots.curves import draw_intervals
from wsolnb.plots.style import BESIDE, HEAT, draw_prediction, name_intervals, show_picture

_COLOURS = {"base": 7, "csoa": 0, "confseg": 1, "coaug": 2, "centre": 5}  # indices in the palette
_SIDES = ListedColormap([sns.color_palette("colorblind")[k] for k in (0, 7, 1)])  # background, undecided, object


def show_confidence(images: Dataset[Any], maps: Tensor, indices: Sequence[int]) -> Figure:
    """From maps to confidence masks, step by step (kou2021 Eqs. 2 to 4 and 7): a row per image.

    `maps` are `S_L` of the true class for all images, `(N, h, w)`, of which `indices` are shown.

    Example:
        >>> from wsolnb.data.critters import World
        >>> fig = show_confidence(World(size=32).singles(2), torch.rand(2, 8, 8), [1])
        >>> [ax.get_title() for ax in fig.axes[3:]]
        ['confident cells', 'cells by value']
    """
    size, widths = (11.5, 2.1 * len(indices)), (1, 1, 1, 1, 1.7)
    fig, axes = plt.subplots(len(indices), 5, figsize=size, squeeze=False, width_ratios=widths)
    chosen = maps[list(indices)]
    masks, distances, limits = confidence_mask(chosen), confidence(chosen), thresholds(chosen)
    for row, (ax, index) in enumerate(zip(axes, indices, strict=True)):
        values, above = chosen[row], chosen[row] > chosen[row].mean()
        sides = torch.where(masks[row], torch.where(above, 2, 0), 1)
        show_picture(ax[0], images[index][0])
        ax[1].imshow(values.numpy(), cmap=HEAT, interpolation="nearest")
        ax[2].imshow(distances[row].numpy(), cmap="cividis", interpolation="nearest", vmin=0)
        ax[3].imshow(sides.numpy(), cmap=_SIDES, interpolation="nearest", vmin=0, vmax=2)
        for panel in ax[1:4]:
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
        ranks = (sides == side).nonzero()[:, 0]
        ax.scatter(ranks.numpy(), ordered[ranks].numpy(), s=16, color=_SIDES(side / 2), label=name)
    for limit, name in ((high, r"$\xi_1$"), (low, r"$\xi_2$")):
        ax.axhline(limit, color="0.3", linewidth=1.2, linestyle="--")
        ax.text(1.02, limit, name, transform=ax.get_yaxis_transform(), va="center", fontsize=11)
    ax.legend(frameon=False, fontsize=8.5, handletextpad=0.2)
    ax.tick_params(labelsize=9)
    sns.despine(ax=ax)


def show_merge(
    images: Dataset[Any], maps: LocalizationMaps, indices: Sequence[int], rule: BoxRule, classes: Sequence[str]
) -> Figure:
    """What exceeds the rule's threshold in the maps of both heads, their union and intersection: a column per image.

    The true box is white, the predicted one dashed; the number is their IoU, green from 0.5 on, orange below.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.papers.kou2021.maps import RULE, merged
        >>> images, truth = World(size=32).singles(2), [torch.tensor([[4.0, 4.0, 28.0, 28.0]])] * 2
        >>> truth = (torch.zeros(2, 12), torch.tensor([0, 1]), truth, (32, 32))
        >>> maps = LocalizationMaps(torch.rand(2, 2, 8, 8), *truth, upsample=merged)
        >>> len(show_merge(images, maps, [0, 1], RULE, images.classes).axes)  # four variants, two images
        8
    """
    variants = readings(maps.subset(torch.tensor(list(indices))))
    names = {"inner": "inner $S_F$", "last": "last $S_L$", "union": "union", "intersection": "intersection"}
    rows = [name for name in names if name in variants]
    fig, axes = plt.subplots(len(rows), len(indices), figsize=(1.75 * len(indices), 1.7 * len(rows)), squeeze=False)
    for ax, name in zip(axes, rows, strict=True):
        masks, boxes = variants[name].upsampled() > rule.threshold, variants[name].cut(rule)
        for panel, index, mask, box in zip(ax, indices, masks, boxes, strict=True):
            image = resize(images[index][0].as_subclass(Tensor), list(maps.image_size), antialias=True)
            show_picture(panel, image, mask=mask)
            draw_prediction(panel, box[None], maps.boxes[index])
        style = {"rotation": 90, "ha": "right", "va": "center", "fontweight": "bold"}
        ax[0].text(-0.08, 0.5, names[name], transform=ax[0].transAxes, **style)
    for panel, index in zip(axes[0], indices, strict=True):
        panel.set_title(classes[int(maps.labels[index])], fontsize=10)
    return fig


def plot_embeddings(parts: Mapping[str, tuple[Tensor, Tensor]], labels: Tensor, classes: Sequence[str]) -> Figure:
    """Embeddings of objects and backgrounds on the first two principal axes of all networks: a panel per network.

    `parts` holds, by network, both embeddings `(n, D)` of the same images, with labels `(n,)`. Objects of the first six
    classes that occur are drawn.

    Example:
        >>> parts = {name: (torch.randn(6, 8), torch.randn(6, 8)) for name in ("CSoA", "CSoA + CoAug")}
        >>> fig = plot_embeddings(parts, torch.tensor([0, 0, 1, 1, 2, 2]), ["cat", "dog", "owl"])
        >>> [text.get_text() for text in fig.axes[-1].get_legend().get_texts()]
        ['backgrounds', 'cat', 'dog', 'owl']
    """
    stacked = torch.cat([torch.cat(pair) for pair in parts.values()]).float()
    mean = stacked.mean(dim=0)
    directions = torch.linalg.svd(stacked - mean, full_matrices=False).Vh[:2]
    size = (4.6 * len(parts) + 1.6, 3.7)
    fig, axes = plt.subplots(1, len(parts), figsize=size, squeeze=False, sharex=True, sharey=True)
    palette, markers = sns.color_palette("colorblind"), "oDP^vs"
    shown = labels.unique().tolist()[:6]
    for ax, (name, (objects, backgrounds)) in zip(axes[0], parts.items(), strict=True):
        fore, back = ((vectors.float() - mean) @ directions.T for vectors in (objects, backgrounds))
        ax.scatter(*back.T.numpy(), marker="x", s=22, color="0.6", linewidth=1, label="backgrounds")
        for label, colour, marker in zip(shown, palette, markers, strict=False):
            style = {"color": colour, "marker": marker, "edgecolor": "white", "linewidth": 0.5}
            ax.scatter(*fore[labels == label].T.numpy(), s=42, label=classes[label], **style)
        ax.set_title(name, fontsize=12)
        ax.set_xlabel("first direction")
    axes[0, 0].set_ylabel("second direction")
    axes[0, -1].legend(fontsize=10, **BESIDE)
    sns.despine(fig)
    return fig


def plot_errors(
    measured: Mapping[str, Mapping[str, Interval]], rows: Mapping[str, str], metrics: Mapping[str, str]
) -> Figure:
    """Error rates in percent with 95 % intervals: a panel per metric, a row per network; lower is better.

    Example:
        >>> measured = {"csoa": {"gt_known_error": Interval(0.3, 0.25, 0.35)}}
        >>> fig = plot_errors(measured, {"csoa": "CSoA"}, {"gt_known_error": "GT-known"})
        >>> fig.axes[0].texts[0].get_text()
        '30.0'
    """
    size = (2.9 * len(metrics) + 1.8, 0.42 * len(rows) + 1.3)
    fig, axes = plt.subplots(1, len(metrics), figsize=size, squeeze=False, sharey=True)
    colours = [f"C{_COLOURS.get(name, 4)}" for name in rows]
    for ax, (metric, title) in zip(axes[0], metrics.items(), strict=True):
        scores = [measured[name][metric] for name in rows]
        draw_intervals(ax, scores, list(rows.values()), colours, markersize=10, capstyle="round")
        for y, score in enumerate(scores):
            ax.text(100 * score.value, y - 0.22, f"{100 * score.value:.1f}", ha="center", va="bottom", fontsize=10.5)
        ax.set_title(title, fontsize=12)
        ax.set_xlabel("error (%)")
        ax.margins(y=0.18)
    axes[0, 0].invert_yaxis()
    name_intervals(fig)
    return fig
