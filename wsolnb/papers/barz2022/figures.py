"""Figures of three networks and three readings: scenes, maps, thresholds, precision over recall, chance similarity.

Paper: https://doi.org/10.5220/0010760800003124
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.utils.data import Dataset

from wsolnb.localization.detect import Prediction
from wsolnb.localization.maps import SceneMaps
from wsolnb.metrics.bootstrap import Interval
from wsolnb.metrics.detection import DetectionAP
from wsolnb.papers.barz2022.evaluate import NETWORKS, Scale
from wsolnb.papers.barz2022.maps import dense_class_map
from wsolnb.plots.style import HEAT, draw_outlines, show_picture

READINGS = ("CAM, pooled score", "CAM, cell-wise score", "dense class map")
"""The columns of the grid, in the order of `NETWORKS`."""

_STYLES = (("-", "0.45"), ("--", "C1"), ("-", "C0"))  # of the readings
_GROUND, _OBJECTS = "0.6", "C0"


def show_data(
    singles: Sequence[tuple[Tensor, Any]],
    scene: tuple[Tensor, Mapping[str, Any]],
    classes: Sequence[str],
    colours: Sequence[str],
) -> Figure:
    """Training images, titled with their classes, and a test scene with its true boxes in class colours.

    Example:
        >>> from wsolnb.data.critters import World
        >>> world = World(families=2, species=2, size=32)
        >>> singles, scene = world.singles(2), world.scenes(1, size=(48, 64))[0]
        >>> fig = show_data([singles[0], singles[1]], scene, world.classes, ["C0", "C1", "C2", "C3"])
        >>> [ax.get_title().split(":")[0] for ax in fig.axes]
        ['training', 'training', 'test']
    """
    ratios = [*(1 for _ in singles), 1.75]
    fig, axes = plt.subplots(1, len(ratios), figsize=(10, 3.8), width_ratios=ratios)
    for ax, (image, target) in zip(axes, singles, strict=False):
        show_picture(ax, image)
        name = classes[int(target["labels"] if isinstance(target, Mapping) else target)]
        ax.set_title(f"training: {name}", fontsize=14)
    labels = scene[1]["labels"].tolist()
    show_picture(axes[-1], scene[0])
    _draw_classes(axes[-1], scene[1]["boxes"], labels, set(labels), colours)
    axes[-1].set_title("test: several objects", fontsize=14)
    handles = _key(set(labels), set(labels), classes, colours)
    fig.legend(handles=handles, loc="outside lower right", fontsize=13, ncols=4, frameon=False)
    return fig


def show_grid(
    scenes: Dataset[Any],
    classes: Sequence[str],
    index: int,
    found: Mapping[str, Sequence[Prediction]],
    colours: Sequence[str],
) -> Figure:
    """One scene, what is there, and what each of the nine readings finds (barz2022 Figs. 1 and 5).

    A box is solid if its class is in the scene, dashed if not; `found` are the detections of all scenes by reading,
    `colours` those of all classes.

    Example:
        >>> from wsolnb.data.critters import World
        >>> scenes = World(families=2, species=2, size=32).scenes(1, size=(48, 64))
        >>> perfect = [scenes[0][1] | {"scores": torch.ones(len(scenes[0][1]["labels"]))}]
        >>> found = {name: perfect for row in NETWORKS.values() for name in row}
        >>> fig = show_grid(scenes, scenes.classes, 0, found, ["C0", "C1", "C2", "C3"])
        >>> fig.axes[1].get_title(), fig.axes[1].get_ylabel()
        ('CAM, pooled score', 'cross-entropy')
    """
    image, target = scenes[index]
    there = set(target["labels"].tolist())
    fig = plt.figure(figsize=(10, 6.2))
    spec = fig.add_gridspec(3, 4, width_ratios=[1.2, 1, 1, 1])
    pixels = image.as_subclass(Tensor).float() / (255 if image.dtype == torch.uint8 else 1)
    soft = avg_pool2d(pixels, 5, 1, 2, count_include_pad=False)  # boxes stand out, and the stored picture is smaller
    truth = fig.add_subplot(spec[:, 0])
    show_picture(truth, avg_pool2d(pixels, 3, 1, 1, count_include_pad=False))
    _draw_classes(truth, target["boxes"], target["labels"].tolist(), there, colours)
    truth.set_title("what is there", fontsize=17)
    named = set(there)
    for row, (network, names) in enumerate(NETWORKS.items()):
        for column, (reading, name) in enumerate(zip(READINGS, names, strict=True)):
            ax = fig.add_subplot(spec[row, column + 1])
            labels = found[name][index]["labels"].tolist()
            show_picture(ax, soft, dim=0.45)
            ax.set_axis_on()
            ax.set(xticks=[], yticks=[])
            sns.despine(ax=ax, left=True, bottom=True)
            _draw_classes(ax, found[name][index]["boxes"].float().cpu(), labels, there, colours)
            if not row:
                ax.set_title(reading, fontsize=14)
            if not column:
                ax.set_ylabel(network.replace(" ", "\n"), fontsize=11.5, fontweight="bold")
            wrong = len(set(labels) - there)
            ax.set_xlabel(f"{len(there & set(labels))} of {len(there)} named, {wrong} wrong", fontsize=13)
            named |= set(labels)
    handles = _key(named, there, classes, colours)
    fig.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=13, frameon=False)
    return fig


def _draw_classes(ax: Axes, boxes: Tensor, labels: Sequence[int], there: set[int], colours: Sequence[str]) -> None:
    for box, label in zip(boxes.as_subclass(Tensor), labels, strict=True):
        draw_outlines(ax, box[None], to_rgb(colours[label]), dashed=label not in there)


def _key(named: set[int], there: set[int], classes: Sequence[str], colours: Sequence[str]) -> list[Patch]:
    return [Patch(color=colours[k], label=classes[k] + ("" if k in there else " (not there)")) for k in sorted(named)]


def show_class_maps(maps: Mapping[str, SceneMaps], index: int, label: int, *, title: str = "") -> Figure:
    """The maps of one class in one scene, with the true boxes of the class: class activation and dense class maps.

    Every class activation map has a scale of its own, the dense class maps share one from 0 to 1.

    Example:
        >>> target = {"boxes": torch.tensor([[4.0, 4.0, 20.0, 30.0]]), "labels": torch.tensor([2])}
        >>> one = SceneMaps([torch.rand(4, 6, 8)], torch.rand(1, 4), torch.tensor([[48, 64]]), [target])
        >>> fig = show_class_maps({name: one for row in NETWORKS.values() for name in row}, 0, 2)
        >>> [ax.get_title() for ax in fig.axes if ax.get_title()]
        ['cross-entropy', 'cosine, one-hot', 'cosine, semantic']
    """
    target = maps["cam"].targets[index]
    boxes = target["boxes"].as_subclass(Tensor)[target["labels"].as_subclass(Tensor) == label]
    fig, axes = plt.subplots(2, 3, figsize=(8.6, 4.9))
    fig.suptitle(title, fontsize=17, fontweight="bold")
    for column, (network, (cam, _, dense)) in zip(axes.T, NETWORKS.items(), strict=True):
        for ax, name, limits in ((column[0], cam, {}), (column[1], dense, {"vmin": 0, "vmax": 1})):
            height, width = maps[name].sizes[index].tolist()
            values = maps[name].maps[index][label].float().cpu().numpy()
            panel = ax.imshow(values, cmap=HEAT, extent=(0, width, height, 0), interpolation="nearest", **limits)
            draw_outlines(ax, boxes)
            ax.set(xticks=[], yticks=[])
            fig.colorbar(panel, ax=ax, shrink=0.85).ax.tick_params(labelsize=12)
        column[0].set_title(network, fontsize=15)
    for ax, reading in zip(axes[:, 0], ("class activation map", "dense class map"), strict=True):
        ax.set_ylabel(reading, fontsize=14, fontweight="bold")
    return fig


def show_activations(
    values: Mapping[str, Sequence[Tensor]], covered: Sequence[Tensor], index: int, scales: Mapping[str, Scale]
) -> Figure:
    """The largest class value of every cell: a map of one image above the histogram over many (barz2022 Fig. 2).

    `values` are maps `(h, w)` of all images by title, `covered` the fraction of each cell that objects cover, `scales`
    what `wsolnb.papers.barz2022.evaluate.cell_scale` made of both. The line is the best threshold for all images.

    Example:
        >>> from wsolnb.papers.barz2022.evaluate import cell_scale
        >>> values, covered = [torch.rand(6, 8) for _ in range(3)], [torch.eye(8)[:6] for _ in range(3)]
        >>> fig = show_activations({"softmax": values}, covered, 0, {"softmax": cell_scale(values, covered)})
        >>> fig.axes[0].get_title(), len(fig.axes[1].patches)
        ('softmax', 2)
    """
    fig, axes = plt.subplots(2, len(values), figsize=(2.75 * len(values), 4.3), height_ratios=[1.25, 1], squeeze=False)
    fraction = torch.cat([cells.flatten() for cells in covered])
    for (title, maps), (top, below) in zip(values.items(), axes.T, strict=True):
        cells = torch.cat([m.flatten() for m in maps]).float()
        low, high = cells.min().item(), cells.max().item()
        unit = low >= -1e-6 and high <= 1 + 1e-6
        low, high = (0.0, 1.0) if unit else (low, high)
        top.imshow(maps[index].float().numpy(), cmap=HEAT, vmin=low, vmax=high)
        top.set(xticks=[], yticks=[])
        top.set_title(title, fontsize=14)
        edges = np.linspace(low, high, 41)
        for part, colour, label in ((fraction == 0, _GROUND, "ground"), (fraction > 0.5, _OBJECTS, "objects")):
            share, _ = np.histogram(cells[part].numpy(), edges)
            below.stairs(100 * share / max(1, share.sum()), edges, fill=True, alpha=0.65, color=colour, label=label)
        one, own = scales[title].accuracies
        below.axvline(scales[title].best, color="black", linewidth=2.5, linestyle="--")
        below.set(xlim=(low, high), yticks=[])
        below.set_xlabel(f"one threshold: {100 * one:.1f} %\none per scene: {100 * own:.1f} %")
        sns.despine(ax=below, left=True)
    axes[1, 0].set_ylabel("share of cells")
    axes[1, 0].legend(frameon=False, fontsize=12)
    return fig


def show_dense_class_maps(
    classes: Sequence[str],
    index: int,
    maps: Mapping[str, SceneMaps],
    presence: Mapping[str, float],
    sim_threshold: float,
    colours: Sequence[str],
) -> Figure:
    """The dense class map of one scene by each network, in class colours, with the true boxes (barz2022 Eq. 9, Fig. 1).

    `presence` is the score above which a class is present, by reading; cells above `sim_threshold` are coloured.

    Example:
        >>> target = {"boxes": torch.tensor([[4.0, 4.0, 20.0, 30.0]]), "labels": torch.tensor([2])}
        >>> one = SceneMaps([torch.rand(4, 6, 8)], torch.rand(1, 4), torch.tensor([[48, 64]]), [target])
        >>> names = [row[2] for row in NETWORKS.values()]
        >>> colours, both = ["C0", "C1", "C2", "C3"], (dict.fromkeys(names, one), dict.fromkeys(names, 0.1))
        >>> fig = show_dense_class_maps(["ant", "bee", "cat", "dog"], 0, *both, 0.1, colours)
        >>> [ax.get_title() for ax in fig.axes]
        ['cross-entropy', 'cosine, one-hot', 'cosine, semantic']
    """
    palette = torch.tensor([[0.93, 0.93, 0.93], *(to_rgb(colour) for colour in colours)])
    fig, axes = plt.subplots(1, 3, figsize=(12, 4.6))
    named: set[int] = set()
    for ax, (network, (_, _, name)) in zip(axes, NETWORKS.items(), strict=True):
        target, (height, width) = maps[name].targets[index], maps[name].sizes[index].tolist()
        labels = target["labels"].tolist()
        cells = dense_class_map(maps[name].maps[index][None].float(), presence[name], sim_threshold)[0].cpu()
        ax.imshow(palette[cells].numpy(), extent=(0, width, height, 0), interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_title(network, fontsize=15)
        _draw_classes(ax, target["boxes"], labels, set(labels), colours)
        named |= {*labels, *(k - 1 for k in cells.unique().tolist() if k)}
    handles = _key(named, set(labels), classes, colours)
    fig.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), fontsize=13, frameon=False)
    return fig


def plot_tuning(scenes: Mapping[str, Mapping[float, float]], singles: Mapping[str, Mapping[float, float]]) -> Figure:
    """The box threshold against AP at IoU 0.25 on scenes, and against the error on single objects; dots mark the best.

    Example:
        >>> curve = {0.1: 0.25, 0.5: 0.75, 0.9: 0.5}
        >>> both = [{name: curve for row in NETWORKS.values() for name in row}] * 2
        >>> fig = plot_tuning(*both)
        >>> fig.axes[0].lines[1].get_xdata().tolist(), fig.axes[3].lines[1].get_xdata().tolist()  # dots
        ([0.5], [0.1])
    """
    fig, axes = plt.subplots(2, 3, figsize=(10.4, 5.4), sharex=True, sharey="row")
    parts = (("AP, IoU 0.25 (%)\ntraining scenes", scenes, max), ("top-5 error (%)\nheld-out singles", singles, min))
    for k, (label, curves, choose) in enumerate(parts):
        for ax, (network, names) in zip(axes[k], NETWORKS.items(), strict=True):
            for name, reading, (style, colour) in zip(names, READINGS, _STYLES, strict=True):
                curve = curves[name]
                best = choose(curve, key=curve.__getitem__)
                values = [100 * value for value in curve.values()]
                ax.plot(list(curve), values, style, color=colour, linewidth=3, label=reading)
                ax.plot([best], [100 * curve[best]], "o", color=colour, markersize=11)
            ax.set(xscale="logit", ylim=(0, 103))
            if k == 0:
                ax.set_title(network)
            else:
                ax.set_xlabel("box threshold")
                ax.set_xticks([0.01, 0.1, 0.5, 0.9, 0.99], ["0.01", "0.1", "0.5", "0.9", "0.99"])
            ax.xaxis.set_minor_locator(NullLocator())
        axes[k, 0].set_ylabel(label)
    _legend_of_readings(fig, axes[0, 0])
    sns.despine(fig)
    return fig


def plot_precision_recall(metrics: Mapping[str, DetectionAP], ious: Sequence[float] = (0, 0.25)) -> Figure:
    """Precision over recall, all classes pooled: a column per network, a row per IoU threshold (barz2022 Fig. 4).

    Example:
        >>> metric = DetectionAP(classes=1, iou_thresholds=(0, 0.25))
        >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 9.0, 9.0]]), "labels": torch.tensor([0])}
        >>> metric.update([truth | {"scores": torch.tensor([0.8])}], [truth])
        >>> fig = plot_precision_recall({name: metric for row in NETWORKS.values() for name in row})
        >>> fig.axes[0].get_ylabel(), [text.get_text() for text in fig.axes[0].texts]
        ('precision, IoU 0', ['AP 100', 'AP 100', 'AP 100'])
    """
    fig, axes = plt.subplots(len(ious), 3, figsize=(9, 2.5 * len(ious) + 0.6), sharex=True, sharey=True, squeeze=False)
    for row, iou in zip(axes, ious, strict=True):
        for ax, (network, names) in zip(row, NETWORKS.items(), strict=True):
            for k, (name, reading, (style, colour)) in enumerate(zip(names, READINGS, _STYLES, strict=True)):
                recall, precision = metrics[name].curve(iou)
                reached = precision > 0
                ax.plot(recall[reached], precision[reached], style, color=colour, linewidth=3, label=reading)
                average = 100 * float(metrics[name].compute()[f"mAP@{iou:g}"])
                ax.text(0.03, 0.3 - 0.13 * k, f"AP {average:.0f}", color=colour, fontsize=15, weight="bold")
            if iou == ious[0]:
                ax.set_title(network)
            if iou == ious[-1]:
                ax.set_xlabel("recall")
            ax.set(xlim=(0, 1), ylim=(0, 1.03))
        row[0].set_ylabel(f"precision, IoU {iou:g}")
    _legend_of_readings(fig, axes[0, 0])
    sns.despine(fig)
    return fig


def _legend_of_readings(fig: Figure, ax: Axes) -> None:
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=14)


def plot_scale(measured: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """Which classes are there: balanced accuracy with one score threshold for all scenes, and with one for each scene.

    Example:
        >>> row = {"presence": Interval(0.75, 0.7, 0.8), "presence_own": Interval(0.875, 0.8, 0.9)}
        >>> fig = plot_scale({name: row for names in NETWORKS.values() for name in names})
        >>> fig.axes[0].texts[0].get_text()
        '12.5'
    """
    fig, axes = plt.subplots(1, 3, figsize=(10.5, 2.9), sharex=True, sharey=True)
    for ax, (network, names) in zip(axes, NETWORKS.items(), strict=True):
        for y, (name, (_, colour)) in enumerate(zip(names, _STYLES, strict=True)):
            one, own = (100 * measured[name][metric].value for metric in ("presence", "presence_own"))
            ax.plot([one, own], [y, y], color=colour, linewidth=5)
            ax.plot(one, y, "o", color=colour, markersize=13, label="one threshold for all scenes")
            ax.plot(own, y, "|", color=colour, markersize=22, markeredgewidth=4, label="one threshold per scene")
            ax.text((one + own) / 2, y - 0.2, f"{own - one:.1f}", ha="center", fontsize=14)
        ax.set(title=network, xlim=(50, 102), ylim=(2.5, -0.7), xlabel="balanced accuracy (%)")
        ax.set_yticks(range(3), READINGS)
        ax.grid(axis="x", color="0.9")
    fig.legend(handles=axes[0].lines[1:3], loc="outside lower center", ncols=2, frameon=False, fontsize=14)
    sns.despine(fig, left=True)
    return fig


def plot_grid(measured: Mapping[str, Mapping[str, Interval]], metrics: Mapping[str, str]) -> Figure:
    """The nine readings as a table for every metric, in percent: bright is good.

    A metric whose name contains "error" is better the lower it is.

    Example:
        >>> measured = {name: {"ap0": Interval(0.5, 0.4, 0.6)} for row in NETWORKS.values() for name in row}
        >>> fig = plot_grid(measured, {"ap0": "AP, IoU 0"})
        >>> fig.axes[0].texts[0].get_text()
        '50'
    """
    fig, axes = plt.subplots(1, len(metrics), figsize=(3.9 * len(metrics), 3), squeeze=False, sharey=True)
    for ax, (metric, title) in zip(axes[0], metrics.items(), strict=True):
        cells = [[measured[name][metric] for name in names] for names in NETWORKS.values()]
        values = np.array([[100 * cell.value for cell in row] for row in cells])
        lower = "error" in title
        ax.imshow(100 - values if lower else values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
        for y, row in enumerate(cells):
            for x, cell in enumerate(row):
                bright = (100 - 100 * cell.value if lower else 100 * cell.value) > 55
                text = {"ha": "center", "color": "black" if bright else "white"}
                ax.text(x, y, f"{100 * cell.value:.0f}", va="center", fontsize=21, weight="bold", **text)
        ax.set_title(f"{title} (%)" + (",\nlower is better" if lower else ""), fontsize=15)
        ax.set_xticks(range(3), ["CAM\npooled", "CAM\ncell-wise", "DCM"], fontsize=13)
        ax.set_yticks(range(3), list(NETWORKS), fontsize=14)
        ax.tick_params(length=0)
        sns.despine(ax=ax, left=True, bottom=True)
    return fig


def plot_similarity(similarity: Tensor, classes: Sequence[str], *, title: str = "") -> Figure:
    """Cosine similarities of class embeddings, `(C, C)`, as a matrix; columns are in the order of the rows.

    Example:
        >>> fig = plot_similarity(torch.eye(3), ["cat", "dog", "owl"], title="one-hot")
        >>> [text.get_text() for text in fig.axes[0].get_yticklabels()]
        ['cat', 'dog', 'owl']
    """
    size = min(9.0, 2 + 0.19 * len(classes))
    fig, ax = plt.subplots(figsize=(size + 1, size))
    table = pd.DataFrame(similarity.numpy(), index=list(classes))
    style = {"cmap": "cividis", "vmin": 0, "vmax": 1, "square": True, "cbar_kws": {"label": "cosine similarity"}}
    sns.heatmap(table, ax=ax, xticklabels=False, **style)
    ax.set_title(title)
    ax.tick_params(labelsize=9 if len(classes) > 15 else 11)
    return fig


def plot_chance(measured: Mapping[int, float], *, draws: int = 4000) -> Figure:
    """The largest cosine similarity to C orthogonal classes, of random directions and of background cells.

    `measured` holds the median over background cells by number of classes; the median over `draws` directions is shown.

    Example:
        >>> fig = plot_chance({12: 0.7}, draws=200)
        >>> nearest = fig.axes[0].lines[0].get_ydata()
        >>> bool(nearest[0] > nearest[-1])  # it falls with the number of classes
        True
    """
    counts = [2, 3, 4, 6, 8, 12, 20, 40, 80, 200, 1000]
    generator = torch.Generator().manual_seed(0)
    nearest = []
    for count in counts:
        direction = torch.randn(min(draws, 4_000_000 // count), count, generator=generator)
        nearest.append(float((direction / direction.norm(dim=1, keepdim=True)).amax(dim=1).median()))
    fig, ax = plt.subplots(figsize=(7.5, 3.9))
    ax.plot(counts, nearest, "-o", linewidth=2.5, color="0.4", label="a random direction")
    ax.plot(list(measured), list(measured.values()), "D", markersize=10, color="C1", label="background cells")
    ax.set_xscale("log")
    ax.set_xticks([2, 6, 12, 80, 1000], ["2", "6", "12", "80", "1000"])
    ax.set(xlabel="number of classes", ylabel="largest cosine similarity", ylim=(0, 1.03))
    ax.legend(frameon=False)
    sns.despine(fig)
    return fig
