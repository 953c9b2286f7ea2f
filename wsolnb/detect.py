"""Several classes in one image: read every class's map and score from a classifier, then turn them into detections.

    scenes -> features -> readout (maps of all classes, one score per class) -> box rule -> detections

Maps are computed once and kept at feature resolution, so that a threshold can be tuned or dragged without running the
network again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from wsolnb.boxes import BoxRule
from wsolnb.data.scenes import scene_batches
from wsolnb.losses import CosineLoss, Objective
from wsolnb.maps import class_activation_maps, class_scores, dense_class_embeddings, similarity_maps
from wsolnb.metrics.bootstrap import Statistic
from wsolnb.metrics.detection import DetectionAP
from wsolnb.metrics.guesses import GuessLocalizationError
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

    Example:
        >>> from wsolnb.losses import CrossEntropy
        >>> from wsolnb.models.cam import classifier
        >>> net = classifier("tiny", 5).eval()
        >>> maps, scores = cam_readout(net, CrossEntropy())(net.features(torch.rand(2, 3, 64, 96)))
        >>> maps.shape, scores.shape
        (torch.Size([2, 5, 8, 12]), torch.Size([2, 5]))
    """

    def read(features: Tensor) -> tuple[Tensor, Tensor]:
        maps = class_activation_maps(features, model.head.weight, model.head.bias)
        scores = objective.scores(model.classify(features))
        if isinstance(objective, CosineLoss):
            maps = similarity_maps(maps, objective.embeddings)
        return maps, scores

    return read


def dcm_readout(model: Classifier, objective: CosineLoss) -> Readout:
    """Similarity maps of dense class embeddings (barz2022 Eqs. 6 and 7a), scored per class by Eq. 8.

    Example:
        >>> from wsolnb.models.cam import classifier
        >>> net = classifier("tiny", 5).eval()
        >>> sim, scores = dcm_readout(net, CosineLoss(torch.eye(5)))(net.features(torch.rand(2, 3, 64, 96)))
        >>> sim.shape, scores.shape
        (torch.Size([2, 5, 8, 12]), torch.Size([2, 5]))
    """

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

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.losses import CrossEntropy
        >>> from wsolnb.models.cam import classifier
        >>> world = World(families=2, species=2)
        >>> net = classifier("tiny", 4).eval()
        >>> found = read_scenes(net, world.scenes(3, seed=0), {"cam": cam_readout(net, CrossEntropy())})["cam"]
        >>> found.scores.shape, len(found.maps)
        (torch.Size([3, 4]), 3)
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
        Per image `boxes` (xyxy in pixels of the original image), `scores`, `labels`.

    Example:
        >>> maps = torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]]])  # two classes, 1 x 2 cells
        >>> found = SceneMaps([maps], torch.tensor([[0.7, 0.3]]), torch.tensor([[10, 20]]), [{}])
        >>> detections(found, BoxRule(0.5))
        [{'boxes': tensor([[10.,  0., 20., 10.]]), 'scores': tensor([0.7000]), 'labels': tensor([0])}]
    """
    (boxes,) = _boxes(found, rule, [rule.threshold])
    return _predictions(found, boxes, score_threshold)


def _boxes(found: SceneMaps, rule: BoxRule, thresholds: Sequence[float]) -> list[list[Tensor]]:
    """For every threshold, the boxes of all classes of every image, `(K, 4)` each."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, (maps, size) in enumerate(zip(found.maps, found.sizes.tolist(), strict=True)):
        groups[(*maps.shape, *size)].append(index)
    result: list[list[Tensor]] = [[torch.empty(0)] * len(found.maps) for _ in thresholds]
    for indices in groups.values():
        at = rule.at(torch.stack([found.maps[i] for i in indices]), found.sizes[indices], thresholds)
        for row, boxes in zip(result, at.to(found.scores.device), strict=True):
            for index, box in zip(indices, boxes, strict=True):
                row[index] = box
    return result


def _predictions(found: SceneMaps, boxes: Sequence[Tensor], score_threshold: float = 0.0) -> list[Prediction]:
    result: list[Prediction] = []
    for box, scores in zip(boxes, found.scores, strict=True):
        labels = ((scores > score_threshold) & box.isfinite().all(dim=1)).nonzero().flatten()
        result.append({"boxes": box[labels], "scores": scores[labels], "labels": labels})
    return result


