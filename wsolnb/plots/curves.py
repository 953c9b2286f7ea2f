"""Figures of numbers: training, tuning, precision over recall, measured beside reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from wsolnb.metrics.bootstrap import Interval
from wsolnb.metrics.detection import DetectionAP
from wsolnb.plots.style import method_colour
from wsolnb.train import Training

_LINES = ("-", "--", "-.", ":")


def plot_training(runs: Mapping[str, Training]) -> Figure:
    """Accuracy on the training images over epochs, a line per network.

    Example:
        >>> history = [{"epoch": 1, "accuracy": 0.25}, {"epoch": 2, "accuracy": 0.75}]
        >>> fig = plot_training({"cam": Training(history)})
        >>> fig.axes[0].lines[0].get_ydata().tolist()
        [25.0, 75.0]
    """
    fig, ax = plt.subplots(figsize=(7, 3.4))
    for style, (name, training) in zip(_LINES * len(runs), runs.items(), strict=False):
        epochs = [r["epoch"] for r in training.history]
        ax.plot(epochs, [100 * r["accuracy"] for r in training.history], style, marker="o", linewidth=2.5, label=name)
    ax.set(xlabel="epoch", ylabel="training accuracy (%)", ylim=(0, 103))
    ax.legend(frameon=False)
    sns.despine(fig)
    return fig


def plot_tuning(curves: Mapping[str, Mapping[float, float]], *, iou: float) -> Figure:
    """Mean AP on training scenes over the threshold of the box rule, a line per method; a dot marks the one chosen.

    Example:
        >>> fig = plot_tuning({"cam": {0.2: 0.1, 0.4: 0.3, 0.6: 0.2}}, iou=0.5)
        >>> fig.axes[0].lines[1].get_xdata().tolist()  # the dot
        [0.4]
    """
    fig, ax = plt.subplots(figsize=(7.5, 3.8))
    for style, (name, curve) in zip(_LINES * len(curves), curves.items(), strict=False):
        best = max(curve, key=lambda t: curve[t])
        colour = method_colour(name)
        ax.plot(list(curve), [100 * v for v in curve.values()], style, color=colour, linewidth=2.5, label=name)
        ax.plot([best], [100 * curve[best]], "o", color=colour, markersize=10)
    ax.set(xlabel="box threshold (share of the map's maximum)", ylabel=f"mAP at IoU {iou:g} (%)", xlim=(0, 1))
    ax.set_title("tuned on training scenes")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    sns.despine(fig)
    return fig


def plot_precision_recall(judged: Mapping[str, DetectionAP], ious: Sequence[float]) -> Figure:
    """Precision over recall, all classes pooled, one panel per IoU threshold (barz2022 Fig. 4).

    Example:
        >>> import torch
        >>> judged = DetectionAP(classes=1, iou_thresholds=(0, 0.5))
        >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 9.0, 9.0]]), "labels": torch.tensor([0])}
        >>> judged.update([truth | {"scores": torch.tensor([0.8])}], [truth])
        >>> fig = plot_precision_recall({"cam": judged}, [0, 0.5])
        >>> fig.axes[1].get_title(), fig.axes[1].get_legend().get_texts()[0].get_text()
        ('IoU at least 0.5', 'cam (mAP 100.0 %)')
    """
    fig, axes = plt.subplots(1, len(ious), figsize=(5.6 * len(ious), 4.2), sharey=True, squeeze=False)
    for ax, iou in zip(axes[0], ious, strict=True):
        for style, (name, metric) in zip(_LINES * len(judged), judged.items(), strict=False):
            recall, precision = metric.curve(iou)
            reached = precision > 0
            mean = 100 * float(metric.compute()[f"mAP@{iou:g}"])
            ax.plot(
                recall[reached], precision[reached], style,
                color=method_colour(name), linewidth=2.5, label=f"{name} (mAP {mean:.1f} %)",
            )  # fmt: skip
        ax.set(title=f"IoU at least {iou:g}", xlabel="recall", xlim=(0, 1), ylim=(0, 1.03))
        ax.legend(frameon=False, loc="lower left", fontsize=10.5)
    axes[0, 0].set_ylabel("precision")
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
        bars = [row[m] for m in metrics]
        places = [x + (k - (len(measured) - 1) / 2) * width for x in range(len(metrics))]
        errors = [[100 * (b.value - b.low) for b in bars], [100 * (b.high - b.value) for b in bars]]
        values = [100 * b.value for b in bars]
        ax.bar(places, values, width * 0.92, yerr=errors, capsize=4, color=method_colour(name), label=name)
        for x, value, bar in zip(places, values, bars, strict=True):
            ax.text(x, 100 * bar.high + 1.5, f"{value:.0f}", ha="center", fontsize=10.5)
    ax.set_xticks(range(len(metrics)), list(metrics.values()))
    ax.set(ylabel="%", ylim=(0, 112))
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    sns.despine(fig)
    return fig
