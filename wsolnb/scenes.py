"""Several classes in one image: read every class's map and score from a classifier, then turn them into detections.

    scenes -> features -> readout (maps of all classes, one score per class) -> box rule -> detections

Maps are computed once and kept at feature resolution, so that a threshold can be tuned or dragged without running the
network again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import to_dtype

from wsolnb.boxes import BoxRule
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
        scores = objective.scores(model.head(features.mean(dim=(2, 3))))
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
    """Maps and scores of all classes for every image of a data set, in its order.

    Args:
        maps: One float tensor `(C, h, w)` per image.
        scores: `(N, C)`.
        sizes: Height and width of every image in pixels, int64 `(N, 2)`.
    """

    maps: Sequence[Tensor]
    scores: Tensor
    sizes: Tensor

    def __len__(self) -> int:
        return len(self.maps)


@torch.inference_mode()
def read_scenes(
    model: Classifier, scenes: Dataset[Any], readouts: Mapping[str, Readout], *, batch_size: int = 32
) -> dict[str, SceneMaps]:
    """Run a classifier over whole scenes, once, and read its features in several ways.

    Images of one size go through the network together, up to `batch_size` at a time.

    Args:
        model: In evaluation mode, on its device.
        scenes: Items `(image, target)`, images uint8 or float in [0, 1], of any sizes.
        readouts: Named ways to read the features.
        batch_size: Largest number of images in one pass.

    Returns:
        For every readout the maps of all images, on the model's device.
    """
    device = next(model.parameters()).device
    found: dict[str, dict[int, tuple[Tensor, Tensor]]] = {name: {} for name in readouts}
    sizes: dict[int, tuple[int, int]] = {}
    for indices, images in _batches(scenes, batch_size):
        features = model.features(to_dtype(images.to(device), torch.float32, scale=True))
        sizes |= dict.fromkeys(indices, (images.shape[2], images.shape[3]))
        for name, read in readouts.items():
            maps, scores = read(features)
            found[name] |= {i: (m, s) for i, m, s in zip(indices, maps, scores, strict=True)}
    order = range(len(sizes))
    return {
        name: SceneMaps(
            [results[i][0] for i in order],
            torch.stack([results[i][1] for i in order]),
            torch.tensor([sizes[i] for i in order]),
        )
        for name, results in found.items()
    }


def _batches(scenes: Dataset[Any], batch_size: int) -> Iterator[tuple[list[int], Tensor]]:
    waiting: dict[torch.Size, list[tuple[int, Tensor]]] = defaultdict(list)
    for index in track(range(len(scenes)), "scenes"):  # type: ignore[arg-type]
        image = scenes[index][0].as_subclass(Tensor)
        group = waiting[image.shape]
        group.append((index, image))
        if len(group) == batch_size:
            yield [i for i, _ in group], torch.stack([x for _, x in group])
            group.clear()
    for group in waiting.values():
        if group:
            yield [i for i, _ in group], torch.stack([x for _, x in group])


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
    found: SceneMaps,
    targets: Sequence[Mapping[str, Any]],
    rule: BoxRule,
    thresholds: Sequence[float],
    *,
    iou: float = 0.25,
) -> dict[float, float]:
    """Mean average precision for every threshold of the box rule (`ϑ_bbox` of barz2022 Sec. 4.4.2).

    Give it training scenes: the threshold that is best here is then used, unchanged, on the test scenes.

    Returns:
        Threshold to mAP at the given IoU, in the order given; the best is `max(curve, key=curve.get)`.
    """
    curve = {}
    for threshold in track(thresholds, "thresholds"):
        metric = DetectionAP(classes=found.scores.shape[1], iou_thresholds=(iou,))
        metric.update(detections(found, replace(rule, threshold=threshold)), targets)
        curve[threshold] = float(metric.compute()[f"mAP@{iou:g}"])
    return curve
