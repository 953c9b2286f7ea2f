"""Several classes in one image: read every class's map and score from a classifier, then turn them into detections.

    scenes -> features -> readout (maps of all classes, one score per class) -> box rule -> detections

Maps are computed once and kept at feature resolution, so that a threshold can be tuned or dragged without running the
network again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wsolnb.boxes import BoxRule
from wsolnb.data.scenes import scene_batches
from wsolnb.losses import CosineLoss, Objective
from wsolnb.maps import class_activation_maps, class_scores, dense_class_embeddings, similarity_maps
from wsolnb.metrics.detection import DetectionAP
from wsolnb.models.cam import Classifier
from wsolnb.progress import track

Readout = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Features `(B, D, h, w)` to maps of all classes `(B, C, h, w)` and one score per class `(B, C)`."""

Prediction = dict[str, Tensor]
"""Torchvision's form: `boxes` `(m, 4)`, `scores` `(m,)`, `labels` `(m,)`."""


def cam_readout(model: Classifier, objective: Objective) -> Readout:
    """Class activation maps, scored by the classifier's own output for the whole image.

    Maps are Eq. 4 of barz2022. For a network trained with the cosine loss on embeddings `φ` the map of class c is
    `<W·ψ_ij + b, φ(c)>`, without normalisation in the cell. Scores are those of the pooled output: softmax
    probabilities, or cosine similarities.
    """

    def read(features: Tensor) -> tuple[Tensor, Tensor]:
        maps = class_activation_maps(features, model.head.weight, model.head.bias)
        scores = objective.scores(model.classify(features))
        if isinstance(objective, CosineLoss):
            maps = similarity_maps(maps, objective.embeddings)
        return maps, scores

    return read


def dcm_readout(model: Classifier, objective: CosineLoss) -> Readout:
    """Similarity maps of dense class embeddings (barz2022 Eqs. 6 and 7a), scored per class by Eq. 8."""

    def read(features: Tensor) -> tuple[Tensor, Tensor]:
        dce = dense_class_embeddings(features, model.head.weight, model.head.bias)
        sim = similarity_maps(dce, objective.embeddings)
        return sim, class_scores(sim)

    return read


@dataclass(frozen=True)
class SceneMaps:
    """Maps and scores of all classes for every image of a data set, in its order, with the truth about it.

    Args:
        maps: One float tensor `(C, h, w)` per image.
        scores: `(N, C)`.
        sizes: Original height and width of every image in pixels, int64 `(N, 2)`.
        targets: The truth about every image, boxes in original pixels.
    """

    maps: Sequence[Tensor]
    scores: Tensor
    sizes: Tensor
    targets: Sequence[Mapping[str, Any]]

    def __len__(self) -> int:
        return len(self.maps)


@torch.inference_mode()
def read_scenes(
    model: Classifier,
    scenes: Dataset[Any],
    readouts: Mapping[str, Readout],
    *,
    longer_side: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
) -> dict[str, SceneMaps]:
    """Run a classifier over whole scenes, once, and read its features in several ways.

    Args:
        model: In evaluation mode, on its device.
        scenes: Items `(image, target)` without a transform, of any sizes.
        readouts: Named ways to read the features.
        longer_side: Size to which images are brought first (barz2022 Sec. 3.3: 640); None keeps theirs.
        batch_size: Largest number of images, all of one size, in one pass.
        workers: Processes that decode.

    Returns:
        For every readout the maps of all images, on the model's device.
    """
    device = next(model.parameters()).device
    count: int = len(scenes)  # type: ignore[arg-type]
    sizes = torch.zeros(count, 2, dtype=torch.int64)
    targets: list[Any] = [None] * count
    maps: dict[str, list[Any]] = {name: [None] * count for name in readouts}
    scores: dict[str, list[Any]] = {name: [None] * count for name in readouts}
    batches = scene_batches(scenes, longer_side=longer_side, batch_size=batch_size, workers=workers)
    for batch in track(batches, "scenes"):
        features = model.features(batch.images.to(device))
        sizes[batch.indices] = batch.sizes
        found = {name: read(features) for name, read in readouts.items()}
        for row, index in enumerate(batch.indices):
            targets[index] = batch.targets[row]
            for name, (m, s) in found.items():
                maps[name][index], scores[name][index] = m[row], s[row]
    return {name: SceneMaps(maps[name], torch.stack(scores[name]), sizes, targets) for name in readouts}


def detections(found: SceneMaps, rule: BoxRule, *, score_threshold: float = 0.0) -> list[Prediction]:
    """One box per class and image: the rule applied to the class's own map (barz2022 Sec. 3.3).

    Args:
        found: Maps and scores.
        rule: How a map becomes a box.
        score_threshold: Classes scoring at most this get no box (`ϑ_score`, strict). At its default 0 a dense class
            map leaves out just the classes without a cell.

    Returns:
        Per image `boxes` (xyxy in pixels of the image as given), `scores`, `labels`.
    """
    result = []
    for maps, scores, size in zip(found.maps, found.scores, found.sizes, strict=True):
        present = (scores > score_threshold).nonzero().flatten()
        boxes = rule(maps[present][None], size[None])[0].to(scores.device)
        drawn = boxes.isfinite().all(dim=1)
        result.append({"boxes": boxes[drawn], "scores": scores[present][drawn], "labels": present[drawn]})
    return result


def tune_threshold(
    found: SceneMaps, rule: BoxRule, thresholds: Sequence[float], *, iou: float = 0.25
) -> dict[float, float]:
    """Mean average precision for every threshold of the box rule (`ϑ_bbox` of barz2022 Sec. 4.4.2).

    Give it training scenes: the threshold that is best here is then used, unchanged, on the test scenes.

    Returns:
        Threshold to mAP at the given IoU, in the order given; the best is `max(curve, key=curve.get)`.
    """
    curve = {}
    for threshold in track(thresholds, "thresholds"):
        metric = DetectionAP(classes=found.scores.shape[1], iou_thresholds=(iou,))
        metric.update(detections(found, replace(rule, threshold=threshold)), found.targets)
        curve[threshold] = float(metric.compute()[f"mAP@{iou:g}"])
    return curve
