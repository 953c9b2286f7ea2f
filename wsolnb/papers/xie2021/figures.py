"""Figures of ORNet: histograms of activations, the weighted entropy, erasing, thresholds.

Paper: https://arxiv.org/abs/2110.05741
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

from wsolnb.localization.locate import LocalizationResult
from wsolnb.localization.maps import LocalizationMaps
from wsolnb.papers.xie2021.losses import pixel_entropy, uncertainty_weight
from wsolnb.papers.xie2021.maps import UNDECIDED, decided_fraction
from wsolnb.plots.style import BESIDE, HEAT, LINES, show_picture

_LINES = (*LINES, (0, (6, 1, 1, 1, 1, 1)))


def plot_histograms(stages: Mapping[str, LocalizationMaps]) -> Figure:
    """Histograms of activations, a panel per stage; undecided values are shaded (xie2021 Fig. 4).

    Example:
        >>> truth = (torch.zeros(1, 2), torch.tensor([0]), [torch.tensor([[0.0, 0.0, 4.0, 4.0]])], (8, 8))
        >>> maps = {"one": torch.full((1, 8, 8), 0.5), "two": torch.ones(1, 8, 8)}
        >>> stages = {name: LocalizationMaps(values, *truth) for name, values in maps.items()}
        >>> [ax.get_title() for ax in plot_histograms(stages).axes]
        ['one: 100 % undecided', 'two: 0 % undecided']
    """
    fig, axes = plt.subplots(1, len(stages), figsize=(4.4 * len(stages), 3.1), sharey=True, squeeze=False)
    for k, (ax, (name, stage)) in enumerate(zip(axes[0], stages.items(), strict=True)):
        counts = torch.histc(stage.maps.float(), bins=40, min=0, max=1)
        heights = (100 * counts / counts.sum()).tolist()
        ax.bar([(i + 0.5) / 40 for i in range(40)], heights, 1 / 40, color=f"C{k}")
        ax.axvspan(*UNDECIDED, color="0.5", alpha=0.15)
        undecided = 100 * (1 - float(decided_fraction(stage.maps).mean()))
        ax.set(title=f"{name}: {undecided:.0f} % undecided", xlabel="activation", xlim=(0, 1))
    axes[0, 0].set_ylabel("pixels (%)")
    sns.despine(fig)
    return fig


def plot_weighting(settings: Sequence[tuple[float, float]] = ((0.5, 0.1), (0.5, 0.2), (0.3, 0.1))) -> Figure:
    """The Gaussian weight (xie2021 Fig. 6c), the entropies with and without it, and their gradients.

    `settings` are means and standard deviations; the second and third panel use the first.

    Example:
        >>> [ax.get_title() for ax in plot_weighting([(0.5, 0.1)]).axes]
        ['weight γ', 'loss of a pixel', 'pull on a pixel, -dL/dp']
    """
    p = torch.linspace(0.002, 0.998, 499, dtype=torch.float64, requires_grad=True)
    fig, axes = plt.subplots(1, 3, figsize=(12.5, 3.3))
    for k, (mean, deviation) in enumerate(settings):
        weight = uncertainty_weight(p, mean, deviation).detach()
        label = f"μ = {mean:g}, σ = {deviation:g}"
        axes[0].plot(p.detach(), weight, linestyle=_LINES[k % 5], color=f"C{k}", linewidth=2.5, label=label)
    entropies = {
        "mean entropy (Eq. 13)": pixel_entropy(p),
        "weighted (Eq. 14)": pixel_entropy(p) * uncertainty_weight(p, *settings[0]),
    }
    for k, (name, values) in enumerate(entropies.items()):
        (pull,) = torch.autograd.grad(-values.sum(), p, retain_graph=True)
        axes[1].plot(p.detach(), values.detach(), linestyle=_LINES[k], color=f"C{k}", linewidth=2.5, label=name)
        axes[2].plot(p.detach(), pull, linestyle=_LINES[k], color=f"C{k}", linewidth=2.5, label=name)
    axes[2].axhline(0, color="0.5", linewidth=1)
    axes[2].annotate("towards object", (0.98, 0.96), xycoords="axes fraction", ha="right", va="top", fontsize=10.5)
    axes[2].annotate("towards background", (0.02, 0.04), xycoords="axes fraction", fontsize=10.5)
    for ax, title in zip(axes, ("weight γ", "loss of a pixel", "pull on a pixel, -dL/dp"), strict=True):
        ax.set(title=title, xlabel="activation p", xlim=(0, 1))
    axes[0].set_ylim(0, 1.6)
    axes[1].set_ylim(0, 1.0)
    for ax in axes[:2]:
        ax.legend(frameon=False, fontsize=10.5, loc="upper center")
    sns.despine(fig)
    return fig


def show_erasing(image: Tensor, heat: Tensor, dropped: Mapping[str, Tensor]) -> Figure:
    """A map and what every strategy erases from it, in blue (xie2021 Fig. 7).

    The map `heat` is `(h, w)` in [0, 1], the image `(3, H, W)`; `dropped` holds the erased cells by strategy, bool
    `(h, w)`.

    Example:
        >>> heat = torch.rand(8, 12)
        >>> fig = show_erasing(torch.rand(3, 32, 48), heat, {"above 0.5": heat > 0.5, "all": heat >= 0})
        >>> fig.axes[3].get_xlabel()
        '96 of 96 erased'
    """
    columns = len(dropped) + 2
    fig, axes = plt.subplots(1, columns, figsize=(2.15 * columns, 2.8))
    show_picture(axes[0], image)
    axes[0].set_title("image", fontsize=12)
    for ax, (name, erased) in zip(axes[1:], {"map": torch.zeros_like(heat).bool(), **dropped}.items(), strict=True):
        ax.imshow(heat.numpy(), cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
        cover = torch.zeros(*heat.shape, 4)
        cover[..., :3], cover[..., 3] = torch.tensor(sns.color_palette("colorblind")[0]), erased.float()
        ax.imshow(cover.numpy(), interpolation="nearest")
        ax.set_title(name, fontsize=12)
        ax.set(xticks=[], yticks=[], xlabel=f"{int(erased.sum())} of {erased.numel()} erased")
    return fig


def plot_plateau(results: Mapping[str, LocalizationResult]) -> Figure:
    """CorLoc over the threshold (xie2021 Figs. 11b, 11c), a line per method; a dot marks the tuned one.

    Example:
        >>> from wsolnb.boxes import BoxRule
        >>> from wsolnb.localization.locate import tune_and_evaluate
        >>> heat = torch.zeros(1, 8, 12)
        >>> heat[0, 2:6, 3:9] = 0.9
        >>> truth = (torch.zeros(1, 2), torch.tensor([0]), [torch.tensor([[3.0, 2.0, 9.0, 6.0]])], (8, 12))
        >>> from wsolnb.localization.maps import as_probabilities
        >>> maps = LocalizationMaps(heat, *truth, upsample=as_probabilities)
        >>> result = tune_and_evaluate(maps, maps, BoxRule(reference="absolute"))
        >>> fig = plot_plateau({"stage two": result})
        >>> curve = fig.axes[0].lines[0]
        >>> float(curve.get_ydata().max()), round(float(curve.get_xdata()[curve.get_ydata() > 0].max()), 2)
        (100.0, 0.89)
    """
    fig, ax = plt.subplots(figsize=(7.6, 3.6))
    ax.axvspan(*UNDECIDED, color="0.5", alpha=0.12)
    for k, (name, result) in enumerate(results.items()):
        thresholds, accuracy = result.curve()
        style = {"color": f"C{k}", "linewidth": 2.5, "label": name}
        ax.plot(thresholds, 100 * accuracy, linestyle=_LINES[k % 5], **style)  # type: ignore[arg-type]
        chosen = result.rule.threshold
        ax.plot(chosen, 100 * float(result.metric.at(chosen)["gt_known"]), "o", color=f"C{k}", markersize=10)
    ax.set(xlabel="threshold", ylabel="CorLoc (%)", xlim=(0, 1), ylim=(0, 100))
    ax.legend(**BESIDE)
    sns.despine(fig)
    return fig
