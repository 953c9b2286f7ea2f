"""Figures of numbers: training accuracy over epochs, measured numbers with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, Literal

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wsolnb.metrics.bootstrap import Interval
from wsolnb.plots.style import BESIDE, LINES, method_colour, name_intervals
from wsolnb.train import Training


def plot_training(runs: Mapping[str, Training]) -> Figure:
    """Accuracy on the training images over epochs, a line per network.

    Example:
        >>> history = [{"epoch": 1, "accuracy": 0.25}, {"epoch": 2, "accuracy": 0.75}]
        >>> fig = plot_training({"cam": Training(history)})
        >>> fig.axes[0].lines[0].get_ydata().tolist()
        [25.0, 75.0]
    """
    fig, ax = plt.subplots(figsize=(7, 3.4))
    for style, (name, training) in zip(cycle(LINES), runs.items(), strict=False):
        epochs = [row["epoch"] for row in training.history]
        accuracy = [100 * row["accuracy"] for row in training.history]
        ax.plot(epochs, accuracy, style, marker="o", linewidth=2.5, label=name)
    ax.set(xlabel="epoch", ylabel="training accuracy (%)", ylim=(0, 103))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False)
    sns.despine(fig)
    return fig


def plot_measured(measured: Mapping[str, Mapping[str, Interval]], metrics: Mapping[str, str]) -> Figure:
    """Measured numbers in percent with 95 % intervals: a group per metric, a bar per method.

    Example:
        >>> measured = {"cam": {"ap50": Interval(0.4, 0.3, 0.5)}, "dcm-semantic": {"ap50": Interval(0.6, 0.5, 0.7)}}
        >>> fig = plot_measured(measured, {"ap50": "AP at IoU 0.5"})
        >>> [text.get_text() for text in fig.axes[0].texts]
        ['40', '60']
    """
    fig, ax = plt.subplots(figsize=(2.6 * len(metrics) + 3.2, 3.9))
    width = 0.8 / len(measured)
    for k, (name, row) in enumerate(measured.items()):
        bars = [row[metric] for metric in metrics]
        centres = [x + (k - (len(measured) - 1) / 2) * width for x in range(len(metrics))]
        errors = [[100 * (bar.value - bar.low) for bar in bars], [100 * (bar.high - bar.value) for bar in bars]]
        values = [100 * bar.value for bar in bars]
        ax.bar(centres, values, width * 0.92, yerr=errors, capsize=4, color=method_colour(name), label=name)
        for x, value, bar in zip(centres, values, bars, strict=True):
            ax.text(x, 100 * bar.high + 1.5, f"{value:.0f}", ha="center", fontsize=10.5)
    ax.set_xticks(range(len(metrics)), list(metrics.values()))
    ax.set(ylabel="%", ylim=(0, 112))
    ax.legend(**BESIDE)
    sns.despine(fig)
    name_intervals(fig)
    return fig


def plot_components(
    measured: Mapping[str, Mapping[str, Interval]],
    names: Mapping[str, str],
    *,
    metric: str = "gt_known",
    title: str = "",
    baselines: Mapping[str, float] | None = None,
) -> Figure:
    """One metric in percent with 95 % intervals, a row per method; baselines as vertical lines.

    Example:
        >>> measured = {"cam": {"gt_known": Interval(0.5, 0.4, 0.6)}, "tap": {"gt_known": Interval(0.6, 0.5, 0.7)}}
        >>> fig = plot_components(measured, {"cam": "CAM", "tap": "+ TAP"}, title="GT-known", baselines={"centre": 0.3})
        >>> [text.get_text() for text in fig.axes[0].texts], fig.axes[0].get_xlabel()
        (['50.0', '60.0'], 'GT-known (%)')
    """
    rows = [name for name in names if name in measured]
    fig, ax = plt.subplots(figsize=(8, 0.4 * len(rows) + (1.7 if baselines else 1.3)))
    scores = [measured[name][metric] for name in rows]
    draw_intervals(ax, scores, [names[name] for name in rows], [method_colour("cam")] * len(rows))
    for y, score in enumerate(scores):
        ax.text(100 * score.high + 0.8, y, f"{100 * score.value:.1f}", va="center", fontsize=11.5)
    for style, (name, value) in zip(cycle(LINES[1:]), (baselines or {}).items(), strict=False):
        ax.axvline(100 * value, color="0.45", linewidth=1.5, linestyle=style, label=name)
    if baselines:
        ax.legend(frameon=False, fontsize=11, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    ax.set(xlabel=f"{title} (%)", ylim=(len(rows) - 0.5, -0.5))
    ax.margins(x=0.1)
    name_intervals(fig)
    return fig


def draw_intervals(
    ax: Axes,
    scores: Sequence[Interval],
    labels: Sequence[str],
    colours: Sequence[Any],
    *,
    markersize: float = 11,
    capstyle: Literal["butt", "round"] = "butt",
) -> None:
    """Draw numbers in percent, each a dot on the line of its interval, from the first at y = 0 upwards.

    Example:
        >>> fig, ax = plt.subplots()
        >>> draw_intervals(ax, [Interval(0.5, 0.4, 0.6)], ["CAM"], ["C0"])
        >>> ax.lines[0].get_xdata().tolist()
        [40.0, 60.0]
    """
    for y, (score, colour) in enumerate(zip(scores, colours, strict=True)):
        ax.plot([100 * score.low, 100 * score.high], [y, y], color=colour, linewidth=4, solid_capstyle=capstyle)
        ax.plot(100 * score.value, y, "o", color=colour, markersize=markersize)
    ax.set_yticks(range(len(labels)), labels)
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    sns.despine(ax=ax, left=True)
