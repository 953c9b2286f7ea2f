"""Figures of one object per image: boxes over maps, what is wrong with a map, and what each cure is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Dataset

from wsolnb.boxes import iou
from wsolnb.boxes.quantise import minmax_normalise
from wsolnb.localization.locate import LocalizationResult
from wsolnb.metrics.bootstrap import Interval
from wsolnb.plots.style import HEAT, TRUTH, draw_boxes, judge_box, show_picture

_LINES = ("-", "--", "-.", ":")


def show_located(
    images: Dataset[Any], ways: Mapping[str, LocalizationResult], indices: Sequence[int], classes: Sequence[str]
) -> Figure:
    """A column per image, a row per way: the true class's map with the predicted box, the true box in white.

    The number in each panel is the overlap (IoU) of the two boxes; green from 0.5 on, orange below.

    Example:
        >>> from wsolnb.boxes import BoxRule
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.localization.locate import tune_and_evaluate
        >>> from wsolnb.localization.maps import LocalizationMaps
        >>> images = World(size=32).singles(2)
        >>> boxes, labels = [images[k][1]["boxes"].as_subclass(Tensor) for k in range(2)], torch.tensor([0, 1])
        >>> found = LocalizationMaps(torch.rand(2, 8, 8), torch.zeros(2, 12), labels, boxes, (32, 32))
        >>> fig = show_located(images, {"cam": tune_and_evaluate(found, found, BoxRule(), thresholds=10)}, [0, 1], images.classes)
        >>> len(fig.axes), fig.axes[2].get_ylabel()
        (4, 'cam')
    """
    fig, axes = plt.subplots(
        len(ways) + 1, len(indices), figsize=(1.55 * len(indices), 1.55 * (len(ways) + 1)), squeeze=False
    )
    for ax, index in zip(axes[0], indices, strict=True):
        image, target = images[index]
        show_picture(ax, image)
        ax.set_title(classes[int(target["labels"][0])], fontsize=11)
    for row, (name, way) in zip(axes[1:], ways.items(), strict=True):
        heat = way.maps.subset(torch.tensor(list(indices))).upsampled()
        for ax, index, values, box in zip(row, indices, heat, way.boxes(indices), strict=True):
            ax.imshow(values.numpy(), cmap=HEAT, vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            judge_box(ax, box[None], way.maps.boxes[index])
        row[0].set_ylabel(name, fontsize=12, fontweight="bold")
    return fig


def plot_components(
    measured: Mapping[str, Mapping[str, Interval]],
    names: Mapping[str, str],
    *,
    metric: str = "gt_known",
    title: str = "",
    baselines: Mapping[str, float] | None = None,
) -> Figure:
    """One number of several ways with 95 % intervals, a row per way; baselines as upright lines.

    Example:
        >>> measured = {"cam": {"gt_known": Interval(0.5, 0.4, 0.6)}, "tap": {"gt_known": Interval(0.6, 0.5, 0.7)}}
        >>> fig = plot_components(measured, {"cam": "CAM", "tap": "+ TAP"}, title="GT-known", baselines={"centre": 0.3})
        >>> [text.get_text() for text in fig.axes[0].texts], fig.axes[0].get_xlabel()
        (['50.0', '60.0'], 'GT-known (%)')
    """
    rows = [name for name in names if name in measured]
    fig, ax = plt.subplots(figsize=(8, 0.4 * len(rows) + (1.7 if baselines else 1.3)))
    for place, name in enumerate(rows):
        score = measured[name][metric]
        count = name.count("+") + (name != "cam")
        colour = sns.color_palette("viridis_r", 5)[min(count, 3) + 1]
        ax.plot([100 * score.low, 100 * score.high], [place, place], color=colour, linewidth=4, solid_capstyle="butt")
        ax.plot(100 * score.value, place, "o", color=colour, markersize=11)
        ax.text(100 * score.high + 0.8, place, f"{100 * score.value:.1f}", va="center", fontsize=11.5)
    for k, (name, value) in enumerate((baselines or {}).items()):
        ax.axvline(100 * value, color="0.45", linewidth=1.5, linestyle=_LINES[1 + k % 3], label=name)
    if baselines:
        ax.legend(frameon=False, fontsize=11, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    ax.set_yticks(range(len(rows)), [names[name] for name in rows])
    ax.set(xlabel=f"{title} (%)", ylim=(len(rows) - 0.5, -0.5))
    ax.margins(x=0.1)
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    sns.despine(fig, left=True)
    return fig


def plot_thresholds(ways: Mapping[str, LocalizationResult]) -> Figure:
    """GT-known localization over the threshold, a line per way; a dot marks the threshold chosen on held-out images.

    Example:
        >>> from wsolnb.boxes import BoxRule
        >>> from wsolnb.localization.locate import tune_and_evaluate
        >>> from wsolnb.localization.maps import LocalizationMaps
        >>> heat = torch.full((1, 8, 12), 0.4)
        >>> heat[0, 2:6, 3:9], heat[0, 0, 0] = 1.0, 0.0
        >>> truth = (torch.zeros(1, 2), torch.tensor([0]), [torch.tensor([[3.0, 2.0, 9.0, 6.0]])], (8, 12))
        >>> found = LocalizationMaps(heat, *truth)
        >>> fig = plot_thresholds({"cam": tune_and_evaluate(found, found, BoxRule(), thresholds=10)})
        >>> [float(value) for value in fig.axes[0].lines[0].get_ydata()]
        [0.0, 0.0, 0.0, 0.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0]
    """
    fig, ax = plt.subplots(figsize=(8.6, 3.2))
    for k, (name, way) in enumerate(ways.items()):
        thresholds, accuracy = way.curve()
        ax.plot(thresholds.numpy(), 100 * accuracy.numpy(), _LINES[k % 4], color=f"C{k}", linewidth=2.5, label=name)
        chosen = way.rule.threshold
        ax.plot(chosen, 100 * float(way.metric.at(chosen)["gt_known"]), "o", color=f"C{k}", markersize=10)
    ax.set(xlabel="threshold (share of the reference)", ylabel="GT-known localization (%)", xlim=(0, 1), ylim=(0, None))
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    sns.despine(fig)
    return fig


def show_thresholds(image: Tensor, heat: Tensor, cuts: Sequence[float], boxes: Tensor, truth: Tensor) -> Figure:
    """One map cut at several thresholds: what is kept, and the box around its largest piece.

    Args:
        image: `(3, H, W)`.
        heat: The map at the image's size, `(H, W)`.
        cuts: Thresholds, shares of the map's maximum.
        boxes: The box at each, `(n, 4)`.
        truth: True boxes `(m, 4)`.

    Example:
        >>> heat = torch.zeros(32, 48)
        >>> heat[8:24, 12:36], heat[12:20, 16:24] = 0.3, 1.0
        >>> boxes = torch.tensor([[12.0, 8.0, 36.0, 24.0], [16.0, 12.0, 24.0, 20.0]])
        >>> fig = show_thresholds(torch.rand(3, 32, 48), heat, [0.2, 0.5], boxes, boxes[:1])
        >>> [ax.get_title() for ax in fig.axes]
        ['map', 'above 20%: IoU 1.00', 'above 50%: IoU 0.17']
    """
    fig, axes = plt.subplots(1, len(cuts) + 1, figsize=(2.6 * (len(cuts) + 1), 2.8), squeeze=False)
    axes[0, 0].imshow(minmax_normalise(heat[None])[0].numpy(), cmap=HEAT)
    axes[0, 0].set_title("map", fontsize=12)
    axes[0, 0].set_axis_off()
    blue = sns.color_palette("colorblind")[0]
    for ax, cut, box in zip(axes[0, 1:], cuts, boxes, strict=True):
        kept = (heat > cut * heat.max()).float()
        pixels = image.as_subclass(Tensor).float() / (255 if image.dtype == torch.uint8 else 1)
        show_picture(ax, pixels * (0.25 + 0.75 * kept))
        draw_boxes(ax, truth, [0] * len(truth), {0: TRUTH})
        if bool(box.isfinite().all()):
            draw_boxes(ax, box[None], [0], {0: blue}, dashed=True)
        overlap = float(iou(box[None].double(), truth.double()).max()) if bool(box.isfinite().all()) else 0.0
        ax.set_title(f"above {cut:.0%}: IoU {overlap:.2f}", fontsize=11)
    return fig
