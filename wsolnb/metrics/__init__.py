"""Scores of maps and boxes, and their bootstrap intervals."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsolnb.metrics.bootstrap import (
        Interval as Interval,
        Statistic as Statistic,
        difference as difference,
        image_weights as image_weights,
        interval as interval,
        mean_statistic as mean_statistic,
    )
    from wsolnb.metrics.detection import DetectionAP as DetectionAP
    from wsolnb.metrics.ilsvrc import GuessLocalizationError as GuessLocalizationError
    from wsolnb.metrics.localization import MaxBoxAcc as MaxBoxAcc, MaxBoxAccV2 as MaxBoxAccV2
    from wsolnb.metrics.pixels import PxAP as PxAP
    from wsolnb.metrics.points import PointAP as PointAP
    from wsolnb.metrics.ranking import Ranking as Ranking
    from wsolnb.metrics.topk import (
        CorLoc as CorLoc,
        TopLocalization as TopLocalization,
        select_class_maps as select_class_maps,
    )
    from wsolnb.metrics.voc import VOCAP as VOCAP

_EXPORTS = {
    "bootstrap": ("Interval", "Statistic", "difference", "image_weights", "interval", "mean_statistic"),
    "detection": ("DetectionAP",),
    "ilsvrc": ("GuessLocalizationError",),
    "localization": ("MaxBoxAcc", "MaxBoxAccV2"),
    "pixels": ("PxAP",),
    "points": ("PointAP",),
    "ranking": ("Ranking",),
    "topk": ("CorLoc", "TopLocalization", "select_class_maps"),
    "voc": ("VOCAP",),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name on first use: metrics bring torchmetrics, which takes longer to import than torch."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULE_OF]
