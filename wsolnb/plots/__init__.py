"""Figures that several notebooks draw, each made by one function; those of one paper are in its room's `figures.py`."""

from wsolnb.plots.curves import plot_components, plot_measured, plot_training
from wsolnb.plots.images import show_detections, show_maps, show_scenes, show_singles
from wsolnb.plots.localization import plot_thresholds, show_located, show_thresholds
from wsolnb.plots.style import class_colours, use_style

__all__ = [
    "class_colours",
    "plot_components",
    "plot_measured",
    "plot_thresholds",
    "plot_training",
    "show_detections",
    "show_located",
    "show_maps",
    "show_scenes",
    "show_singles",
    "show_thresholds",
    "use_style",
]
