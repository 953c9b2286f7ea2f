"""The localization error of ILSVRC: several guesses, a class with one box each, about the object of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from wsolnb.metrics._checks import check_predictions, check_targets
from wsolnb.metrics._state import ColumnMetric, image_order
from wsolnb.metrics.bootstrap import Statistic, mean_statistic


class GuessLocalizationError(ColumnMetric):
    """ILSVRC localization error of the ``k`` best-scored guesses (barz2022 section 4.3 reports k = 5).

    A guess is a class with one box. An image is right if one of its ``k`` best-scored guesses names a class of the
    image and overlaps a ground-truth box of that class with an IoU of at least ``iou_threshold``. Labels run from 0 to
    ``classes - 1``.

    Example:
        >>> metric = GuessLocalizationError(classes=3, k=2)
        >>> boxes = torch.tensor([[0.0, 0.0, 9.0, 7.0]]).repeat(3, 1)
        >>> guesses = {"boxes": boxes, "scores": torch.tensor([0.5, 0.3, 0.2]), "labels": torch.tensor([0, 1, 2])}
        >>> metric.update([guesses, guesses], [{"boxes": boxes[:1], "labels": torch.tensor([k])} for k in (1, 2)])
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    higher_is_better = False

    def __init__(self, classes: int, k: int = 5, iou_threshold: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold must lie in (0, 1], not {iou_threshold}")
        self.classes = classes
        self.k = k
        self.iou_threshold = iou_threshold
        self._wrongs = torch.empty(0, dtype=torch.bool)
        self.add_column("wrong", torch.uint8)
        self.add_column("image_id", torch.int64)

    def update(self, predictions: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Any]]) -> None:
        """Add a batch of images as :meth:`wsolnb.metrics.DetectionAP.update` takes them; every target needs a box."""
        check_predictions(predictions, len(targets), self.classes)
        self.append("image_id", check_targets(targets, self.classes)["image_id"])
        self.append("wrong", torch.tensor([self._wrong(*pair) for pair in zip(predictions, targets, strict=True)]))

    def compute(self) -> Tensor:
        """Fraction of images without a right guess, float64 on the CPU."""
        self._wrongs = self.column("wrong")[image_order(self.column("image_id"))].bool().cpu()
        return self._wrongs.double().mean()

    def wrongs(self) -> Tensor:
        """Whether an image is wrong, bool ``(n,)``, images sorted by ``image_id``."""
        self.compute()
        return self._wrongs

    def statistic(self) -> Statistic:
        """The error as a function of image weights, images sorted by ``image_id``."""
        return mean_statistic(self.wrongs())

    def _wrong(self, prediction: Mapping[str, Tensor], target: Mapping[str, Any]) -> bool:
        boxes, labels = torch.as_tensor(target["boxes"]), torch.as_tensor(target["labels"])
        if not len(boxes):
            raise ValueError(f"image {target.get('image_id', 'without id')} has no ground-truth box to localize")
        scores = torch.as_tensor(prediction["scores"], dtype=torch.float64)
        best = scores.argsort(descending=True, stable=True)[: self.k]
        overlap = box_iou(torch.as_tensor(prediction["boxes"])[best].double(), boxes.double())
        same = torch.as_tensor(prediction["labels"])[best].unsqueeze(1) == labels.unsqueeze(0)
        return not bool((same & (overlap >= self.iou_threshold)).any())
