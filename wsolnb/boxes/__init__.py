"""From maps to boxes: box rules with the field's presets, and the IoU of boxes."""

from wsolnb.boxes.overlap import iou as iou
from wsolnb.boxes.rule import PRESETS as PRESETS, BoxRule as BoxRule
