"""Scores of maps and boxes, and their bootstrap intervals."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsolnb.metrics.bootstrap import Interval, Statistic, difference, image_weights, interval, mean_statistic
    from wsolnb.metrics.detection import DetectionAP
    from wsolnb.metrics.ilsvrc import GuessLocalizationError
    from wsolnb.metrics.localization import MaxBoxAcc, MaxBoxAccV2
    from wsolnb.metrics.pixels import PxAP
    from wsolnb.metrics.points import PointAP
    from wsolnb.metrics.ranking import Ranking
    from wsolnb.metrics.topk import CorLoc, TopLocalization, select_class_maps
    from wsolnb.metrics.voc import VOCAP

_MODULES = ("bootstrap", "detection", "ilsvrc", "localization", "pixels", "points", "ranking", "topk", "voc")


def __getattr__(name: str) -> Any:
    """Import a name on first use: metrics bring torchmetrics, which takes longer to import than torch."""
    for module in _MODULES if name in __all__ else ():
        if hasattr(imported := import_module(f"{__name__}.{module}"), name):
            return getattr(imported, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "VOCAP",
    "CorLoc",
    "DetectionAP",
    "GuessLocalizationError",
    "Interval",
    "MaxBoxAcc",
    "MaxBoxAccV2",
    "PointAP",
    "PxAP",
    "Ranking",
    "Statistic",
    "TopLocalization",
    "difference",
    "image_weights",
    "interval",
    "mean_statistic",
    "select_class_maps",
]
