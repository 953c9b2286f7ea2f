"""Evaluation of every method: one object per image, several objects per image, and cost of an image and of training.

Thresholds are chosen on held-out images, once for single objects and once for scenes. Numbers at the threshold that is
best on the test images themselves, as in the field's evaluator, are `max_box_acc` and `max_box_acc_v2`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import to_dtype

from wsolnb.boxes import BoxRule
from wsolnb.data.labels import labels_of
from wsolnb.localization.detect import Prediction, detections, tune_threshold
from wsolnb.localization.locate import LocalizationResult, tune_and_evaluate
from wsolnb.localization.maps import LocalizationMaps, SceneMaps
from wsolnb.localization.points import judge_points
from wsolnb.localization.read import Labels, Reader, truth_of
from wsolnb.losses import Objective
from wsolnb.metrics import DetectionAP, MaxBoxAccV2, mean_statistic
from wsolnb.metrics.bootstrap import Statistic
from wsolnb.models.cost import multiply_adds, tensor_memory
from wsolnb.papers.method import Fitted, Method
from wsolnb.train.batches import collate

CANDIDATES = tuple(round(0.05 + 0.1 * k, 2) for k in range(10))
"""Thresholds tried on held-out scenes; twice these for a percentile, which may lie below the object's values."""

SIZES = ("small", "middle", "large")
"""Thirds of the test images by the area of their object."""


def own_class(found: SceneMaps, side: int, method: Method) -> LocalizationMaps:
    """The true class's maps, for images of one object class each, to be upsampled as the method does.

    Boxes are scaled to squares of `side` pixels, to which images were resized.

    Example:
        >>> from wsolnb.papers.side_by_side.methods import METHODS
        >>> truth = {"boxes": torch.tensor([[16.0, 8.0, 32.0, 24.0]]), "labels": torch.tensor([1])}
        >>> found = SceneMaps([torch.rand(3, 4, 4)], torch.rand(1, 3), torch.tensor([[32, 64]]), [truth])
        >>> own_class(found, 16, METHODS["cam"]).boxes
        [tensor([[ 4.,  4.,  8., 12.]])]
    """
    labels, boxes, masks = truth_of(found.targets)
    scales = side / found.sizes.flip(1).float().repeat(1, 2)
    boxes = [box * scale for box, scale in zip(boxes, scales, strict=True)]
    masks = masks if bool((found.sizes == side).all()) else {}
    rows = labels.tolist() if len(found.maps[0]) > 1 else [0] * len(labels)  # one map for all classes
    maps = torch.stack([each[row] for each, row in zip(found.maps, rows, strict=True)])
    return LocalizationMaps(maps, found.scores, labels, boxes, (side, side), masks, method.upsample)


def judge_single(method: Method, held_out: SceneMaps, test: SceneMaps, side: int) -> LocalizationResult:
    """A box of the true class in every image, at the threshold that is best on the held-out images.

    `held_out` and `test` are the method's maps of images resized to squares of `side` pixels.

    Example:
        >>> from wsolnb.papers.side_by_side.methods import METHODS
        >>> truth = {"boxes": torch.tensor([[16.0, 8.0, 32.0, 24.0]]), "labels": torch.tensor([0])}
        >>> maps = torch.nn.functional.pad(torch.ones(1, 16, 16), (16, 0, 8, 8))
        >>> found = SceneMaps([maps], torch.tensor([[0.9]]), torch.tensor([[32, 32]]), [truth])
        >>> judge_single(METHODS["cam"], found, found, 32).boxes([0])
        tensor([[16.,  8., 32., 24.]])
    """
    return tune_and_evaluate(own_class(held_out, side, method), own_class(test, side, method), method.rule())


