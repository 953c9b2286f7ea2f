"""Every figure of the notebooks; a function per figure, which returns it. Those of one paper stand in its module."""

from wsolnb.plots.curves import (
    plot_chance,
    plot_measured,
    plot_precision_recall,
    plot_similarity,
    plot_training,
    plot_tuning,
)
from wsolnb.plots.scenes import show_activations, show_comparison, show_detections, show_maps, show_scenes, show_singles
from wsolnb.plots.style import class_colours, use_style

__all__ = [
    "beam",
    "class_colours",
    "contest",
    "csoa",
    "curves",
    "ornet",
    "overlay",
    "picture",
    "plot_chance",
    "plot_measured",
    "plot_precision_recall",
    "plot_similarity",
    "plot_training",
    "plot_tuning",
    "rethinking",
    "scenes",
    "show_activations",
    "show_comparison",
    "show_detections",
    "show_maps",
    "show_scenes",
    "show_singles",
    "style",
    "use_style",
]
