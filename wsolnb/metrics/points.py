"""Localization by a point: does the strongest response of a map lie inside an object? Needs no box threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wsolnb.metrics._checks import check_targets, require_shape
from wsolnb.metrics._state import RankedMetric, image_order
from wsolnb.metrics.ranking import Interpolation, Ranking


class PointAP(RankedMetric):
    """Average precision of points (oquab2015): one scored point per image and class.

    A point, the centre of the map's strongest cell, is right if it lies in a box of its class or within ``tolerance``
    pixels of one (Oquab et al. allow 18), else it is a false positive. Every image that shows the class is one
    positive; images that show it only as a crowd are ignored.

    Example:
        >>> metric, maps = PointAP(classes=1), torch.tensor([[[[0.1, 0.9, 0.2]]]])
        >>> target = {"boxes": torch.tensor([[20.0, 0.0, 40.0, 30.0]]), "labels": torch.tensor([0])}
        >>> metric.update(maps, torch.tensor([[0.8]]), [target], torch.tensor([[30, 60]]))
        >>> metric.compute()["mAP"]
        tensor(1., dtype=torch.float64)
    """

    def __init__(
        self, classes: int, tolerance: float = 0.0, interpolation: Interpolation = "area", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if math.isnan(tolerance):
            raise ValueError("tolerance is NaN: give the pixels by which boxes are enlarged")
        self.classes = classes
        self.tolerance = tolerance
        self.interpolation = interpolation
        self.add_column("scores", torch.float64, classes)
        self.add_column("verdict", torch.uint8, classes)
        self.add_column("image_id", torch.int64)

    def update(self, maps: Tensor, scores: Tensor, targets: Sequence[Mapping[str, Any]], sizes: Tensor) -> None:
        """Add a batch of images.

        Args:
            maps: ``(B, C, h, w)`` at any resolution, of which only the maximum is used (the first in raster order).
            scores: Class scores that rank the images, ``(B, C)``.
            targets: One per image, as for :meth:`wsolnb.metrics.DetectionAP.update`.
            sizes: Height and width of the images in pixels, ``(B, 2)``.

        Raises:
            ValueError: If counts or shapes differ, a map or score is not finite, or a target is malformed.
        """
        require_shape(maps, (len(targets), self.classes, None, None), "maps")
        require_shape(scores, (len(targets), self.classes), "scores")
        require_shape(sizes, (len(targets), 2), "sizes")
        for what, values in (("map", maps), ("score", scores)):
            bad = ~values.isfinite().flatten(1).all(dim=1)
            if bool(bad.any()):
                raise ValueError(f"a {what} of image {int(bad.nonzero()[0])} of this batch is not finite")
        truth = check_targets(targets, self.classes)
        height, width = maps.shape[2:]
        peak = maps.flatten(2).argmax(dim=2).cpu()
        cell = torch.stack([peak % width, peak // width], dim=2).double() + 0.5
        point = cell * (sizes.cpu().double().flip(1) / torch.tensor([width, height])).unsqueeze(1)
        verdict = torch.zeros(len(targets), self.classes, dtype=torch.uint8)
        if truth["true_count"].any():
            image = torch.arange(len(targets)).repeat_interleave(truth["true_count"].cpu())
            label, boxes = truth["true_labels"].cpu(), truth["true_boxes"].cpu().double()
            box_point = point[image, label]
            inside = (box_point >= boxes[:, :2] - self.tolerance) & (box_point < boxes[:, 2:] + self.tolerance)
            codes = torch.where(truth["true_crowd"].cpu().bool(), _CROWD, _OUTSIDE + inside.all(dim=1).to(torch.uint8))
            # of several boxes of a class the best verdict counts
            verdict.view(-1).scatter_reduce_(0, image * self.classes + label, codes.to(torch.uint8), "amax")
        self.append("scores", scores)
        self.append("verdict", verdict)
        self.append("image_id", truth["image_id"])

    def _rank(self) -> Ranking:
        order = image_order(self.column("image_id"))
        scores, verdict = self.column("scores")[order].cpu(), self.column("verdict")[order].cpu()
        image, klass = (x.flatten() for x in torch.meshgrid(*map(torch.arange, scores.shape), indexing="ij"))
        shown = (verdict >= _OUTSIDE).flatten()
        inside, crowd = (verdict == _INSIDE).flatten(), (verdict == _CROWD).flatten()
        common = (image, klass, image[shown], klass[shown])
        return Ranking(scores.flatten(), inside, crowd, *common, images=len(scores), classes=self.classes)


_CROWD, _OUTSIDE, _INSIDE = 1, 2, 3  # in rising order; 0: the image does not show the class
