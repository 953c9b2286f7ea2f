"""Figures of the comparison: all methods in one table, what they cost, where they succeed, how they degrade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wsolnb.metrics.bootstrap import Measured
from wsolnb.plots.style import LINES

_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
_COLOURS = plt.get_cmap("cividis", 6)  # only six colours: easier to name, and smaller files
_DISTINCT = ("C0", "C1", "C2", "C3", "C4", "0.1", "C9", "0.55")


def plot_standings(measured: Measured, names: Mapping[str, str], metrics: Mapping[str, str]) -> Figure:
    """A table with a row per method and a column per metric: percent, half the interval's width, the best one framed.

    Colours go from the lowest to the highest number of a column. A cell is empty where a method was not measured.
    `names` and `metrics` are those to show, with their labels.

    Example:
        >>> from wsolnb.metrics.bootstrap import Interval
        >>> measured = {"cam": {"gt_known": Interval(0.5, 0.4, 0.6)}, "tap": {"gt_known": Interval(0.6, 0.5, 0.7)}}
        >>> fig = plot_standings(measured, {"cam": "CAM", "tap": "TAP"}, {"gt_known": "GT-known"})
        >>> [text.get_text() for text in fig.axes[0].texts]
        ['50.0', '± 10.0', '60.0', '± 10.0']
    """
    rows = [name for name in names if name in measured]
    columns = [metric for metric in metrics if any(metric in measured[name] for name in rows)]
    values = np.array([[getattr(measured[name].get(metric), "value", np.nan) for metric in columns] for name in rows])
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    above, spread = values - low, high - low
    fig, ax = plt.subplots(figsize=(0.8 * len(columns) + 2.6, 0.37 * len(rows) + 1.1))
    ax.imshow(above / np.where(spread > 0, spread, 1), cmap=_COLOURS, aspect="auto", vmin=0, vmax=1)
    for y, x in zip(*np.isfinite(values).nonzero(), strict=True):
        score = measured[rows[y]][columns[x]]
        style: dict[str, Any] = {"ha": "center", "color": "white" if above[y, x] < 0.5 * spread[x] else "black"}
        ax.text(x, y + 0.1, f"{100 * score.value:.1f}", va="bottom", fontsize=12.5, **style)
        ax.text(x, y + 0.08, f"± {50 * (score.high - score.low):.1f}", va="top", fontsize=9, **style)
    for x, y in enumerate(np.nanargmax(values, axis=0)):
        ax.add_patch(plt.Rectangle((x - 0.48, y - 0.47), 0.96, 0.94, fill=False, edgecolor="C3", linewidth=3))
    _headings(ax, [names[name] for name in rows], [metrics[metric] for metric in columns])
    return fig


def plot_breakdown(means: Mapping[str, Mapping[str, float]], names: Mapping[str, str], *, gap: int = 0) -> Figure:
    """One metric on parts of the test images: a row per method, a column per part.

    `means` are in [0, 1], by method and part; `names` are those to show, with their labels. A white line stands behind
    the first `gap` columns.

    Example:
        >>> means = {"cam": {"small": 0.25, "large": 0.5}, "tap": {"small": 0.2, "large": 0.6}}
        >>> fig = plot_breakdown(means, {"tap": "TAP"})
        >>> [text.get_text() for text in fig.axes[0].texts]
        ['20', '60']
    """
    rows = [name for name in names if name in means]
    parts = list(means[rows[0]])
    values = np.array([[means[name][part] for part in parts] for name in rows])
    fig, ax = plt.subplots(figsize=(0.5 * len(parts) + 2.9, 0.31 * len(rows) + 1.7))
    ax.imshow(values, cmap=_COLOURS, aspect="auto", vmin=0, vmax=1)
    for y, x in zip(*np.isfinite(values).nonzero(), strict=True):
        colour = "white" if values[y, x] < 0.5 else "black"
        ax.text(x, y, f"{100 * values[y, x]:.0f}", ha="center", va="center", color=colour, fontsize=11.5)
    if gap:
        ax.axvline(gap - 0.5, color="white", linewidth=6)
    _headings(ax, [names[name] for name in rows], parts, turned=True)
    return fig


def plot_cost(
    measured: Measured, names: Mapping[str, str], metrics: Mapping[str, str], *, cost: str = "passes", unit: str = ""
) -> Figure:
    """Accuracy of the methods over their cost on a logarithmic axis, a panel per metric.

    The cheapest methods, which often cost the same, are labelled on the left, the others on the right. The `cost` is
    one of the metrics measured, `unit` labels its axis; `names` and `metrics` are those to show, with their labels.

    Example:
        >>> from wsolnb.metrics.bootstrap import Interval
        >>> measured = {"cam": {"ap50": Interval(0.3, 0.2, 0.4), "passes": Interval(1, 1, 1)}}
        >>> measured["beam"] = {"ap50": Interval(0.4, 0.3, 0.5), "passes": Interval(26, 26, 26)}
        >>> names = {"cam": "CAM", "beam": "beam search"}
        >>> fig = plot_cost(measured, names, {"ap50": "AP at IoU 0.5"}, unit="forward passes")
        >>> [text.get_text().strip() for text in fig.axes[0].texts]
        ['CAM', 'beam search']
    """
    fig, axes = plt.subplots(1, len(metrics), figsize=(7.4 * len(metrics), 6.2), squeeze=False)
    for ax, (metric, title) in zip(axes[0], metrics.items(), strict=True):
        rows = [name for name in names if metric in measured.get(name, {}) and cost in measured[name]]
        x = np.array([measured[name][cost].value for name in rows])
        y = np.array([100 * measured[name][metric].value for name in rows])
        ax.scatter(x, y, s=70, color="C0", edgecolor="white", linewidth=0.8, zorder=3)
        ax.set(xscale="log", title=title, xlabel=unit or cost, ylabel="%", ylim=(min(-3, y.min() - 5), y.max() + 8))
        ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100) if tick <= 1.2 * x.max()]
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
        cheap = x < 1.1 * x.min()
        spread = np.log(1.3 * x.max() / x.min())
        ax.set_xlim(x.min() * np.exp(-0.75 * spread), x.max() * np.exp(0.75 * spread))
        texts = np.array([names[name] for name in rows])
        _label_points(ax, x[cheap], y[cheap], texts[cheap], x.min() * np.exp(-0.15 * spread), "right")
        _label_points(ax, x[~cheap], y[~cheap], texts[~cheap], x.max() * np.exp(0.12 * spread), "left")
        ax.grid(axis="y", color="0.92")
        ax.set_axisbelow(True)
    sns.despine(fig)
    return fig


def plot_knobs(
    rows: pd.DataFrame,
    levels: Mapping[str, Mapping[float, str]],
    names: Mapping[str, str],
    shown: Mapping[str, str],
    labels: Mapping[str, str],
    *,
    falling: Sequence[str] = (),
) -> Figure:
    """How methods degrade as the world gets harder: a column per knob, a row per metric, a line per method.

    Lines are means over seeds, bands reach from the lowest to the highest seed. `rows` are from
    `wsolnb.papers.side_by_side.results.condensed`, `levels` the worlds by knob and its value; `names` (of methods),
    `shown` (metrics) and `labels` (knobs) give labels. The axes of `falling` knobs, whose small values are the hard
    ones, are inverted.

    Example:
        >>> table = pd.DataFrame({"world": ["base", "clutter 9"] * 2, "value": [0.5, 0.3, 0.7, 0.1]})
        >>> table = table.assign(seed=[0, 0, 1, 1], method="cam", metric="ap50")
        >>> levels = {"clutter": {3.0: "base", 9.0: "clutter 9"}}
        >>> fig = plot_knobs(table, levels, {"cam": "CAM"}, {"ap50": "AP"}, {"clutter": "leaves"})
        >>> fig.axes[0].lines[0].get_ydata().round(1).tolist(), fig.axes[0].get_xlabel()
        ([60.0, 20.0], 'leaves')
    """
    colours = _DISTINCT * (1 + len(names) // len(_DISTINCT))
    size = (4.5 * len(levels) + 2.6, 3.4 * len(shown) + 0.4)
    fig, axes = plt.subplots(len(shown), len(levels), figsize=size, squeeze=False, sharey="row")
    for row, (metric, title) in zip(axes, shown.items(), strict=True):
        part = rows[rows.metric == metric]
        spread = part.groupby(["world", "method"]).value.agg(["mean", "min", "max"])
        for ax, (knob, worlds) in zip(row, levels.items(), strict=True):
            measured = {level: world for level, world in worlds.items() if world in spread.index.get_level_values(0)}
            for k, name in enumerate(names):
                if name not in spread.index.get_level_values(1) or len(measured) < 2:
                    continue
                percent = spread.loc[[(world, name) for world in measured.values()]] * 100
                style = {"marker": _MARKS[k % len(_MARKS)], "linestyle": LINES[k % len(LINES)], "color": colours[k]}
                ax.plot(list(measured), percent["mean"], label=names[name], linewidth=2, markersize=8, **style)
                ax.fill_between(
                    list(measured), percent["min"], percent["max"], color=colours[k], alpha=0.15, linewidth=0
                )
            ax.set(xlabel=labels.get(knob, knob), xticks=list(worlds))
            if knob in falling:
                ax.invert_xaxis()
            if len(measured) < 2:
                ax.text(0.5, 0.5, "this knob turns scenes only", transform=ax.transAxes, ha="center", color="0.4")
                ax.set_axis_off()
        row[0].set_ylabel(f"{title} (%)")
    handles, texts = axes[0, 0].get_legend_handles_labels()
    if handles:
        fig.legend(handles, texts, loc="outside right center", frameon=False, fontsize=12)
    sns.despine(fig)
    return fig


def _headings(ax: Axes, rows: Sequence[str], columns: Sequence[str], *, turned: bool = False) -> None:
    ax.xaxis.tick_top()
    turn = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"} if turned else {}
    ax.set_xticks(range(len(columns)), columns, fontsize=12, **turn)  # type: ignore[arg-type]
    ax.set_yticks(range(len(rows)), rows, fontsize=12.5)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _label_points(ax: Axes, x: np.ndarray, y: np.ndarray, texts: np.ndarray, column: float, side: str) -> None:
    """Write the points' names in one column, pushed apart, each with a line to its point."""
    if not len(x):
        return
    low, high = ax.get_ylim()
    step = 0.048 * (high - low)
    order = np.argsort(y)
    for k, level in zip(order, _apart(y[order], step, low + step / 2, high - step / 2), strict=True):
        ax.plot([x[k], column], [y[k], level], color="0.6", linewidth=0.8, zorder=2)
        ax.text(column, level, f" {texts[k]} ", ha=side, va="center", fontsize=11)


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