def evidence(result: LocalizationResult) -> dict[str, Statistic]:
    """The numbers of single objects as functions of image weights, from `judge_single`'s result.

    `top1_cls`; `gt_known` and `top1_loc` at the chosen threshold; `max_box_acc`, `max_box_acc_v2` and, where there are
    masks, `pxap`, over all thresholds; `gt_known` by size (`gt_known small` ...).

    Example:
        >>> from wsolnb.papers.side_by_side.methods import METHODS
        >>> truth = {"boxes": torch.tensor([[16.0, 8.0, 32.0, 24.0]]), "labels": torch.tensor([0])}
        >>> maps = torch.nn.functional.pad(torch.ones(1, 16, 16), (16, 0, 8, 8))
        >>> found = SceneMaps([maps], torch.tensor([[0.9]]), torch.tensor([[32, 32]]), [truth])
        >>> numbers = evidence(judge_single(METHODS["cam"], found, found, 32))
        >>> float(numbers["gt_known small"](torch.ones(1, 1)))
        1.0
    """
    numbers = result.evidence()
    numbers["max_box_acc"] = numbers.pop("gt_known_oracle")
    own = result.rule
    several = replace(BoxRule.preset("wsoleval_multi"), reference=own.reference, percentile=own.percentile)
    second = MaxBoxAccV2(rule=several, thresholds=100, per_image=True, sync_on_compute=False)
    second.update(result.maps.upsampled(), result.maps.boxes)
    numbers["max_box_acc_v2"] = second.statistic()
    right = result.correct()
    area = torch.stack([(box[:, 2:] - box[:, :2]).prod(dim=1).amax() for box in result.maps.boxes])
    third = (3 * area.argsort().argsort()).div(len(area), rounding_mode="floor")
    return numbers | {f"gt_known {size}": mean_statistic(right, third == k) for k, size in enumerate(SIZES)}


@dataclass(frozen=True)
class SceneResult:
    """Detections of a method in scenes: one box per class and image, at the threshold of the held-out scenes.

    `found` are maps and truth of the test scenes, `rule` turns maps into `boxes`, `judged` is their average precision.
    """

    found: SceneMaps
    rule: BoxRule
    boxes: list[Prediction]
    judged: DetectionAP

    def evidence(self) -> dict[str, Statistic]:
        """`ap0`, `ap25`, `ap50`, `point_ap` and `point_ap_heat` as functions of image weights.

        Boxes and the points of `point_ap` are ranked by class scores, those of `point_ap_heat` by the maxima of maps:
        methods are compared under the same kind of score.
        """
        numbers = {f"ap{round(100 * iou)}": self.judged.statistic(iou) for iou in self.judged.iou_thresholds}
        numbers["point_ap"] = judge_points(self.found, rank="class").statistic()
        return numbers | {"point_ap_heat": judge_points(self.found, rank="heat").statistic()}

    def on(self, found: SceneMaps) -> SceneResult:
        """The same rule and threshold on other scenes."""
        return _detected(found, self.rule)

    def best(self, count: int) -> list[Prediction]:
        """The boxes of the `count` best-scored classes of every scene, for figures."""
        order = [each["scores"].argsort(descending=True)[:count] for each in self.boxes]
        pairs = zip(self.boxes, order, strict=True)
        return [{name: values[rows] for name, values in each.items()} for each, rows in pairs]


def judge_scenes(method: Method, held_out: SceneMaps, test: SceneMaps) -> SceneResult:
    """Detect every class in scenes, at the threshold with the best average precision (IoU 0.25) on held-out scenes.

    The boxes of a class are ranked by its score.

    Raises:
        ValueError: If the method's map is the same for all classes.

    Example:
        >>> from wsolnb.papers.side_by_side.methods import METHODS
        >>> truth = {"boxes": torch.tensor([[16.0, 8.0, 32.0, 24.0]]), "labels": torch.tensor([0])}
        >>> maps = torch.nn.functional.pad(torch.ones(1, 16, 16), (16, 0, 8, 8))
        >>> found = SceneMaps([maps], torch.tensor([[0.9]]), torch.tensor([[32, 32]]), [truth])
        >>> float(judge_scenes(METHODS["dcm-onehot"], found, found).evidence()["ap50"](torch.ones(1, 1)))
        1.0
    """
    if not method.class_specific:
        raise ValueError(f"{method.key} has one map for all classes: it cannot find several classes in one image")
    rule = method.rule(scenes=True)
    curve = tune_threshold(held_out, rule, [(1 + method.percentile) * threshold for threshold in CANDIDATES])
    rule = replace(rule, threshold=max(curve, key=lambda threshold: curve[threshold]))
    return _detected(test, rule)


