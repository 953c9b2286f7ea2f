"""Figures of the beam search: windows down the tree, heat maps and points, what width and depth cost and give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.utils.data import Dataset

from wsolnb.localization.detect import Prediction
from wsolnb.localization.maps import SceneMaps
from wsolnb.localization.points import peaks
from wsolnb.papers.bency2016.windows import Tree
from wsolnb.plots.style import HEAT, TRUTH, draw_boxes, show_picture

_LINES = ("-", "--", "-.", ":")
_MARKS = ("o", "s", "D", "^", "v")
_CANDIDATE, _KEPT = 0, 3  # places in the palette: blue and orange-red


def show_tree(image: Tensor, tree: Tree, search: int, levels: Sequence[int], truth: Tensor) -> Figure:
    """One search level by level (bency2016 Figs. 3 and 5): all candidates of the image, and those that were kept.

    Args:
        image: `(3, H, W)`.
        tree: What the search left behind.
        search: Place of the search in `tree.pairs`.
        levels: Levels to show, a picture each.
        truth: True boxes of the class, `(n, 4)` in pixels.

    Example:
        >>> from wsolnb.losses import MultiLabelCrossEntropy
        >>> from wsolnb.papers.bency2016.network import grid_classifier
        >>> from wsolnb.papers.bency2016.search import BeamSearch
        >>> net, image = grid_classifier("tiny", 4, grid=4, hidden=(8,)).eval(), torch.rand(3, 48, 48)
        >>> tree = BeamSearch(2, 2)(net, image[None], MultiLabelCrossEntropy().scores, 1)
        >>> fig = show_tree(image, tree, 0, [1, 2], torch.tensor([[4.0, 4.0, 20.0, 30.0]]))
        >>> [ax.get_title().split(":")[0] for ax in fig.axes]
        ['level 1', 'level 2']
    """
    fig, axes = plt.subplots(1, len(levels), figsize=(2.3 * len(levels), 2.75), squeeze=False)
    height, width = image.shape[-2:]
    scale = torch.tensor([width, height] * 2)
    number, klass = tree.pairs[search].tolist()
    palette = sns.color_palette("colorblind")
    for ax, place in zip(axes[0], levels, strict=True):
        level = tree.levels[place]
        show_picture(ax, image, dim=0.25)
        draw_boxes(ax, truth, [0] * len(truth), {0: TRUTH})
        kept = level.kept[search]
        kept = kept[kept >= 0]
        everyone = (level.image == number).nonzero().flatten()
        _rectangles(ax, level.windows[everyone] * scale, palette[_CANDIDATE], 0.8)
        _rectangles(ax, level.windows[kept] * scale, palette[_KEPT], 2.2)
        ax.set_title(f"level {place}: {len(everyone)} windows\nbest {float(level.scores[kept, klass].max()):.2f}",
                     fontsize=11)  # fmt: skip
    return fig


def _rectangles(ax: Axes, boxes: Tensor, colour: Any, width: float) -> None:
    for x0, y0, x1, y1 in boxes.tolist():
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=width))


def show_children(cells: int) -> Figure:
    """The grid of a window and its four children: one step smaller in width or in height (bency2016 Fig. 4, Eq. 6).

    Example:
        >>> [ax.get_title() for ax in show_children(4).axes]
        ['parent', 'narrower, left', 'narrower, right', 'lower, top', 'lower, bottom']
    """
    names = {"narrower, left": (0, 0, -1, 0), "narrower, right": (1, 0, 0, 0)}
    names |= {"lower, top": (0, 0, 0, -1), "lower, bottom": (0, 1, 0, 0)}
    fig, axes = plt.subplots(1, 5, figsize=(11, 2.5))
    palette = sns.color_palette("colorblind")
    for ax, (name, (x0, y0, x1, y1)) in zip(axes, {"parent": (0, 0, 0, 0), **names}.items(), strict=True):
        for k in range(cells + 1):
            ax.plot([0, cells], [k, k], color="0.75", linewidth=0.8)
            ax.plot([k, k], [0, cells], color="0.75", linewidth=0.8)
        corner, size = (x0, y0), (cells + x1 - x0, cells + y1 - y0)
        colour = palette[_KEPT if name == "parent" else _CANDIDATE]
        ax.add_patch(Rectangle(corner, *size, facecolor=(*colour, 0.18), edgecolor=colour, linewidth=3))
        ax.set(title=name, aspect="equal", ylim=(cells + 0.3, -0.3), xlim=(-0.3, cells + 0.3))
        ax.set_axis_off()
    return fig


def show_points(
    scenes: Dataset[Any],
    classes: Sequence[str],
    picks: Sequence[tuple[int, int]],
    found: Mapping[str, SceneMaps],
    boxes: Mapping[str, Sequence[Prediction]],
) -> Figure:
    """Where a class points: a row per image and class, a column per method, with the peak and the boxes of its map.

    Args:
        scenes: The images.
        classes: Names.
        picks: Image and class of every row.
        found: Maps by the name of the method.
        boxes: Boxes by the name of the method, dashed.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.papers.bency2016.boxes import blob_boxes
        >>> scenes = World(families=2, species=2, size=32).scenes(1, size=(48, 64))
        >>> target = scenes[0][1]
        >>> found = {"cam": SceneMaps([torch.rand(4, 6, 8)], torch.rand(1, 4), torch.tensor([[48, 64]]), [target])}
        >>> boxes = {"cam": blob_boxes(found["cam"], torch.full((4,), 0.5))}
        >>> fig = show_points(scenes, scenes.classes, [(0, int(target["labels"][0]))], found, boxes)
        >>> len(fig.axes), fig.axes[1].get_title()
        (2, 'cam')
    """
    fig, axes = plt.subplots(
        len(picks), len(found) + 1, figsize=(2.6 * (len(found) + 1), 2.6 * len(picks)), squeeze=False
    )
    blue = sns.color_palette("colorblind")[0]
    for row, (index, klass) in zip(axes, picks, strict=True):
        image, target = scenes[index]
        mine = target["boxes"][target["labels"] == klass].as_subclass(Tensor)
        show_picture(row[0], image)
        draw_boxes(row[0], mine, [0] * len(mine), {0: TRUTH})
        row[0].set_title(classes[klass], fontsize=11)
        for ax, (name, way) in zip(row[1:], found.items(), strict=True):
            heat = F.interpolate(way.maps[index][None, klass : klass + 1], image.shape[-2:], mode="bilinear")[0, 0]
            show_picture(ax, image)
            ax.imshow(heat.numpy(), cmap=HEAT, alpha=0.6)
            draw_boxes(ax, mine, [0] * len(mine), {0: TRUTH})
            result = boxes[name][index]
            drawn = result["boxes"][result["labels"] == klass]
            draw_boxes(ax, drawn, [0] * len(drawn), {0: blue}, dashed=True)
            _mark_peak(ax, way.maps[index][klass], image, mine)
            if index == picks[0][0] and klass == picks[0][1]:
                ax.set_title(name, fontsize=12)
    return fig


def _mark_peak(ax: Axes, heat: Tensor, image: Tensor, truth: Tensor) -> None:
    if not bool(heat.max() > 0):  # a class that was not searched points nowhere
        return
    height, width = image.shape[-2:]
    place = int(peaks(heat[None, None]).argmax())
    x = (place % heat.shape[1] + 0.5) * width / heat.shape[1]
    y = (place // heat.shape[1] + 0.5) * height / heat.shape[0]
    inside = bool(((truth[:, 0] <= x) & (x < truth[:, 2]) & (truth[:, 1] <= y) & (y < truth[:, 3])).any())
    colour = sns.color_palette("colorblind")[2 if inside else 1]
    ax.plot([x], [y], "P" if inside else "X", color=colour, markersize=15, markeredgecolor="white", markeredgewidth=1.8)


def plot_searches(found: Mapping[str, tuple[float, float]], *, xlabel: str = "windows scored per image") -> Figure:
    """How good the best window is that a search finds, over the number of windows that it scored (a point each).

    Args:
        found: Name of the search to its windows per image and its mean best score.
        xlabel: What was counted.

    Example:
        >>> fig = plot_searches({"greedy": (30.0, 0.61), "M = 8": (190.0, 0.74)})
        >>> [text.get_text() for text in fig.axes[0].get_legend().get_texts()]
        ['greedy', 'M = 8']
    """
    fig, ax = plt.subplots(figsize=(6.8, 3.4))
    for k, (name, (cost, value)) in enumerate(found.items()):
        ax.plot([cost], [value], _MARKS[k % 5], markersize=12, color=f"C{k}", label=name)
    ax.plot(*zip(*found.values(), strict=True), color="0.7", linewidth=1.5, zorder=0)
    ax.set(xlabel=xlabel, ylabel="best score (mean)", xlim=(0, None))
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    sns.despine(fig)
    return fig


def plot_cost(curves: Mapping[str, Mapping[int, float]], costs: Mapping[str, float]) -> Figure:
    """Point localization over the depth of the search, a line per width, with what each width costs.

    Args:
        curves: Name of the width to depth and average precision, a fraction.
        costs: Name of the width to windows scored per image at the full depth.

    Example:
        >>> fig = plot_cost({"M = 1": {1: 0.2, 5: 0.3}, "M = 8": {1: 0.2, 5: 0.4}}, {"M = 1": 20.0, "M = 8": 95.0})
        >>> [text.get_text() for text in fig.axes[0].get_legend().get_texts()]
        ['M = 1: 20 windows per image', 'M = 8: 95 windows per image']
    """
    fig, ax = plt.subplots(figsize=(7.2, 3.5))
    for k, (name, curve) in enumerate(curves.items()):
        label = f"{name}: {costs[name]:.0f} windows per image"
        style = _LINES[k % 4] + _MARKS[k % 5]
        ax.plot(list(curve), [100 * v for v in curve.values()], style, color=f"C{k}", linewidth=2.2, label=label)
    ax.set(xlabel="depth H of the search", ylabel="point localization AP (%)", ylim=(0, None))
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    sns.despine(fig)
    return fig


def plot_alpha(curves: Mapping[str, Mapping[float, float]], chosen: Mapping[str, float]) -> Figure:
    """What co-occurrence gives over the weight α, in points, a line per data set; a dot marks the weight chosen.

    Args:
        curves: Name of the data set to α and average precision, a fraction; α 0 among them.
        chosen: Name of the data set to the α that held-out images chose.

    Example:
        >>> fig = plot_alpha({"cards": {0.0: 0.6, 0.5: 0.64, 1.0: 0.62}}, {"cards": 0.5})
        >>> [round(float(gain), 1) for gain in fig.axes[0].lines[0].get_ydata()]
        [0.0, 4.0, 2.0]
    """
    fig, ax = plt.subplots(figsize=(7.2, 3.3))
    for k, (name, curve) in enumerate(curves.items()):
        gain = {alpha: 100 * (value - curve[0.0]) for alpha, value in curve.items()}
        ax.plot(list(gain), list(gain.values()), _LINES[k % 4], color=f"C{k}", linewidth=2.5, label=name)
        ax.plot([chosen[name]], [gain[chosen[name]]], _MARKS[k % 5], color=f"C{k}", markersize=11)
    ax.axhline(0, color="0.6", linewidth=1)
    ax.set(xlabel="weight α of the other classes", ylabel="gain in classification\nmAP (points)")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    sns.despine(fig)
    return fig
