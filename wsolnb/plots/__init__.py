"""Figures that several notebooks draw, each made by one function; those of one paper are in its room's `figures.py`."""

from wsolnb.plots.curves import (
    plot_components as plot_components,
    plot_measured as plot_measured,
    plot_training as plot_training,
)
from wsolnb.plots.images import (
    show_detections as show_detections,
    show_maps as show_maps,
    show_scenes as show_scenes,
    show_singles as show_singles,
)
from wsolnb.plots.localization import (
    plot_thresholds as plot_thresholds,
    show_located as show_located,
    show_thresholds as show_thresholds,
)
from wsolnb.plots.style import class_colours as class_colours, use_style as use_style
from wsolnb.plots.verdicts import plot_verdicts as plot_verdicts