def _detected(found: SceneMaps, rule: BoxRule) -> SceneResult:
    boxes = detections(found, rule, score_threshold=-1.0)
    judged = DetectionAP(found.scores.shape[1], (0, 0.25, 0.5), sync_on_compute=False)
    judged.update(boxes, found.targets)
    return SceneResult(found, rule, boxes, judged)


def cost(
    read: Reader, plain: Callable[[Tensor], Any], image: Tensor, labels: Labels, *, repeats: int = 0
) -> dict[str, float]:
    """Cost of the maps and scores of one image `(1, 3, S, S)` and class, int64 `(1,)` in a list.

    `passes` are multiply-adds in units of the forward pass of a `plain` classifier; `memory` is the largest size of
    tensors alive at once, in 10^6 bytes; with repeats, `milliseconds` is the median of so many runs.

    Example:
        >>> net = torch.nn.Conv2d(3, 8, 3)
        >>> image = torch.rand(1, 3, 20, 30)
        >>> cost(lambda images, labels: (net(images), net(images)), net, image, [torch.tensor([0])])["passes"]
        2.0
    """
    with torch.inference_mode():
        found = {"passes": multiply_adds(read, image, labels) / multiply_adds(plain, image)}
        found["memory"] = tensor_memory(read, image, labels) / 1e6
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            read(image, labels)
            times.append(1000 * (time.perf_counter() - started))
    return found | ({"milliseconds": sorted(times)[len(times) // 2]} if times else {})


def training_cost(
    fitted: Fitted, plain: Callable[[Tensor], Any], images: Dataset[Any], sample: int = 24
) -> dict[str, float]:
    """Cost of a method's trainings, those of the networks that it needs included.

    `trainings` is their number; `train_passes` their passes over the images, each weighted by the multiply-adds of
    network and objective for a `sample` of the images in units of a `plain` classifier's forward pass (backward passes
    are taken to be in proportion); `train_seconds` what the steps took, or had taken when they were cached.

    Example:
        >>> from wsolnb.papers.side_by_side.methods import METHODS
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.losses import CrossEntropy
        >>> from wsolnb.models.cam import classifier
        >>> from wsolnb.papers.method import Trained
        >>> from wsolnb.train import Training
        >>> network, images = classifier("tiny", 4).eval(), World(families=2, species=2, size=32).singles(24)
        >>> history = [{"epoch": 1, "images_per_second": 12.0}, {"epoch": 2, "images_per_second": 12.0}]
        >>> networks = {"gap": Trained(network, CrossEntropy(), Training(history))}
        >>> training_cost(Fitted(METHODS["cam"], networks), network, images)
        {'trainings': 1, 'train_passes': 2.0, 'train_seconds': 4.0}
    """
    count: int = len(images)  # type: ignore[arg-type]
    by_class = labels_of(images).argsort(stable=True)  # so that classes occur more than once, as pairs of images need
    batch, labels = collate([images[index] for index in by_class[:sample].tolist()])
    found = {"trainings": 0, "train_passes": 0.0, "train_seconds": 0.0}
    for name in dict.fromkeys([*(method.network for method in fitted.method.needs), fitted.method.network]):
        network, objective, training = fitted.networks[name][:3]
        device = next(network.parameters()).device
        shown = to_dtype(batch.to(device), torch.float32, scale=True)
        forward = multiply_adds(_loss, network, objective, shown, labels.to(device))
        found["trainings"] += 1
        found["train_passes"] += len(training.history) * forward / multiply_adds(plain, shown)
        found["train_seconds"] += sum(count / record["images_per_second"] for record in training.history)
    return found


def _loss(network: nn.Module, objective: Objective, images: Tensor, labels: Tensor) -> Tensor:
    return objective(network(images), labels)
