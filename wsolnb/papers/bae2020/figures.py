"""Figures of the three problems of class activation maps (P1 to P3), and of what TAP, NWC and PAS change.

Paper: https://doi.org/10.1007/978-3-030-58555-6_37
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

from wsolnb.plots.style import BESIDE, LINES, show_picture


def plot_areas(areas: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Largest weight of a channel over its activated area, a panel per network (bae2020 P1, Fig. 2).

    `areas` holds, by network, areas in [0, 1] and largest weights of all channels, `(D,)` each.

    Example:
        >>> fig = plot_areas({"cam": (torch.linspace(0.1, 0.9, 9), torch.linspace(1.0, 0.2, 9))})
        >>> means = fig.axes[0].lines[0].get_ydata()
        >>> bool(means[0] > means[-1])  # channels with a small activated area weigh most
        True
    """
    fig, axes = plt.subplots(1, len(areas), figsize=(4.2 * len(areas), 3.1), sharex=True, sharey=True, squeeze=False)
    for colour, ax, (name, (area, weight)) in zip(("C0", "C1", "C2"), axes[0], areas.items(), strict=False):
        area, weight = area[area > 0], weight[area > 0]
        ax.scatter(100 * area.numpy(), weight.numpy(), s=38, color=colour, edgecolor="white", linewidth=0.5)
        thirds = [third for third in area.argsort().chunk(3) if len(third)]
        means = [(100 * float(area[third].mean()), float(weight[third].mean())) for third in thirds]
        ax.plot(*zip(*means, strict=True), "-D", color="black", linewidth=2, markersize=7, label="mean of each third")
        ax.set(title=name, xlabel="activated area (% of the cells)", xlim=(0, None), ylim=(0, None))
    axes[0, 0].legend(frameon=False, fontsize=10.5, loc="upper left")
    axes[0, 0].set_ylabel("largest weight")
    fig.suptitle("every dot a channel", fontsize=12)
    sns.despine(fig)
    return fig


def show_parts(image: Tensor, maps: Mapping[str, Tensor]) -> Figure:
    """An image and maps `(h, w)` of it on one common scale, zero in the middle of a diverging colour map.

    Example:
        >>> fig = show_parts(torch.rand(3, 32, 48), {"positive": torch.rand(4, 6), "negative": -2 * torch.rand(4, 6)})
        >>> low, high = fig.axes[1].images[0].get_clim()
        >>> bool(low == -high)
        True
    """
    fig, axes = plt.subplots(1, len(maps) + 1, figsize=(2.2 * (len(maps) + 1), 2.2), squeeze=False)
    show_picture(axes[0, 0], image)
    axes[0, 0].set_title("image", fontsize=12)
    top = max(float(values.abs().max()) for values in maps.values())
    for ax, (name, values) in zip(axes[0, 1:], maps.items(), strict=True):
        panel = ax.imshow(values.float().cpu().numpy(), cmap="RdBu_r", vmin=-top, vmax=top, interpolation="nearest")
        ax.set_title(name, fontsize=12)
        ax.set_axis_off()
    fig.colorbar(panel, ax=axes[0, 1:].tolist(), shrink=0.8)
    return fig


def plot_inside(fractions: Mapping[str, Tensor], *, chance: float | None = None) -> Figure:
    """Distribution over images of the part of the activated region inside the true box (bae2020 P2, Fig. 3b).

    By kind of map, one fraction per image in [0, 1], NaN left out; `chance`, the fraction of the image that boxes take,
    is marked.

    Example:
        >>> fig = plot_inside({"cam": torch.tensor([0.5, 0.7, torch.nan])}, chance=0.3)
        >>> [text.get_text().splitlines()[1] for text in fig.axes[0].get_legend().get_texts()]
        ['(mean 60 %)', 'of the image (30%)']
    """
    fig, ax = plt.subplots(figsize=(8.6, 3.0))
    for k, (name, values) in enumerate(fractions.items()):
        finite = values[values.isfinite()]
        label = f"{name}\n(mean {100 * float(finite.mean()):.0f} %)"
        sns.ecdfplot(100 * finite.numpy(), ax=ax, color=f"C{k}", linestyle=LINES[k], linewidth=2.5, label=label)
    if chance is not None:
        label = f"the box's share\nof the image ({chance:.0%})"
        ax.axvline(100 * chance, color="0.4", linewidth=1.5, linestyle=":", label=label)
    ax.set(xlabel="share of the activated region inside the true box (%)", ylabel="images below it", xlim=(0, 100))
    ax.legend(fontsize=11, **BESIDE)
    sns.despine(fig)
    return fig


