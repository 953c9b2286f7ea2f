"""Figures of the two heads: the confidence mask, merged maps, error rates.

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
from wsolnb.plots.curves import draw_intervals
from wsolnb.plots.style import HEAT, draw_prediction, name_intervals, show_picture

_COLOURS = {"base": 7, "two": 8, "csoa": 0, "confseg": 1, "coaug": 2, "centre": 5}  # indices in the palette
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
    size, widths = (12.5, 2.3 * len(indices) + 0.5), (1, 1, 1, 1, 1.7)
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
        panel.set_title(title, fontsize=14)
    axes[-1, 4].set_xlabel("cell, from the highest")
    handles = axes[0, 4].get_legend_handles_labels()
    fig.legend(*handles, loc="outside lower center", ncols=3, frameon=False, fontsize=14, markerscale=2)
    return fig


def _sorted_cells(ax: Axes, values: Tensor, low: float, high: float) -> None:
    ordered = values.flatten().sort(descending=True).values
    sides = torch.where(ordered > high, 2, torch.where(ordered < low, 0, 1))
    for side, name in ((2, "surely object"), (1, "undecided"), (0, "surely background")):
        ranks = (sides == side).nonzero()[:, 0]
        ax.scatter(ranks.numpy(), ordered[ranks].numpy(), s=16, color=_SIDES(side / 2), label=name)
    for limit, name in ((high, r"$\xi_1$"), (low, r"$\xi_2$")):
        ax.axhline(limit, color="0.3", linewidth=1.2, linestyle="--")
        ax.text(1.02, limit, name, transform=ax.get_yaxis_transform(), va="center", fontsize=14)
    ax.tick_params(labelsize=11)
    sns.despine(ax=ax)


def heads_differ(readings: Mapping[str, LocalizationMaps], threshold: float, most: int) -> list[int]:
    """Images in which the heads' regions above a threshold differ most: least overlap of intersection and union.

    `readings` are those of `wsolnb.papers.kou2021.maps.read_heads`; from the most different on, `most` indices.

    Example:
        >>> from dataclasses import replace
        >>> from functools import partial
        >>> from wsolnb.papers.kou2021.maps import merged
        >>> truth = (torch.zeros(2, 4), torch.tensor([0, 1]), [], (2, 2))
        >>> alike, other = torch.ones(2, 2), torch.eye(2)
        >>> heads = LocalizationMaps(torch.stack([torch.stack([alike, alike]), torch.stack([alike, other])]), *truth)
        >>> both = {how: replace(heads, upsample=partial(merged, how=how)) for how in ("union", "intersection")}
        >>> heads_differ(both, 0.5, 1)
        [1]
    """
    union, shared = ((readings[how].upsampled() > threshold).sum(dim=(1, 2)) for how in ("union", "intersection"))
    order: list[int] = (shared / union.clamp(min=1)).argsort(stable=True)[:most].tolist()
    return order


def show_merge(
    images: Dataset[Any],
    readings: Mapping[str, LocalizationMaps],
    indices: Sequence[int],
    rule: BoxRule,
    classes: Sequence[str],
) -> Figure:
    """What exceeds the rule's threshold in the maps of both heads, their union and intersection: a column per image.

    `readings` are those of `wsolnb.papers.kou2021.maps.read_heads`. The true box is white, the predicted one dashed;
    the number is their IoU, green from 0.5 on, orange below.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.papers.kou2021.maps import RULE
        >>> images, truth = World(size=32).singles(2), [torch.tensor([[4.0, 4.0, 28.0, 28.0]])] * 2
        >>> maps = LocalizationMaps(torch.rand(2, 8, 8), torch.zeros(2, 12), torch.tensor([0, 1]), truth, (32, 32))
        >>> len(show_merge(images, {"last": maps, "inner": maps}, [0, 1], RULE, images.classes).axes)
        4
    """
    names = {"inner": "inner $S_F$", "last": "last $S_L$", "union": "union", "intersection": "intersection"}
    rows = {name: readings[name].subset(torch.tensor(list(indices))) for name in names if name in readings}
    fig, axes = plt.subplots(len(rows), len(indices), figsize=(1.75 * len(indices), 1.7 * len(rows)), squeeze=False)
    for ax, (name, maps) in zip(axes, rows.items(), strict=True):
        masks, boxes = maps.upsampled() > rule.threshold, maps.cut(rule)
        for panel, index, mask, box, truth in zip(ax, indices, masks, boxes, maps.boxes, strict=True):
            image = resize(images[index][0].as_subclass(Tensor), list(maps.image_size), antialias=True)
            show_picture(panel, image, mask=mask)
            draw_prediction(panel, box[None], truth)
        style = {"rotation": 90, "ha": "right", "va": "center", "fontweight": "bold", "fontsize": 12}
        ax[0].text(-0.06, 0.5, names[name], transform=ax[0].transAxes, **style)
    for panel, label in zip(axes[0], next(iter(rows.values())).labels.tolist(), strict=True):
        panel.set_title(classes[label], fontsize=11)
    return fig


def plot_errors(
    measured: Mapping[str, Mapping[str, Interval]], rows: Mapping[str, str], metrics: Mapping[str, str]
) -> Figure:
    """Error rates in percent with 95 % intervals: a panel per metric, a row per network; all axes are alike, from 0.

    Example:
        >>> measured = {"csoa": {"gt_known_error": Interval(0.3, 0.25, 0.35)}}
        >>> fig = plot_errors(measured, {"csoa": "CSoA"}, {"gt_known_error": "GT-known"})
        >>> fig.axes[0].texts[0].get_text(), float(fig.axes[0].get_xlim()[0])
        ('30.0', 0.0)
    """
    size = (3.1 * len(metrics) + 2.6, 0.5 * len(rows) + 1.5)
    fig, axes = plt.subplots(1, len(metrics), figsize=size, squeeze=False, sharex=True, sharey=True)
    colours = [f"C{_COLOURS.get(name.partition('-')[0].partition('@')[0], 4)}" for name in rows]
    for ax, (metric, title) in zip(axes[0], metrics.items(), strict=True):
        scores = [measured[name][metric] for name in rows]
        draw_intervals(ax, scores, list(rows.values()), colours, markersize=10, capstyle="round")
        for y, score in enumerate(scores):
            ax.text(100 * score.value, y - 0.22, f"{100 * score.value:.1f}", ha="center", va="bottom", fontsize=12)
        ax.set_title(title, fontsize=14)
        ax.set_xlabel("error (%), lower is better")
        ax.margins(x=0.06, y=0.18)
    axes[0, 0].invert_yaxis()
    axes[0, 0].set_xlim(left=0)
    name_intervals(fig)
    return fig
