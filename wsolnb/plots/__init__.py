"""The figures that several notebooks draw; a function per figure, which returns it. Those of one paper stand in its room."""

from wsolnb.plots.curves import plot_measured, plot_precision_recall, plot_training, plot_tuning
from wsolnb.plots.images import show_detections, show_maps, show_scenes, show_singles
from wsolnb.plots.localization import plot_components, plot_thresholds, show_located
from wsolnb.plots.style import class_colours, use_style

__all__ = [
    "class_colours",
    "plot_components",
    "plot_measured",
    "plot_precision_recall",
    "plot_thresholds",
    "plot_training",
    "plot_tuning",
    "show_detections",
    "show_located",
    "show_maps",
    "show_scenes",
    "show_singles",
    "use_style",
]
