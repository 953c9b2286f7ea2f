"""From scenes to detections: readers, grouping of sizes, thresholds, evidence, background."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from wsolnb.boxes import BoxRule
from wsolnb.data.critters import World
from wsolnb.localization.detect import detections, tune_threshold
from wsolnb.localization.maps import SceneMaps
from wsolnb.localization.read import cam_reader, read
from wsolnb.losses import CrossEntropy
from wsolnb.metrics import DetectionAP, GuessLocalizationError
from wsolnb.models.cam import classifier
from wsolnb.papers.barz2022.evaluate import background_similarity, covered_cells, evidence
from wsolnb.papers.barz2022.losses import CosineLoss
from wsolnb.papers.barz2022.maps import (
    class_scores,
    cosine_cam_reader,
    dcm_reader,
)


class Mixed(Dataset[Any]):
    """Scenes of two sizes, in turn."""

    def __init__(self) -> None:
        world = World(size=48)
        self.parts = [world.scenes(3, size=(48, 64)), world.scenes(3, size=(56, 48), seed=1)]

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        image, target = self.parts[index % 2][index // 2]
        return image, target | {"image_id": index}


def block(height: int, width: int, box: tuple[int, int, int, int], value: float = 1.0) -> Tensor:
    x0, y0, x1, y1 = box
    found = torch.zeros(height, width)
    found[y0:y1, x0:x1] = value
    return found


def target(box: list[float], label: int, image_id: int) -> dict[str, Any]:
    return {"boxes": torch.tensor([box]), "labels": torch.tensor([label]), "image_id": image_id}


@pytest.fixture
def two_scenes() -> SceneMaps:
    """Two images of 40 x 60 pixels on 4 x 6 cells; class 0 is right in both, class 1 is nowhere to be seen."""
    first = torch.stack([block(4, 6, (1, 1, 3, 3)), block(4, 6, (4, 0, 5, 1), 0.2)])
    second = torch.stack([block(4, 6, (0, 0, 6, 2)), torch.full((4, 6), -1.0)])
    targets = [target([10, 10, 30, 30], 0, 0), target([0, 0, 60, 20], 0, 1)]
    scores = torch.tensor([[0.9, 0.2], [0.8, 0.1]])
    return SceneMaps([first, second], scores, torch.tensor([[40, 60], [40, 60]]), targets)


def test_scenes_of_several_sizes_keep_their_order() -> None:
    net, objective, scenes = classifier("tiny", 12).eval(), CrossEntropy(), Mixed()
    found = read(scenes, {"cam": cam_reader(net, objective)}, batch_size=2)["cam"]
    assert found.sizes.tolist() == [[48, 64], [56, 48]] * 3
    assert [t["image_id"] for t in found.targets] == list(range(6))
    for index in (1, 4):
        image = scenes[index][0].float()[None] / 255
        with torch.no_grad():
            expected = net(image)
        torch.testing.assert_close(found.maps[index].mean(dim=(1, 2)), expected[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.scores[index], expected[0].softmax(0), rtol=1e-4, atol=1e-6)


def test_readers_of_one_network_share_its_forward_pass() -> None:
    objective = CosineLoss(torch.eye(12))
    net = classifier("tiny", 12).eval()
    passes: list[int] = []
    net.backbone.register_forward_hook(lambda *_: passes.append(1))
    reads = {"cam": cosine_cam_reader(net, objective), "dcm": dcm_reader(net, objective)}
    found = read(World(size=48).scenes(2, size=(48, 64)), reads)
    assert len(passes) == 1  # one batch, two readers
    raw, sim = found["cam"].maps[0], found["dcm"].maps[0]
    torch.testing.assert_close(raw / raw.norm(dim=0), sim)
    torch.testing.assert_close(found["dcm"].scores[0], class_scores(sim[None])[0])


def test_semantic_cam_projects_on_the_classes() -> None:
    embeddings = torch.nn.functional.normalize(torch.rand(5, 3), dim=1)
    net = classifier("tiny", 3).eval()
    maps, scores = cosine_cam_reader(net, CosineLoss(embeddings))(torch.rand(2, 3, 32, 48), None)
    assert maps.shape == (2, 5, 4, 6)
    assert scores.shape == (2, 5)


def test_one_box_per_present_class(two_scenes: SceneMaps) -> None:
    found = detections(two_scenes, BoxRule.preset("dcm", threshold=0.5))
    assert found[0]["boxes"].tolist() == [[10, 10, 30, 30], [40, 0, 50, 10]]
    assert found[0]["labels"].tolist() == [0, 1]
    assert found[1]["boxes"].tolist() == [[0, 0, 60, 20]]  # a map without a positive value gives no box
    sure = detections(two_scenes, BoxRule.preset("dcm"), score_threshold=0.8)
    assert [p["labels"].tolist() for p in sure] == [[0], []]  # a score of 0.8 is not above 0.8


def test_detections_do_not_depend_on_what_else_is_there(two_scenes: SceneMaps) -> None:
    rule = BoxRule.preset("dcm", resize="bilinear")
    together = detections(two_scenes, rule)
    for i in range(2):
        alone = SceneMaps(
            [two_scenes.maps[i]], two_scenes.scores[i : i + 1], two_scenes.sizes[i : i + 1], [two_scenes.targets[i]]
        )
        assert torch.equal(detections(alone, rule)[0]["boxes"], together[i]["boxes"])


def test_tuning_finds_the_threshold_that_fits(two_scenes: SceneMaps) -> None:
    hill = torch.tensor([0.3, 0.6, 1.0, 1.0, 0.6, 0.3])[None, None].expand(1, 4, 6)
    scenes = SceneMaps([hill], torch.tensor([[1.0]]), torch.tensor([[40, 60]]), [target([20, 0, 40, 40], 0, 0)])
    curve = tune_threshold(scenes, BoxRule.preset("dcm"), [0.2, 0.5, 0.8], iou=0.9)
    assert curve == {0.2: 0.0, 0.5: 0.0, 0.8: 1.0}
    assert max(curve, key=curve.__getitem__) == 0.8


def test_a_tuned_curve_is_the_metric_at_each_threshold() -> None:
    random = torch.Generator().manual_seed(3)
    maps = [torch.rand(3, 4, 6, generator=random) for _ in range(12)]
    targets = [target([10 * (i % 3), 0, 30 + i, 30], i % 3, i) for i in range(12)]
    for image in targets[::4]:  # two objects, one of them a crowd
        image |= {
            "boxes": image["boxes"].repeat(2, 1),
            "labels": torch.tensor([0, 1]),
            "crowd": torch.tensor([0, 1]).bool(),
        }
    found = SceneMaps(maps, torch.rand(12, 3, generator=random) - 0.1, torch.tensor([[40, 60]] * 12), targets)
    thresholds, curve = [0.1, 0.4, 0.7, 0.9], {}
    for threshold in thresholds:
        metric = DetectionAP(3, (0.25,))
        metric.update(detections(found, BoxRule.preset("dcm", threshold=threshold)), targets)
        curve[threshold] = float(metric.compute()["mAP@0.25"])
    assert len(set(curve.values())) > 2
    assert tune_threshold(found, BoxRule.preset("dcm"), thresholds) == pytest.approx(curve, abs=1e-12)


def test_evidence_equals_the_metrics(two_scenes: SceneMaps) -> None:
    found = detections(two_scenes, BoxRule.preset("dcm"))
    judged, single = DetectionAP(2, (0, 0.25, 0.5)), GuessLocalizationError(2, k=1)
    judged.update(found, two_scenes.targets)
    single.update(found, two_scenes.targets)
    numbers = evidence(judged, single, two_scenes, covered_cells(two_scenes), 0.5)
    whole = torch.ones(1, 2, dtype=torch.float64)
    scale = {"presence", "presence_own", "scale_cost", "cells", "cells_own"}
    assert set(numbers) == scale | {
        "ap0", "ap25", "ap50", "p_at_r30", "mean_precision", "max_recall", "top5_loc_error", "box_threshold"
    }  # fmt: skip
    assert float(numbers["ap25"](whole)) == float(judged.compute()["mAP@0.25"])
    assert float(numbers["p_at_r30"](whole)) == float(judged.precision_at(0.3, 0.25))
    assert float(numbers["top5_loc_error"](whole)) == float(single.compute())


def test_background_is_where_no_box_is() -> None:
    maps = torch.tensor([[[3.0, 0.0]], [[0.0, 1.0]], [[4.0, 1.0]]])  # 3 classes, 1 x 2 cells
    scene = SceneMaps([maps], torch.zeros(1, 3), torch.tensor([[10, 20]]), [target([10, 0, 20, 10], 0, 0)])
    nearest = background_similarity(scene, [1, 2, 3])  # the left cell is background: (3, 0, 4)
    assert nearest == pytest.approx({1: 1.0, 2: 1.0, 3: 0.8})
