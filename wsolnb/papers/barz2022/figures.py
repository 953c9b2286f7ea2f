"""Figures of images: scenes with their truth, maps over them, dense class maps, detections side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from wsolnb.papers.barz2022.maps import dense_class_map
from wsolnb.plots.images import _draw
from wsolnb.plots.style import HEAT, Colour, class_colours, draw_boxes, show_picture


def show_activations(panels: Mapping[str, tuple[Tensor, Tensor]], threshold: float, *, columns: int = 2) -> Figure:
    """Heat map of one image over a histogram for many: the largest class value of every cell (barz2022 Fig. 2).

    Args:
        panels: Title to the largest value per cell of one image `(h, w)` and the values of all cells of many images.
        threshold: Marked in every histogram whose values lie in [0, 1].
        columns: Panels in a row.

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
        drawn = top.imshow(heat.float().cpu().numpy(), cmap=HEAT, **({"vmin": 0, "vmax": 1} if unit else {}))
        top.set(title=title, xticks=[], yticks=[])
        fig.colorbar(drawn, ax=top, shrink=0.85)
        counts, edges = np.histogram(values.float().cpu().numpy(), bins=40, range=(0, 1) if unit else None)
        below.stairs(counts, edges, fill=True, color="0.35")
        below.set(xlabel="largest value over all classes", ylabel="cells", yscale="log", ylim=(0.7, None))
        below.yaxis.set(major_formatter="{x:g}", minor_locator=NullLocator())
        if unit:
            below.axvline(threshold, color="C1", linewidth=2.5, linestyle="--")
            where = {"transform": below.get_xaxis_transform(), "ha": "right", "va": "bottom"}
            below.text(1, 1, f"threshold {threshold:g}", color="C1", fontsize=10, weight="bold", **where)
    return fig


def show_class_map(
    ax: Axes,
    image: Tensor,
    sim: Tensor,
    classes: Sequence[str],
    colours: Mapping[int, Colour],
    *,
    score_threshold: float,
    sim_threshold: float,
) -> None:
    """A dense class map in class colours over the image, with a legend.

    Example:
        >>> fig, ax = plt.subplots()
        >>> sim = torch.full((3, 6, 8), 0.1)
        >>> sim[1, 2:5, 2:7] = 0.9
        >>> classes, limits = ["cat", "dog", "owl"], {"score_threshold": 0.5, "sim_threshold": 0.75}
        >>> show_class_map(ax, torch.rand(3, 48, 64), sim, classes, class_colours(range(3)), **limits)
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['dog']
    """
    found = dense_class_map(sim[None].float(), score_threshold, sim_threshold)[0].cpu()
    present = [int(k) - 1 for k in found.unique() if k > 0]
    palette = torch.ones(len(classes) + 1, 3)
    for k in present:
        palette[k + 1] = torch.tensor(colours[k])
    painted = F.interpolate(palette[found].permute(2, 0, 1)[None], image.shape[-2:], mode="nearest")[0]
    opacity = F.interpolate((found > 0).float()[None, None], image.shape[-2:], mode="nearest")[0] * 0.62
    pixels = image.as_subclass(Tensor).float().cpu() / (255 if image.dtype == torch.uint8 else 1)
    show_picture(ax, pixels * (1 - opacity) + painted * opacity)
    handles = [Patch(color=colours[k], label=classes[k]) for k in present]
    if handles:
        ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.01), fontsize=9, ncols=2, frameon=False)


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

    Example:
        >>> from wsolnb.boxes import BoxRule
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.localization.detect import detections
        >>> scenes = World(families=2, species=2, size=32).scenes(1, size=(48, 64))
        >>> maps, size = torch.rand(1, 4, 6, 8), torch.tensor([[48, 64]])
        >>> found = SceneMaps(list(maps), maps.amax(dim=(2, 3)), size, [scenes[0][1]])
        >>> both = (found, detections(found, BoxRule.preset("dcm")))
        >>> limits = {"score_threshold": 0.5, "sim_threshold": 0.75}
        >>> fig = show_comparison(scenes, scenes.classes, 0, cam=both, dcm=both, **limits)
        >>> [ax.get_title() for ax in fig.axes]
        ['what is there', 'cross-entropy + CAM', 'cosine loss + DCM']
    """
    image, target = scenes[index]
    fig, axes = plt.subplots(1, 3, figsize=(14, 4.4))
    labels = target["labels"].tolist()
    mapped = dense_class_map(dcm[0].maps[index][None].float(), score_threshold, sim_threshold).unique() - 1
    colours = class_colours([*labels, *(k for found in (cam, dcm) for k in found[1][index]["labels"].tolist()),
                             *(k for k in mapped.tolist() if k >= 0)])  # fmt: skip
    show_picture(axes[0], image)
    draw_boxes(axes[0], target["boxes"], labels, colours, [classes[k] for k in labels])
    axes[0].set_title("what is there")
    top = int(cam[0].scores[index].argmax())
    heat = F.interpolate(cam[0].maps[index][None, top : top + 1].float().cpu(), image.shape[-2:], mode="bilinear")[0, 0]
    show_picture(axes[1], image)
    axes[1].imshow(heat.numpy(), cmap=HEAT, alpha=0.6)
    _draw(axes[1], cam[1][index], classes, colours)
    axes[1].set_title("cross-entropy + CAM")
    limits = {"score_threshold": score_threshold, "sim_threshold": sim_threshold}
    show_class_map(axes[2], image, dcm[0].maps[index], classes, colours, **limits)
    _draw(axes[2], dcm[1][index], classes, colours, named=False)
    axes[2].set_title("cosine loss + DCM")
    return fig


def plot_similarity(similarity: Tensor, classes: Sequence[str], *, title: str = "") -> Figure:
    """Similarity of every class to every other, as a matrix.

    Example:
        >>> fig = plot_similarity(torch.eye(3), ["cat", "dog", "owl"], title="one-hot")
        >>> [text.get_text() for text in fig.axes[0].get_xticklabels()]
        ['cat', 'dog', 'owl']
    """
    size = min(9.0, 2.2 + 0.22 * len(classes))
    fig, ax = plt.subplots(figsize=(size + 1, size))
    frame = pd.DataFrame(similarity.numpy(), index=list(classes), columns=list(classes))
    sns.heatmap(frame, ax=ax, cmap="cividis", vmin=0, vmax=1, square=True, cbar_kws={"label": "cosine similarity"})
    ax.set_title(title)
    ax.tick_params(labelsize=9 if len(classes) > 15 else 11)
    return fig


def plot_chance(measured: Mapping[int, float], *, draws: int = 4000) -> Figure:
    """How near the nearest of C orthogonal classes is to a direction that means nothing, and to real background.

    Args:
        measured: Number of classes to the median, over background cells, of the largest similarity.
        draws: Random directions per number of classes.

    Example:
        >>> fig = plot_chance({12: 0.7}, draws=200)
        >>> nearest = fig.axes[0].lines[0].get_ydata()
        >>> bool(nearest[0] > nearest[-1])  # the more classes, the less a random direction resembles any
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
