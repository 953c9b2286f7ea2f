"""Scores of maps and boxes, and how sure we are of them."""

from wsolnb.metrics.bootstrap import Interval, Statistic, difference, image_weights, interval
from wsolnb.metrics.detection import DetectionAP
from wsolnb.metrics.guesses import GuessLocalizationError
from wsolnb.metrics.ranking import Ranking

__all__ = [
    "DetectionAP",
    "GuessLocalizationError",
    "Interval",
    "Ranking",
    "Statistic",
    "difference",
    "image_weights",
    "interval",
]
