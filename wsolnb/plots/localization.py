"""Figures of one object per image: maps with boxes, and what the threshold of the box rule does."""

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
from wsolnb.plots.style import BESIDE, HEAT, LINES, draw_outlines, draw_prediction, show_picture


def show_located(
    images: Dataset[Any], results: Mapping[str, LocalizationResult], indices: Sequence[int], classes: Sequence[str]
) -> Figure:
    """A row per method, a column per image: the map of the true class with the predicted box and the true one (white).

    The number in a panel is the IoU of the two boxes, green from 0.5 on, orange below.

    Example:
        >>> from wsolnb.boxes import BoxRule
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.localization.locate import tune_and_evaluate
        >>> from wsolnb.localization.maps import LocalizationMaps
        >>> images, boxes = World(size=32).singles(2), [torch.tensor([[4.0, 4.0, 24.0, 20.0]])] * 2
        >>> maps = LocalizationMaps(torch.rand(2, 8, 8), torch.zeros(2, 12), torch.tensor([0, 1]), boxes, (32, 32))
        >>> results = {"cam": tune_and_evaluate(maps, maps, BoxRule(), thresholds=10)}
        >>> fig = show_located(images, results, [0, 1], images.classes)
        >>> len(fig.axes), fig.axes[2].get_ylabel()
        (4, 'cam')
    """
    size = (1.55 * len(indices), 1.55 * (len(results) + 1))
    fig, axes = plt.subplots(len(results) + 1, len(indices), figsize=size, squeeze=False)
    for ax, index in zip(axes[0], indices, strict=True):
        image, target = images[index]
        show_picture(ax, image)
        ax.set_title(classes[int(target["labels"][0])], fontsize=11)
    for row, (name, result) in zip(axes[1:], results.items(), strict=True):
        heat = result.maps.subset(torch.tensor(list(indices))).upsampled()
        for ax, index, values, box in zip(row, indices, heat, result.boxes(indices), strict=True):
            ax.imshow(values.numpy(), cmap=HEAT, vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            draw_prediction(ax, box[None], result.maps.boxes[index])
        row[0].set_ylabel(name, fontsize=12, fontweight="bold")
    return fig


def plot_thresholds(results: Mapping[str, LocalizationResult]) -> Figure:
    """GT-known localization over the threshold, a line per method; a dot marks the threshold tuned on held-out images.

    Example:
        >>> from wsolnb.boxes import BoxRule
        >>> from wsolnb.localization.locate import tune_and_evaluate
        >>> from wsolnb.localization.maps import LocalizationMaps
        >>> heat = torch.full((1, 8, 12), 0.4)
        >>> heat[0, 2:6, 3:9], heat[0, 0, 0] = 1.0, 0.0
        >>> boxes = [torch.tensor([[3.0, 2.0, 9.0, 6.0]])]
        >>> maps = LocalizationMaps(heat, torch.zeros(1, 2), torch.tensor([0]), boxes, (8, 12))
        >>> fig = plot_thresholds({"cam": tune_and_evaluate(maps, maps, BoxRule(), thresholds=10)})
        >>> [float(value) for value in fig.axes[0].lines[0].get_ydata()]
        [0.0, 0.0, 0.0, 0.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0]
    """
    fig, ax = plt.subplots(figsize=(8.6, 3.2))
    for k, (name, result) in enumerate(results.items()):
        thresholds, accuracy = result.curve()
        ax.plot(thresholds.numpy(), 100 * accuracy.numpy(), LINES[k % 4], color=f"C{k}", linewidth=2.5, label=name)
        chosen = result.rule.threshold
        ax.plot(chosen, 100 * float(result.metric.at(chosen)["gt_known"]), "o", color=f"C{k}", markersize=10)
    ax.set(xlabel="threshold (share of the reference)", ylabel="GT-known localization (%)", xlim=(0, 1), ylim=(0, None))
    ax.legend(**BESIDE)
    sns.despine(fig)
    return fig


def show_thresholds(image: Tensor, heat: Tensor, cuts: Sequence[float], boxes: Tensor, truth: Tensor) -> Figure:
    """One map cut at several thresholds: the pixels above, and the box around their largest component.

    The map `heat` `(H, W)` has the size of the image `(3, H, W)`; `cuts` are fractions of its maximum. There is a box
    for each, `(n, 4)`, NaN where the map gives none; the true boxes are `(m, 4)`.

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
    for ax, cut, box in zip(axes[0, 1:], cuts, boxes[:, None], strict=True):
        show_picture(ax, image, mask=heat > cut * heat.max())
        draw_outlines(ax, truth)
        draw_outlines(ax, box, sns.color_palette("colorblind")[0], dashed=True)
        overlap = float(iou(box.double(), truth.double()).max()) if bool(box.isfinite().all()) else 0.0
        ax.set_title(f"above {cut:.0%}: IoU {overlap:.2f}", fontsize=11)
    return fig
