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

from wsolnb.metrics.bootstrap import Interval
from wsolnb.objects import Located
from wsolnb.overlap import iou
from wsolnb.plots.style import HEAT, TRUTH, draw_boxes, judge_box, show_picture
from wsolnb.quantise import minmax

_LINES = ("-", "--", "-.", ":")


def show_located(
    images: Dataset[Any], ways: Mapping[str, Located], indices: Sequence[int], classes: Sequence[str]
) -> Figure:
    """A column per image, a row per way: the true class's map with the predicted box, the true box in white.

    The number in each panel is the overlap (IoU) of the two boxes; green from 0.5 on, orange below.
    """
    fig, axes = plt.subplots(
        len(ways) + 1, len(indices), figsize=(1.55 * len(indices), 1.55 * (len(ways) + 1)), squeeze=False
    )
    for ax, index in zip(axes[0], indices, strict=True):
        image, target = images[index]
        show_picture(ax, image)
        ax.set_title(classes[int(target["labels"][0])], fontsize=9)
    for row, (name, way) in zip(axes[1:], ways.items(), strict=True):
        heat = way.found.part(torch.tensor(list(indices))).enlarged()
        for ax, index, values, box in zip(row, indices, heat, way.boxes(indices), strict=True):
            ax.imshow(values.numpy(), cmap=HEAT, vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            judge_box(ax, box[None], way.found.boxes[index])
        row[0].set_ylabel(name, fontsize=10, fontweight="bold")
    return fig


def plot_areas(areas: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Weight of a channel over its activated area, a panel per network (bae2020 P1, Fig. 2).

    Args:
        areas: Name of the network to the activated area of channels, in [0, 1], and their largest weights.
    """
    fig, axes = plt.subplots(1, len(areas), figsize=(4.2 * len(areas), 3.1), sharex=True, squeeze=False)
    for colour, ax, (name, (area, weight)) in zip(("C0", "C1", "C2"), axes[0], areas.items(), strict=False):
        live = area > 0
        ax.scatter(100 * area[live].numpy(), weight[live].numpy(), s=38, color=colour, edgecolor="white", linewidth=0.5)
        order = area[live].argsort()
        thirds = [part for part in order.chunk(3) if len(part)]
        means = [(100 * float(area[live][part].mean()), float(weight[live][part].mean())) for part in thirds]
        ax.plot(*zip(*means, strict=True), "-D", color="black", linewidth=2, markersize=7, label="mean of each third")
        ax.set(title=name, xlabel="activated area (% of the cells)", xlim=(0, None), ylim=(0, None))
    axes[0, 0].legend(frameon=False, fontsize=10.5, loc="upper left")
    axes[0, 0].set_ylabel("largest weight")
    fig.suptitle("every dot a channel", fontsize=12)
    sns.despine(fig)
    return fig


def show_parts(image: Tensor, maps: Mapping[str, Tensor]) -> Figure:
    """An image and maps `(h, w)` of it on one common scale with zero at the middle of the colours."""
    fig, axes = plt.subplots(1, len(maps) + 1, figsize=(2.2 * (len(maps) + 1), 2.2), squeeze=False)
    show_picture(axes[0, 0], image)
    axes[0, 0].set_title("image", fontsize=12)
    top = max(float(values.abs().max()) for values in maps.values())
    drawn = None
    for ax, (name, values) in zip(axes[0, 1:], maps.items(), strict=True):
        drawn = ax.imshow(values.float().cpu().numpy(), cmap="RdBu_r", vmin=-top, vmax=top, interpolation="nearest")
        ax.set_title(name, fontsize=12)
        ax.set_axis_off()
    if drawn is not None:
        fig.colorbar(drawn, ax=axes[0, 1:].tolist(), shrink=0.8)
    return fig


def plot_inside(shares: Mapping[str, Tensor], *, chance: float | None = None) -> Figure:
    """How much of each activated region lies in the object: a curve per kind of map (bae2020 P2, Fig. 3b).

    Args:
        shares: Name to one share per image, in [0, 1]; NaN is left out.
        chance: Share of the image that the objects take; marked.
    """
    fig, ax = plt.subplots(figsize=(8.6, 3.0))
    for k, (name, values) in enumerate(shares.items()):
        known = values[values.isfinite()]
        label = f"{name}\n(mean {100 * float(known.mean()):.0f} %)"
        sns.ecdfplot(100 * known.numpy(), ax=ax, color=f"C{k}", linestyle=_LINES[k], linewidth=2.5, label=label)
    if chance is not None:
        ax.axvline(
            100 * chance,
            color="0.4",
            linewidth=1.5,
            linestyle=":",
            label=f"the box's share\nof the image ({chance:.0%})",
        )
    ax.set(xlabel="share of the activated region inside the true box (%)", ylabel="images below it", xlim=(0, 100))
    ax.legend(frameon=False, fontsize=11, loc="center left", bbox_to_anchor=(1, 0.5))
    sns.despine(fig)
    return fig


def plot_sorted(curves: Mapping[str, Tensor], threshold: Mapping[str, float]) -> Figure:
    """Sorted activations in units of a reference, a panel per reference (bae2020 P3, Fig. 4).

    Args:
        curves: Name of the reference to `(N, P)`, from `wsolnb.analysis.sorted_activations`.
        threshold: Fraction of the reference at which the box is cut, by the same names.
    """
    fig, axes = plt.subplots(1, len(curves), figsize=(4.3 * len(curves), 3.2), squeeze=False)
    for ax, (name, values) in zip(axes[0], curves.items(), strict=True):
        values = values[values.isfinite().all(dim=1)]
        places = torch.linspace(0, 100, values.shape[1])
        for row in values[:20]:
            ax.plot(places.numpy(), row.numpy(), color="0.6", linewidth=0.6, alpha=0.7)
        kept = 100 * (values > threshold[name]).double().mean(dim=1)
        low, high = (float(q) for q in kept.quantile(torch.tensor([0.1, 0.9], dtype=torch.float64)))
        ax.axhline(threshold[name], color="C1", linewidth=2.5)
        ax.axvspan(low, high, color="C0", alpha=0.25, label=f"kept: {low:.0f} to {high:.0f} % of the image")
        ax.set(title=f"in units of the {name}", xlabel="pixels, from the brightest (%)", xlim=(0, 100), ylim=(0, 2.2))
        ax.legend(
            frameon=False, fontsize=10.5, loc="upper right", title="the cut, in 8 of 10 images", title_fontsize=10.5
        )
    axes[0, 0].set_ylim(0, 1.03)
    axes[0, 0].set_ylabel("activation")
    sns.despine(fig)
    return fig


def plot_components(
    measured: Mapping[str, Mapping[str, Interval]],
    names: Mapping[str, str],
    *,
    metric: str = "gt_known",
    title: str = "",
    baselines: Mapping[str, float] | None = None,
) -> Figure:
    """One number of several ways with 95 % intervals, a row per way; baselines as upright lines."""
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
    ax.invert_yaxis()
    ax.set(xlabel=f"{title} (%)")
    ax.margins(x=0.1)
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    sns.despine(fig, left=True)
    return fig


def plot_thresholds(ways: Mapping[str, Located]) -> Figure:
    """GT-known localization over the threshold, a line per way; a dot marks the threshold chosen on held-out images."""
    fig, ax = plt.subplots(figsize=(8.6, 3.2))
    for k, (name, way) in enumerate(ways.items()):
        thresholds, accuracy = way.curve()
        ax.plot(thresholds.numpy(), 100 * accuracy.numpy(), _LINES[k % 4], color=f"C{k}", linewidth=2.5, label=name)
        chosen = way.rule.threshold
        ax.plot(chosen, 100 * float(way.judged.at(chosen)["gt_known"]), "o", color=f"C{k}", markersize=10)
    ax.set(xlabel="threshold (share of the reference)", ylabel="GT-known localization (%)", xlim=(0, 1), ylim=(0, None))
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    sns.despine(fig)
    return fig


def plot_covered(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """How much of each part of the object is covered: a panel per part, a bar per way.

    Args:
        shares: Name of the way to a share in [0, 1] for every part.
    """
    parts = list(next(iter(shares.values())))
    height = 0.36 * len(shares) + 1.0
    fig, axes = plt.subplots(1, len(parts), figsize=(2.9 * len(parts), height), sharey=True, squeeze=False)
    for ax, part in zip(axes[0], parts, strict=True):
        values = [100 * each[part] for each in shares.values()]
        bars = ax.barh(list(shares), values, color=[f"C{k}" for k in range(len(shares))])
        ax.bar_label(bars, fmt="%.0f", padding=3, fontsize=11)
        ax.set(title=part, xlabel="covered (%)", xlim=(0, 118), xticks=(0, 50, 100))
    axes[0, 0].invert_yaxis()
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
    """
    fig, axes = plt.subplots(1, len(cuts) + 1, figsize=(2.6 * (len(cuts) + 1), 2.8), squeeze=False)
    axes[0, 0].imshow(minmax(heat[None])[0].numpy(), cmap=HEAT)
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