def tune_threshold(
    found: SceneMaps, rule: BoxRule, thresholds: Sequence[float], *, iou: float = 0.25
) -> dict[float, float]:
    """Mean average precision for every threshold of the box rule (`ϑ_bbox` of barz2022 Sec. 4.4.2).

    Give it training scenes: the threshold that is best here is then used, unchanged, on the test scenes.

    Returns:
        Threshold to mAP at the given IoU, in the order given; the best is `max(curve, key=curve.get)`.

    Example:
        >>> maps = torch.tensor([[[0.4, 1.0]]])
        >>> truth = {"boxes": torch.tensor([[10.0, 0.0, 20.0, 10.0]]), "labels": torch.tensor([0])}
        >>> found = SceneMaps([maps], torch.tensor([[0.7]]), torch.tensor([[10, 20]]), [truth])
        >>> tune_threshold(found, BoxRule(), [0.2, 0.6], iou=0.6)
        {0.2: 0.0, 0.6: 1.0}
    """
    curve = {}
    every = _boxes(found, rule, thresholds)
    for threshold, boxes in zip(thresholds, track(every, "thresholds"), strict=True):
        metric = DetectionAP(classes=found.scores.shape[1], iou_thresholds=(iou,))
        metric.update(_predictions(found, boxes), found.targets)
        curve[threshold] = float(metric.compute()[f"mAP@{iou:g}"])
    return curve


def detection_evidence(
    judged: DetectionAP, single: GuessLocalizationError, *, recall: float = 0.3
) -> dict[str, Statistic]:
    """What a claim about detections is tested on: statistics by the names that `papers/barz2022` gives them.

    Args:
        judged: Detections on scenes, at IoU 0, 0.25 and 0.5.
        single: Guesses on images with one object.
        recall: Where precision is read, all classes pooled, at IoU 0.25.

    Returns:
        `ap0`, `ap25`, `ap50`, `p_at_r30` over the scenes, `top5_loc_error` over the single-object images.

    Example:
        >>> truth = {"boxes": torch.tensor([[10.0, 0.0, 20.0, 10.0]]), "labels": torch.tensor([0])}
        >>> guess = {"boxes": truth["boxes"], "labels": truth["labels"], "scores": torch.tensor([0.7])}
        >>> judged, single = DetectionAP(classes=1, iou_thresholds=(0, 0.25, 0.5)), GuessLocalizationError(classes=1)
        >>> judged.update([guess], [truth])
        >>> single.update([guess], [truth])
        >>> evidence = detection_evidence(judged, single)
        >>> float(evidence["ap50"](torch.ones(1, 1))), float(evidence["top5_loc_error"](torch.ones(1, 1)))
        (1.0, 0.0)
    """
    pooled, at = judged.ranking(0.25).pooled(), torch.tensor([recall])
    return {
        "ap0": judged.statistic(0),
        "ap25": judged.statistic(0.25),
        "ap50": judged.statistic(0.5),
        "p_at_r30": lambda weights: pooled.precision(at, weights)[:, 0, 0],
        "top5_loc_error": single.statistic(),
    }


def background_similarity(raw: SceneMaps, counts: Sequence[int]) -> dict[int, float]:
    """How near background comes to the nearest class, if the network had fewer outputs.

    The outputs of a one-hot cosine network before normalisation are cut to the first `C` classes, normalised in every
    cell, and the largest entry is taken where no object is.

    Args:
        raw: Maps `W·ψ + b` of a one-hot network, from `cam_readout`.
        counts: Numbers of classes `C`.

    Returns:
        Number of classes to the median of the largest similarity over all background cells.

    Example:
        >>> truth = {"boxes": torch.tensor([[10.0, 0.0, 20.0, 10.0]]), "labels": torch.tensor([0])}
        >>> outputs = torch.tensor([[[3.0, 1.0]], [[4.0, 0.0]]])  # two classes, 1 x 2 cells
        >>> raw = SceneMaps([outputs], torch.zeros(1, 2), torch.tensor([[10, 20]]), [truth])
        >>> {c: round(s, 2) for c, s in background_similarity(raw, [1, 2]).items()}
        {1: 1.0, 2: 0.8}
    """
    cells = []
    for maps, size, target in zip(raw.maps, raw.sizes, raw.targets, strict=True):
        (h, w), (height, width) = maps.shape[1:], size.tolist()
        y, x = (torch.arange(h) + 0.5) * height / h, (torch.arange(w) + 0.5) * width / w
        x0, y0, x1, y1 = target["boxes"].as_subclass(Tensor)[:, :, None].unbind(1)
        inside = ((y >= y0) & (y < y1))[:, :, None] & ((x >= x0) & (x < x1))[:, None, :]
        cells.append(maps[:, ~inside.any(dim=0).to(maps.device)])
    outputs = torch.cat(cells, dim=1).float()
    return {c: float(F.normalize(outputs[:c], dim=0).amax(dim=0).median()) for c in counts}
