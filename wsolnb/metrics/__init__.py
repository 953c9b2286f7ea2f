"""Scores of maps and boxes, and their bootstrap intervals."""

from wsolnb.metrics.bootstrap import Interval, Statistic, difference, image_weights, interval, mean_statistic
from wsolnb.metrics.detection import DetectionAP
from wsolnb.metrics.ilsvrc import GuessLocalizationError
from wsolnb.metrics.localization import MaxBoxAcc, MaxBoxAccV2
from wsolnb.metrics.pixels import PxAP
from wsolnb.metrics.points import PointAP
from wsolnb.metrics.ranking import Ranking
from wsolnb.metrics.topk import CorLoc, TopLocalization, select_class_maps
from wsolnb.metrics.voc import VOCAP

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
