"""Figures of dense class maps beside CAM: activations, scenes, tuning, precision over recall, chance similarity.

Paper: https://doi.org/10.5220/0010760800003124
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator
from torch import Tensor
from torch.utils.data import Dataset

from wsolnb.localization.detect import Prediction
from wsolnb.localization.maps import SceneMaps
from wsolnb.metrics.detection import DetectionAP
from wsolnb.papers.barz2022.maps import dense_class_map
from wsolnb.plots.images import draw_detections
from wsolnb.plots.style import BESIDE, HEAT, LINES, Colour, class_colours, draw_boxes, method_colour, show_picture


def show_activations(panels: Mapping[str, tuple[Tensor, Tensor]], threshold: float, *, columns: int = 2) -> Figure:
    """The largest class value of every cell: a map of one image above a histogram over many (barz2022 Fig. 2).

    `panels` holds, by title, the values of one image `(h, w)` and those of all cells of many images. The threshold is
    marked in every histogram whose values lie in [0, 1].

    Example:
        >>> panels = {"cosine": (torch.rand(6, 8), torch.rand(500)), "softmax": (torch.rand(6, 8), torch.rand(500))}
        >>> fig = show_activations(panels, 0.8)
        >>> fig.axes[0].get_title(), fig.axes[2].texts[0].get_text()
        ('cosine', 'threshold 0.8')
    """
    rows = -(-len(panels) // columns)
    fig, axes = plt.subplots(2 * rows, columns, figsize=(4.6 * columns, 4.3 * rows), height_ratios=[1.3, 1] * rows)
    for k, (title, (heat, values)) in enumerate(panels.items()):
        top, below = axes[2 * (k // columns), k % columns], axes[2 * (k // columns) + 1, k % columns]
        unit = bool(values.min() >= -1e-6 and values.max() <= 1 + 1e-6)
        shown = top.imshow(heat.float().cpu().numpy(), cmap=HEAT, **({"vmin": 0, "vmax": 1} if unit else {}))
        top.set(title=title, xticks=[], yticks=[])
        fig.colorbar(shown, ax=top, shrink=0.85)
        counts, edges = np.histogram(values.float().cpu().numpy(), bins=40, range=(0, 1) if unit else None)
        below.stairs(counts, edges, fill=True, color="0.35")
        below.set(xlabel="largest value over all classes", ylabel="cells", yscale="log", ylim=(0.7, None))
        below.yaxis.set(major_formatter="{x:g}", minor_locator=NullLocator())
        if unit:
            below.axvline(threshold, color="C1", linewidth=2.5, linestyle="--")
            corner = {"transform": below.get_xaxis_transform(), "ha": "right", "va": "bottom"}
            below.text(1, 1, f"threshold {threshold:g}", color="C1", fontsize=10, weight="bold", **corner)
    return fig


def show_comparison(
    scenes: Dataset[Any],
    classes: Sequence[str],
    index: int,
    *,
    cam: tuple[SceneMaps, Sequence[Prediction]],
    dcm: tuple[SceneMaps, Sequence[Prediction]],
    score_threshold: float,
    sim_threshold: float,
) -> Figure:
    """One scene three ways: truth, class activation map of the top class, dense class map (barz2022 Fig. 1).

    `cam` and `dcm` are maps and detections of all scenes, with CAM and with dense class maps; the two thresholds are
    those of `wsolnb.papers.barz2022.maps.dense_class_map`.

    Example:
        >>> from wsolnb.boxes import BoxRule
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.localization.detect import detections
        >>> scenes = World(families=2, species=2, size=32).scenes(1, size=(48, 64))
        >>> values, size = torch.rand(1, 4, 6, 8), torch.tensor([[48, 64]])
        >>> maps = SceneMaps(list(values), values.amax(dim=(2, 3)), size, [scenes[0][1]])
        >>> both = (maps, detections(maps, BoxRule.preset("dcm")))
        >>> limits = {"score_threshold": 0.5, "sim_threshold": 0.75}
        >>> fig = show_comparison(scenes, scenes.classes, 0, cam=both, dcm=both, **limits)
        >>> [ax.get_title() for ax in fig.axes]
        ['what is there', 'cross-entropy + CAM', 'cosine loss + DCM']
    """
    image, target = scenes[index]
    labels, predictions = target["labels"].tolist(), {"cam": cam[1][index], "dcm": dcm[1][index]}
    cells = dense_class_map(dcm[0].maps[index][None].float(), score_threshold, sim_threshold)[0].cpu()
    mapped = [k - 1 for k in cells.unique().tolist() if k > 0]
    colours = class_colours([*labels, *(k for p in predictions.values() for k in p["labels"].tolist()), *mapped])
    fig, axes = plt.subplots(1, 3, figsize=(14, 4.4))
    show_picture(axes[0], image)
    draw_boxes(axes[0], target["boxes"], labels, colours, [classes[k] for k in labels])
    axes[0].set_title("what is there")
    top = int(cam[0].scores[index].argmax())
    heat = F.interpolate(cam[0].maps[index][None, top : top + 1].float().cpu(), image.shape[-2:], mode="bilinear")[0, 0]
    show_picture(axes[1], image)
    axes[1].imshow(heat.numpy(), cmap=HEAT, alpha=0.6)
    draw_detections(axes[1], predictions["cam"], classes, colours)
    axes[1].set_title("cross-entropy + CAM")
    _show_class_map(axes[2], image, cells, {k: colours[k] for k in mapped}, classes)
    draw_boxes(axes[2], predictions["dcm"]["boxes"].float().cpu(), predictions["dcm"]["labels"].tolist(), colours)
    axes[2].set_title("cosine loss + DCM")
    return fig


def _show_class_map(
    ax: Axes, image: Tensor, cells: Tensor, colours: Mapping[int, Colour], classes: Sequence[str]
) -> None:
    """A dense class map (0 for background, else the class + 1) in class colours over the image, with a legend."""
    palette = torch.ones(len(classes) + 1, 3)
    for k, colour in colours.items():
        palette[k + 1] = torch.tensor(colour)
    painted = F.interpolate(palette[cells].permute(2, 0, 1)[None], image.shape[-2:], mode="nearest")[0]
    opacity = F.interpolate((cells > 0).float()[None, None], image.shape[-2:], mode="nearest")[0] * 0.62
    pixels = image.as_subclass(Tensor).float().cpu() / (255 if image.dtype == torch.uint8 else 1)
    show_picture(ax, pixels * (1 - opacity) + painted * opacity)
    handles = [Patch(color=colour, label=classes[k]) for k, colour in colours.items()]
    if handles:
        ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.01), fontsize=9, ncols=2, frameon=False)


def plot_tuning(curves: Mapping[str, Mapping[float, float]], *, iou: float) -> Figure:
    """Mean AP on training scenes over the threshold of the box rule, a line per method; a dot marks the best.

    Example:
        >>> fig = plot_tuning({"cam": {0.2: 0.1, 0.4: 0.3, 0.6: 0.2}}, iou=0.5)
        >>> fig.axes[0].lines[1].get_xdata().tolist()  # the dot
        [0.4]
    """
    fig, ax = plt.subplots(figsize=(7.5, 3.8))
    for style, (name, curve) in zip(cycle(LINES), curves.items(), strict=False):
        best, colour = max(curve, key=lambda t: curve[t]), method_colour(name)
        ax.plot(list(curve), [100 * ap for ap in curve.values()], style, color=colour, linewidth=2.5, label=name)
        ax.plot([best], [100 * curve[best]], "o", color=colour, markersize=10)
    ax.set(xlabel="box threshold (share of the map's maximum)", ylabel=f"mAP at IoU {iou:g} (%)", xlim=(0, 1))
    ax.set_title("tuned on training scenes")
    ax.legend(**BESIDE)
    sns.despine(fig)
    return fig


def plot_precision_recall(metrics: Mapping[str, DetectionAP], ious: Sequence[float]) -> Figure:
    """Precision over recall, all classes pooled, one panel per IoU threshold (barz2022 Fig. 4).

    Example:
        >>> metric = DetectionAP(classes=1, iou_thresholds=(0, 0.5))
        >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 9.0, 9.0]]), "labels": torch.tensor([0])}
        >>> metric.update([truth | {"scores": torch.tensor([0.8])}], [truth])
        >>> fig = plot_precision_recall({"cam": metric}, [0, 0.5])
        >>> fig.axes[1].get_title(), fig.axes[1].get_legend().get_texts()[0].get_text()
        ('IoU at least 0.5', 'cam (mAP 100.0 %)')
    """
    fig, axes = plt.subplots(1, len(ious), figsize=(5.6 * len(ious), 4.2), sharey=True, squeeze=False)
    for ax, iou in zip(axes[0], ious, strict=True):
        for style, (name, metric) in zip(cycle(LINES), metrics.items(), strict=False):
            recall, precision = metric.curve(iou)
            reached = precision > 0
            label = f"{name} (mAP {100 * float(metric.compute()[f'mAP@{iou:g}']):.1f} %)"
            ax.plot(recall[reached], precision[reached], style, color=method_colour(name), linewidth=2.5, label=label)
        ax.set(title=f"IoU at least {iou:g}", xlabel="recall", xlim=(0, 1), ylim=(0, 1.03))
        ax.legend(frameon=False, loc="lower left", fontsize=10.5)
    axes[0, 0].set_ylabel("precision")
    sns.despine(fig)
    return fig


def plot_similarity(similarity: Tensor, classes: Sequence[str], *, title: str = "") -> Figure:
    """Cosine similarities of class embeddings, `(C, C)`, as a matrix.

    Example:
        >>> fig = plot_similarity(torch.eye(3), ["cat", "dog", "owl"], title="one-hot")
        >>> [text.get_text() for text in fig.axes[0].get_xticklabels()]
        ['cat', 'dog', 'owl']
    """
    size = min(9.0, 2.2 + 0.22 * len(classes))
    fig, ax = plt.subplots(figsize=(size + 1, size))
    table = pd.DataFrame(similarity.numpy(), index=list(classes), columns=list(classes))
    sns.heatmap(table, ax=ax, cmap="cividis", vmin=0, vmax=1, square=True, cbar_kws={"label": "cosine similarity"})
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
