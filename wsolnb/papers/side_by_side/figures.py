"""Figures of the comparison: all methods in one table, what they cost, where they succeed, how they degrade."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler
from torch.utils.data import Dataset

from wsolnb.localization.detect import Prediction
from wsolnb.metrics.bootstrap import Interval, Measured
from wsolnb.plots.style import LINES, class_colours, draw_boxes, show_picture

LONGER = "-converged"
"""Ending of the names of results that were trained until the held-out loss stopped falling."""

BUDGETS = {"": "equal steps", LONGER: "until the held-out loss stops falling"}
"""Endings of the names of results, with what they mean."""

_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
_COLOURS = plt.get_cmap("cividis", 6)  # only six colours: easier to name, and smaller files
_DISTINCT = ("C0", "C1", "C2", "C3", "C4", "0.1", "C9", "0.55")


def standings_table(
    measured: Measured,
    names: Mapping[str, str],
    metrics: Mapping[str, str],
    *,
    borrowed: Collection[tuple[str, str]] = (),
) -> Styler:
    """A table with a row per method, and a column per metric and budget: percent, and half the interval's width.

    The second budget's results are those whose names end with `LONGER`. Colours go from the lowest to the highest
    number of a column, whose best number is bold. A cell is empty where a method was not measured, and grey where the
    number is another method's: `borrowed` are those methods and metrics. `names` and `metrics` are to be shown, with
    their labels.

    Example:
        >>> from wsolnb.metrics.bootstrap import Interval
        >>> measured = {"cam": {"gt_known": Interval(0.5, 0.4, 0.6)}, "tap": {"gt_known": Interval(0.6, 0.5, 0.7)}}
        >>> table = standings_table(measured, {"cam": "CAM", "tap": "TAP"}, {"gt_known": "GT-known"})
        >>> table.data.to_dict("list")
        {('equal steps', 'GT-known'): ['50.0 ± 10.0', '60.0 ± 10.0']}
    """
    rows = [name for name in names if any(set(measured.get(name + end, {})) & set(metrics) for end in BUDGETS)]
    texts: dict[tuple[str, str], list[str]] = {}
    styles: dict[tuple[str, str], list[str]] = {}
    for end, budget in BUDGETS.items():
        for metric, label in metrics.items():
            scores = [measured.get(name + end, {}).get(metric) for name in rows]
            if any(scores):
                pairs = zip(rows, scores, strict=True)
                values = [score.value for name, score in pairs if score and (name, metric) not in borrowed]
                texts[budget, label] = [_percent(score) for score in scores]
                styles[budget, label] = [
                    "color: #999" if (name, metric) in borrowed else _shade(score, values)
                    for name, score in zip(rows, scores, strict=True)
                ]
    index = [names[name] for name in rows]
    table, css = (pd.DataFrame(columns, index=index) for columns in (texts, styles))
    cells = {"selector": "td", "props": "white-space: nowrap; text-align: right"}
    return table.style.apply(lambda _: css, axis=None).set_table_styles([cells])  # type: ignore[list-item]


def _percent(score: Interval | None) -> str:
    return "" if score is None else f"{100 * score.value:.1f} ± {50 * (score.high - score.low):.1f}"


def _shade(score: Interval | None, values: Sequence[float]) -> str:
    """Style of a cell among the values of its column."""
    if score is None:
        return ""
    above = (score.value - min(values)) / ((max(values) - min(values)) or 1)
    shade = round(255 - 60 * above)
    return f"background: rgb({shade},{shade + 10 if shade < 246 else 255},255)" + "; font-weight: bold" * (
        score.value == max(values)
    )


def plot_breakdown(means: Mapping[str, Mapping[str, float]], names: Mapping[str, str]) -> Figure:
    """One metric on parts of the test images: a row per method, a column per part.

    `means` are in [0, 1], by method and part; `names` are those to show, with their labels.

    Example:
        >>> means = {"cam": {"small": 0.25, "large": 0.5}, "tap": {"small": 0.2, "large": 0.6}}
        >>> fig = plot_breakdown(means, {"tap": "TAP"})
        >>> [text.get_text() for text in fig.axes[0].texts]
        ['20', '60']
    """
    rows = [name for name in names if name in means]
    parts = list(means[rows[0]])
    values = np.array([[means[name][part] for part in parts] for name in rows])
    fig, ax = plt.subplots(figsize=(1.1 * len(parts) + 2.9, 0.42 * len(rows) + 0.8))
    ax.imshow(values, cmap=_COLOURS, aspect="auto", vmin=0, vmax=1)
    for y, x in zip(*np.isfinite(values).nonzero(), strict=True):
        colour = "white" if values[y, x] < 0.5 else "black"
        ax.text(x, y, f"{100 * values[y, x]:.0f}", ha="center", va="center", color=colour, fontsize=14)
    _headings(ax, [names[name] for name in rows], parts)
    return fig


def plot_cost(
    measured: Measured,
    names: Mapping[str, str],
    metrics: Mapping[str, str],
    *,
    cost: str = "train_passes",
    unit: str = "",
) -> Figure:
    """Accuracy of the methods over their cost on a logarithmic axis, a panel per metric.

    Hollow marks are results after equal steps; a line leads to the filled mark of the same method trained longer, the
    result whose name ends with `LONGER`. Names stand at the right. The `cost` is one of the metrics measured, `unit`
    labels its axis; `names` and `metrics` are those to show, with their labels.

    Example:
        >>> from wsolnb.metrics.bootstrap import Interval
        >>> measured = {"cam": {"ap50": Interval(0.3, 0.2, 0.4), "train_passes": Interval(5, 5, 5)}}
        >>> measured["cam-converged"] = {"ap50": Interval(0.4, 0.3, 0.5), "train_passes": Interval(15, 15, 15)}
        >>> fig = plot_cost(measured, {"cam": "CAM"}, {"ap50": "AP at IoU 0.5"})
        >>> fig.axes[0].lines[0].get_xydata().tolist(), fig.axes[0].texts[0].get_text().strip()
        ([[5.0, 30.0], [15.0, 40.0]], 'CAM')
    """
    fig, axes = plt.subplots(1, len(metrics), figsize=(6.2 * len(metrics), 4.9), squeeze=False)
    for ax, (metric, title) in zip(axes[0], metrics.items(), strict=True):
        ends, last = [], []
        for k, name in enumerate(names):
            steps = [measured.get(key, {}) for key in (name, f"{name}{LONGER}")]
            points = [(step[cost].value, 100 * step[metric].value) for step in steps if metric in step and cost in step]
            if points:
                colour, mark = _DISTINCT[k % len(_DISTINCT)], _MARKS[k % len(_MARKS)]
                ax.plot(*zip(*points, strict=True), color=colour, linewidth=2)
                style: dict[str, Any] = {"marker": mark, "s": 95, "edgecolor": colour, "linewidth": 2, "zorder": 3}
                ax.scatter(*points[0], facecolor="white", **style)
                for point in points[1:]:
                    ax.scatter(*point, color=colour, marker=mark, s=95, zorder=3)
                ends.append((points[-1], names[name], colour))
                last += [x for x, _ in points]
        ax.set(xscale="log", title=title, xlabel=unit or cost, ylabel="%", ylim=(0, 100))
        ticks = [tick for tick in (5, 10, 20, 50, 100, 200, 500) if 0.8 * min(last) <= tick <= 1.2 * max(last)]
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
        spread = max(3.0, max(last) / min(last))
        ax.set_xlim(min(last) / 1.2, max(last) * spread**0.75)
        _label_points(ax, ends, max(last) * spread**0.13)
        ax.grid(axis="y", color="0.92")
        ax.set_axisbelow(True)
    sns.despine(fig)
    return fig


def plot_crowds(
    panels: Mapping[str, Measured], levels: Mapping[int, str], names: Mapping[str, str], *, label: str = ""
) -> Figure:
    """How methods degrade as scenes fill up: a panel per budget, a line per method, intervals as bars.

    `panels` are results by title, `levels` the metric of every number of objects in a scene; `names` are the methods to
    show, with their labels, `label` is the metric's.

    Example:
        >>> from wsolnb.metrics.bootstrap import Interval
        >>> measured = {"cam": {"ap25": Interval(0.5, 0.4, 0.6), "ap25 objects 5": Interval(0.25, 0.2, 0.3)}}
        >>> fig = plot_crowds({"equal steps": measured}, {2: "ap25", 5: "ap25 objects 5"}, {"cam": "CAM"})
        >>> fig.axes[0].lines[0].get_ydata().tolist()
        [50.0, 25.0]
    """
    fig, axes = plt.subplots(1, len(panels), figsize=(4.4 * len(panels) + 2.4, 4.2), squeeze=False, sharey=True)
    shown: dict[str, Any] = {}
    for ax, (title, measured) in zip(axes[0], panels.items(), strict=True):
        for k, name in enumerate(names):
            scores = [measured.get(name, {}).get(metric) for metric in levels.values()]
            if all(score is not None for score in scores):
                style: dict[str, Any] = {"marker": _MARKS[k % len(_MARKS)], "linestyle": LINES[k % len(LINES)]}
                values = np.array([[s.value, s.value - s.low, s.high - s.value] for s in scores if s is not None]).T
                x = np.array(list(levels)) + 0.06 * (k - len(names) / 2)  # so that bars do not hide each other
                bars = ax.errorbar(x, 100 * values[0], 100 * np.maximum(values[1:], 0), capsize=3, linewidth=2,
                                   markersize=8, color=_DISTINCT[k % len(_DISTINCT)], **style)  # fmt: skip
                shown[names[name]] = bars
        ax.set(title=title, xlabel="animals in a scene", xticks=list(levels), ylim=(0, 100))
    axes[0, 0].set_ylabel(f"{label} (%)")
    fig.legend(shown.values(), shown.keys(), loc="outside right center", frameon=False, fontsize=12)
    sns.despine(fig)
    return fig


def plot_scenes(
    scenes: Dataset[Any],
    classes: Sequence[str],
    indices: Sequence[int],
    detections: Mapping[str, Sequence[Prediction]],
) -> Figure:
    """Detections in scenes: a row per scene, a column per method behind the truth; names and scores stand below.

    Example:
        >>> from wsolnb.data.critters import World
        >>> scenes = World(families=2, species=2, size=32).scenes(1, size=(48, 64))
        >>> best = [scenes[0][1] | {"scores": torch.tensor([0.9] * len(scenes[0][1]["labels"]))}]
        >>> fig = plot_scenes(scenes, scenes.classes, [0], {"perfect": best})
        >>> fig.axes[1].get_title(), fig.axes[1].texts[0].get_text().endswith(" 0.90")
        ('perfect', True)
    """
    columns = len(detections) + 1
    fig, axes = plt.subplots(len(indices), columns, figsize=(2.6 * columns, 3.3 * len(indices)), squeeze=False)
    for row, index in zip(axes, indices, strict=True):
        image, target = scenes[index]
        truth = {"boxes": target["boxes"], "labels": target["labels"]}
        panels = {"truth": truth} | {name: found[index] for name, found in detections.items()}
        colours = class_colours(torch.cat([panel["labels"].cpu() for panel in panels.values()]).tolist())
        for ax, (title, panel) in zip(row, panels.items(), strict=True):
            labels = panel["labels"].tolist()
            scores = panel["scores"].tolist() if "scores" in panel else [None] * len(labels)
            show_picture(ax, image)
            draw_boxes(ax, panel["boxes"].float().cpu(), labels, colours)
            for k, (label, score) in enumerate(zip(labels, scores, strict=True)):
                text = classes[label] if score is None else f"{classes[label]} {score:.2f}"
                dark = [0.75 * channel for channel in colours[label]]
                below = (0, -4 - 17 * k)  # points
                style: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 13, "color": dark}
                ax.annotate(text, (0.5, 0), below, "axes fraction", "offset points", **style)
            ax.set_title(title if index == indices[0] else "", fontsize=14)
    return fig


def _headings(ax: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    ax.xaxis.tick_top()
    ax.set_xticks(range(len(columns)), columns, fontsize=13)
    ax.set_yticks(range(len(rows)), rows, fontsize=13.5)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _label_points(ax: Axes, ends: Sequence[tuple[tuple[float, float], str, str]], column: float) -> None:
    """Write the names of points in one column, pushed apart, each with a line to its point."""
    ends = sorted(ends, key=lambda end: end[0][1])
    heights = np.array([y for (_, y), _, _ in ends])
    for ((x, y), text, colour), level in zip(ends, _apart(heights, 6.5, 3, 97), strict=True):
        ax.plot([x, column], [y, level], color="0.75", linewidth=0.8, zorder=1)
        ax.text(column, level, f" {text}", va="center", fontsize=13, color=colour)


def _apart(values: np.ndarray, step: float, low: float, high: float) -> np.ndarray:
    """Positions at least a step apart in [low, high], near the sorted values: blocks of close ones share a centre."""
    blocks: list[list[float]] = []

    def middle(block: list[float]) -> float:
        half = step * (len(block) - 1) / 2
        return max(low + half, min(high - half, sum(block) / len(block)))

    for value in values.tolist():
        blocks.append([value])
        # The new block may push into the one before it: merge until no two overlap.
        while len(blocks) > 1:
            left, right = blocks[-2:]
            if middle(right) - middle(left) >= step * (len(left) + len(right)) / 2:
                break
            blocks[-2:] = [left + right]
    return np.array([middle(block) + step * (k - (len(block) - 1) / 2) for block in blocks for k in range(len(block))])
