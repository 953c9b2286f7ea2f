"""Figures of the beam search: the windows of a search, maps with their peaks, what width and depth cost and gain.

Paper: https://doi.org/10.48550/arXiv.1603.00489
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
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
from wsolnb.metrics.bootstrap import Interval
from wsolnb.papers.bency2016.windows import SearchTree
from wsolnb.plots.style import BESIDE, HEAT, LINES, draw_outlines, name_intervals, show_picture

_MARKS = ("o", "s", "D", "^", "v")
_CANDIDATE, _KEPT = 0, 3  # indices in the palette: blue and orange-red


def show_tree(image: Tensor, tree: SearchTree, search: int, levels: Sequence[int], truth: Tensor) -> Figure:
    """One search level by level (bency2016 Figs. 3 and 5): the kept windows, the best one bold, and the heat map.

    `search` is its index in `tree.pairs`; `truth` are true boxes of the class, `(n, 4)` in pixels. A panel per level,
    and the last one for the heat map, whose hottest point is marked.

    Example:
        >>> from wsolnb.losses import MultiLabelCrossEntropy
        >>> from wsolnb.papers.bency2016.network import grid_classifier
        >>> from wsolnb.papers.bency2016.search import BeamSearch
        >>> net, image = grid_classifier("tiny", 4, grid=4, hidden=(8,)).eval(), torch.rand(3, 48, 48)
        >>> tree = BeamSearch(2, 2)(net, image[None], MultiLabelCrossEntropy().scores, 1)
        >>> fig = show_tree(image, tree, 0, [1, 2], torch.tensor([[4.0, 4.0, 20.0, 30.0]]))
        >>> [ax.get_title().split(":")[0] for ax in fig.axes]
        ['level 1', 'level 2', 'heat map']
    """
    columns = min(3, len(levels) + 1)
    rows = -(-(len(levels) + 1) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(3.3 * columns, 3.6 * rows), squeeze=False)
    height, width = image.shape[-2:]
    scale = torch.tensor([width, height] * 2)
    number, klass = tree.pairs[search].tolist()
    colour = sns.color_palette("colorblind")[_KEPT]
    panels = axes.flatten().tolist()
    for ax, depth in zip(panels, levels, strict=False):
        level = tree.levels[depth]
        show_picture(ax, image, dim=0.25)
        draw_outlines(ax, truth)
        kept = level.kept[search]
        kept = kept[kept >= 0]
        for k, (x0, y0, x1, y1) in reversed(list(enumerate((level.windows[kept] * scale).tolist()))):
            style: dict[str, Any] = {"linewidth": 1.0, "alpha": 0.7} if k else {"linewidth": 3.5}
            ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, **style))
        ax.set_title(f"level {depth}: score {float(level.scores[kept[0], klass]):.2f}")
    ax = panels[len(levels)]
    heat = tree.heat()[number, klass]
    show_picture(ax, image)
    _show_heat(ax, heat, image)
    draw_outlines(ax, truth)
    _mark_peak(ax, heat, image, truth)
    ax.set_title("heat map")
    for ax in panels[len(levels) + 1 :]:
        ax.remove()
    return fig


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
    maps: Mapping[str, SceneMaps],
    boxes: Mapping[str, Sequence[Prediction]],
) -> Figure:
    """Maps of a class with their peaks and boxes (dashed): a row per image and class, a column per method.

    `picks` are image and class of every row.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.papers.bency2016.boxes import blob_boxes
        >>> scenes = World(families=2, species=2, size=32).scenes(1, size=(48, 64))
        >>> target = scenes[0][1]
        >>> maps = {"cam": SceneMaps([torch.rand(4, 6, 8)], torch.rand(1, 4), torch.tensor([[48, 64]]), [target])}
        >>> boxes = {"cam": blob_boxes(maps["cam"], torch.full((4,), 0.5))}
        >>> fig = show_points(scenes, scenes.classes, [(0, int(target["labels"][0]))], maps, boxes)
        >>> len(fig.axes), fig.axes[1].get_title()
        (2, 'cam')
    """
    columns = len(maps) + 1
    fig, axes = plt.subplots(len(picks), columns, figsize=(2.6 * columns, 2.6 * len(picks)), squeeze=False)
    for row, (index, klass) in zip(axes, picks, strict=True):
        image, target = scenes[index]
        truth = target["boxes"][target["labels"] == klass].as_subclass(Tensor)
        show_picture(row[0], image)
        draw_outlines(row[0], truth)
        row[0].set_title(classes[klass], fontsize=11)
        for ax, (name, scene_maps) in zip(row[1:], maps.items(), strict=True):
            heat = scene_maps.maps[index][klass]
            show_picture(ax, image)
            _show_heat(ax, heat, image)
            draw_outlines(ax, truth)
            prediction = boxes[name][index]
            same = prediction["boxes"][prediction["labels"] == klass]
            draw_outlines(ax, same, sns.color_palette("colorblind")[0], dashed=True)
            _mark_peak(ax, heat, image, truth)
            ax.set(xlim=(-0.5, image.shape[-1] - 0.5), ylim=(image.shape[-2] - 0.5, -0.5))  # boxes may reach beyond
    for ax, name in zip(axes[0, 1:], maps, strict=True):
        ax.set_title(fill(name, 22), fontsize=12)
    return fig


def _show_heat(ax: Axes, heat: Tensor, image: Tensor) -> None:
    enlarged = F.interpolate(heat[None, None], image.shape[-2:], mode="bilinear")[0, 0]
    ax.imshow(enlarged.cpu().numpy(), cmap=HEAT, alpha=0.6)


def _mark_peak(ax: Axes, heat: Tensor, image: Tensor, truth: Tensor) -> None:
    if not bool(heat.max() > 0):  # the map of a class that was not searched has no peak
        return
    height, width = image.shape[-2:]
    row, column = divmod(int(peaks(heat[None, None]).argmax()), heat.shape[1])
    x, y = (column + 0.5) * width / heat.shape[1], (row + 0.5) * height / heat.shape[0]
    inside = bool(((truth[:, 0] <= x) & (x < truth[:, 2]) & (truth[:, 1] <= y) & (y < truth[:, 3])).any())
    colour = sns.color_palette("colorblind")[2 if inside else 1]
    ax.plot([x], [y], "P" if inside else "X", color=colour, markersize=15, markeredgecolor="white", markeredgewidth=1.8)


def plot_methods(measured: Mapping[str, Mapping[str, Interval]], metrics: Mapping[str, str]) -> Figure:
    """Measured numbers in percent with 95 % intervals over images: a panel per metric, a row per method.

    A method without a number has an empty row.

    Example:
        >>> half = Interval(0.5, 0.4, 0.6)
        >>> fig = plot_methods({"beam": {"ap50": half}, "CAM": {}}, {"ap50": "boxes"})
        >>> [text.get_text() for text in fig.axes[0].get_yticklabels()], [text.get_text() for text in fig.axes[0].texts]
        (['beam', 'CAM'], ['50'])
    """
    size = (3.2 + 2.0 * len(metrics), 1.4 + 0.68 * len(measured))
    fig, axes = plt.subplots(1, len(metrics), figsize=size, sharey=True, squeeze=False)
    for ax, (metric, title) in zip(axes[0], metrics.items(), strict=True):
        for row, (name, numbers) in enumerate(measured.items()):
            if metric in numbers:
                each = numbers[metric]
                value, low, high = 100 * each.value, 100 * each.low, 100 * each.high
                ax.plot([low, high], [row, row], color=f"C{row}", linewidth=3)
                ax.plot([value], [row], "o", color=f"C{row}", markersize=10, label=name)
                ax.text(value, row - 0.2, f"{value:.0f}", ha="center", va="bottom", fontsize=14)
        ax.set(title=title, xlim=(0, 100), xticks=(0, 50, 100), ylim=(len(measured) - 0.4, -0.7), xlabel="%")
    axes[0, 0].set_yticks(range(len(measured)), [fill(name, 26) for name in measured], fontsize=13)
    sns.despine(fig)
    name_intervals(fig)
    return fig


def plot_searches(searches: Mapping[str, tuple[float, float]]) -> Figure:
    """Score of the best window over the number of windows scored, in percent of the exhaustive search's, the last one.

    `searches` holds the mean number of windows and the mean best score of every search.

    Example:
        >>> fig = plot_searches({"greedy": (30.0, 0.6), "exhaustive": (200.0, 0.8)})
        >>> fig.axes[0].get_lines()[0].get_ydata().round().tolist()
        [75.0]
    """
    fig, ax = plt.subplots(figsize=(7.6, 3.6))
    most, highest = list(searches.values())[-1]
    for k, (name, (cost, value)) in enumerate(searches.items()):
        ax.plot([100 * cost / most], [100 * value / highest], _MARKS[k % 5], markersize=13, color=f"C{k}", label=name)
    ax.set(xlabel="windows scored (% of all)", ylabel="best score found\n(% of the best there is)")
    ax.set(xlim=(0, 106), ylim=(0, 109))
    ax.legend(**BESIDE)
    sns.despine(fig)
    return fig


def plot_cost(curves: Mapping[str, Mapping[int, float]], costs: Mapping[str, float]) -> Figure:
    """Point localization over the depth of the search, a line per width; the legend gives the cost of the width.

    `curves` are average precision in [0, 1] for every depth, `costs` windows scored per image at full depth.

    Example:
        >>> fig = plot_cost({"M = 1": {1: 0.2, 5: 0.3}, "M = 8": {1: 0.2, 5: 0.4}}, {"M = 1": 20.0, "M = 8": 95.0})
        >>> [text.get_text() for text in fig.axes[0].get_legend().get_texts()]
        ['M = 1: 20 windows per image', 'M = 8: 95 windows per image']
    """
    fig, ax = plt.subplots(figsize=(7.2, 3.5))
    for k, (name, curve) in enumerate(curves.items()):
        label = f"{name}: {costs[name]:.0f} windows per image"
        style = LINES[k % 4] + _MARKS[k % 5]
        ax.plot(list(curve), [100 * v for v in curve.values()], style, color=f"C{k}", linewidth=2.2, label=label)
    ax.set(xlabel="depth H of the search", ylabel="point localization AP (%)", ylim=(0, None))
    ax.legend(loc="lower right", frameon=False)
    sns.despine(fig)
    return fig


def plot_alpha(curves: Mapping[str, Mapping[float, float]], chosen: Mapping[str, float]) -> Figure:
    """Gain of co-occurrence in points over its weight α, a line per data set; a mark shows the α chosen.

    `curves` are average precision in [0, 1] for every α, 0 among them.

    Example:
        >>> fig = plot_alpha({"cards": {0.0: 0.6, 0.5: 0.64, 1.0: 0.62}}, {"cards": 0.5})
        >>> [round(float(gain), 1) for gain in fig.axes[0].lines[0].get_ydata()]
        [0.0, 4.0, 2.0]
    """
    fig, ax = plt.subplots(figsize=(7.2, 4.2))
    for k, (name, curve) in enumerate(curves.items()):
        gain = {alpha: 100 * (value - curve[0.0]) for alpha, value in curve.items()}
        ax.plot(list(gain), list(gain.values()), LINES[k % 4], color=f"C{k}", linewidth=2.5, label=name)
        ax.plot([chosen[name]], [gain[chosen[name]]], _MARKS[k % 5], color=f"C{k}", markersize=11)
    ax.axhline(0, color="0.6", linewidth=1)
    ax.set(xlabel="weight α of the other classes", ylabel="gain in classification\nmAP (points)")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.02), frameon=False)
    sns.despine(fig)
    return fig