def plot_sorted(curves: Mapping[str, Tensor], thresholds: Mapping[str, float]) -> Figure:
    """Sorted activations in units of a reference, a panel per reference (bae2020 P3, Fig. 4).

    `curves` `(N, P)` are from `wsolnb.papers.bae2020.analysis.sorted_activations`; a box is cut at the fraction
    `thresholds` of the reference.

    Example:
        >>> values = torch.linspace(1, 0, 20).expand(4, 20)
        >>> fig = plot_sorted({"maximum": values}, {"maximum": 0.5})
        >>> fig.axes[0].get_title(), fig.axes[0].get_legend().get_texts()[0].get_text()
        ('in units of the maximum', 'kept: 50 to 50 % of the image')
    """
    fig, axes = plt.subplots(1, len(curves), figsize=(4.3 * len(curves), 3.2), squeeze=False)
    for ax, (name, values) in zip(axes[0], curves.items(), strict=True):
        values = values[values.isfinite().all(dim=1)]
        ranks = torch.linspace(0, 100, values.shape[1])
        for row in values[:20]:
            ax.plot(ranks.numpy(), row.numpy(), color="0.6", linewidth=0.6, alpha=0.7)
        kept = 100 * (values > thresholds[name]).double().mean(dim=1)
        low, high = (float(q) for q in kept.quantile(torch.tensor([0.1, 0.9], dtype=torch.float64)))
        ax.axhline(thresholds[name], color="C1", linewidth=2.5)
        ax.axvspan(low, high, color="C0", alpha=0.25, label=f"kept: {low:.0f} to {high:.0f} % of the image")
        ax.set(title=f"in units of the {name}", xlabel="pixels, from the brightest (%)", xlim=(0, 100), ylim=(0, 2.2))
        heading = {"title": "the cut, in 8 of 10 images", "title_fontsize": 10.5}
        ax.legend(frameon=False, fontsize=10.5, loc="upper right", **heading)
    axes[0, 0].set_ylim(0, 1.03)
    axes[0, 0].set_ylabel("activation")
    sns.despine(fig)
    return fig


def plot_covered(fractions: Mapping[str, Mapping[str, float]]) -> Figure:
    """How much of each part of the object is covered, by method and part in [0, 1]: a panel per part, a bar per method.

    Example:
        >>> fig = plot_covered({"cam": {"head": 0.9, "body": 0.3}, "tap": {"head": 0.8, "body": 0.6}})
        >>> [ax.get_title() for ax in fig.axes], [text.get_text() for text in fig.axes[1].texts]
        (['head', 'body'], ['30', '60'])
    """
    parts = list(next(iter(fractions.values())))
    size = (2.9 * len(parts), 0.36 * len(fractions) + 1.0)
    fig, axes = plt.subplots(1, len(parts), figsize=size, sharey=True, squeeze=False)
    for ax, part in zip(axes[0], parts, strict=True):
        values = [100 * covered[part] for covered in fractions.values()]
        bars = ax.barh(list(fractions), values, color=[f"C{k}" for k in range(len(fractions))])
        ax.bar_label(bars, fmt="%.0f", padding=3, fontsize=11)
        ax.set(title=part, xlabel="covered (%)", xlim=(0, 118), xticks=(0, 50, 100))
    axes[0, 0].invert_yaxis()
    sns.despine(fig)
    return fig
