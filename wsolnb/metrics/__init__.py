"""Scores of maps and boxes, and how sure we are of them."""

from wsolnb.metrics.baselines import baseline_maps, box_maps, centred_gaussian, random_boxes
from wsolnb.metrics.bootstrap import Interval, Statistic, difference, image_weights, interval
from wsolnb.metrics.detection import DetectionAP
from wsolnb.metrics.distribution import IoUDistribution
from wsolnb.metrics.guesses import GuessLocalizationError
from wsolnb.metrics.localization import MaxBoxAcc, MaxBoxAccV2
from wsolnb.metrics.masks import PxAP
from wsolnb.metrics.points import PointAP
from wsolnb.metrics.ranking import Ranking
from wsolnb.metrics.topk import CorLoc, TopLocalization, read_maps
from wsolnb.metrics.voc import VOCAP

__all__ = [
    "VOCAP",
    "CorLoc",
    "DetectionAP",
    "GuessLocalizationError",
    "Interval",
    "IoUDistribution",
    "MaxBoxAcc",
    "MaxBoxAccV2",
    "PointAP",
    "PxAP",
    "Ranking",
    "Statistic",
    "TopLocalization",
    "baseline_maps",
    "box_maps",
    "centred_gaussian",
    "difference",
    "image_weights",
    "interval",
    "random_boxes",
    "read_maps",
]
