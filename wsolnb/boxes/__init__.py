"""From a map to boxes, and how well boxes agree."""

from wsolnb.boxes.overlap import iou
from wsolnb.boxes.rule import PRESETS, BoxRule

__all__ = ["PRESETS", "BoxRule", "iou"]
