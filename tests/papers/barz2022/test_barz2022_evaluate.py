"""The grid of readings and its numbers, against worked examples and against the metrics of the package."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from wsolnb.boxes import BoxRule
from wsolnb.localization.detect import detections
from wsolnb.localization.maps import SceneMaps
from wsolnb.metrics import DetectionAP, GuessLocalizationError
from wsolnb.models.cam import class_activation_maps, classifier
from wsolnb.papers.barz2022 import evaluate
from wsolnb.papers.barz2022.losses import CosineLoss
from wsolnb.papers.barz2022.maps import class_scores, cosine_cam_reader, dcm_reader, softmax_reader


def scenes(count: int, classes: int = 4, seed: int = 0, *, single: bool = False) -> SceneMaps:
    """Random maps and truths, some images larger than others."""
    draw = torch.Generator().manual_seed(seed)
    maps, sizes, targets = [], [], []
    for index in range(count):
        h, w = (4, 6) if index % 3 else (5, 7)
        objects = 1 if single else 1 + index % 3
        corner = torch.rand(objects, 2, generator=draw) * torch.tensor([3.0 * w, 3.0 * h])
        side = (0.2 + 0.5 * torch.rand(objects, 2, generator=draw)) * torch.tensor([8.0 * w, 8.0 * h])
        labels = torch.randperm(classes, generator=draw)[:objects]
        maps.append(torch.randn(classes, h, w, generator=draw))
        sizes.append([8 * h, 8 * w])
        targets.append({"boxes": torch.cat([corner, corner + side], dim=1), "labels": labels, "image_id": index})
    return SceneMaps(maps, torch.rand(count, classes, generator=draw), torch.tensor(sizes), targets)


def test_softmax_cells_are_the_networks_own_activation_in_every_cell() -> None:
    net, images = classifier("tiny", 5, seed=3).eval(), torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        cells, scores = softmax_reader(net)(images, None)
        logits = class_activation_maps(net.features(images), net.head.weight, net.head.bias)
    torch.testing.assert_close(cells, logits.softmax(dim=1))
    torch.testing.assert_close(scores, class_scores(logits.softmax(dim=1)))


def test_the_grid_crosses_the_maps_of_one_reading_with_the_scores_of_another() -> None:
    net, objective = classifier("tiny", 4).eval(), CosineLoss(torch.eye(4))
    images = torch.rand(3, 3, 32, 48)
    with torch.no_grad():
        cam, dense = cosine_cam_reader(net, objective)(images, None), dcm_reader(net, objective)(images, None)
    targets, sizes = [{"labels": torch.tensor([0])}] * 3, torch.tensor([[32, 48]] * 3)
    found = {
        name: SceneMaps(
            list((dense if name.startswith("dcm") else cam)[0]), (dense if "dcm" in name else cam)[1], sizes, targets
        )
        for row in evaluate.NETWORKS.values()
        for name in (row[0], row[2])
    }
    readings = evaluate.with_controls(found)
    assert list(readings) == [*(name for row in evaluate.NETWORKS.values() for name in row), "dcm-onehot-no-vote"]
    crossed = readings["semantic-cam-cellwise"]
    assert crossed.maps is found["semantic-cam"].maps
    assert crossed.scores is found["dcm-semantic"].scores
    plain = readings["dcm-onehot-no-vote"].scores
    torch.testing.assert_close(plain, dense[0].amax(dim=(2, 3)))
    voted = found["dcm-onehot"].scores
    torch.testing.assert_close(plain[voted > 0], voted[voted > 0])  # where a class has a cell, its best one is its best


@pytest.mark.parametrize(("seed", "k"), [(0, 1), (1, 2), (2, 3), (3, 4)])
def test_many_thresholds_at_once_give_the_error_of_the_metric(seed: int, k: int) -> None:
    found = scenes(7, seed=seed, single=True)
    found = replace(found, scores=torch.where(found.scores < 0.2, 0.0, found.scores))  # some classes have no cell
    rule, thresholds = BoxRule.preset("dcm"), [0.1, 0.5, 0.9]
    curve = evaluate.tune_single(found, rule, thresholds, k=k)
    for threshold in thresholds:
        metric = GuessLocalizationError(4, k=k)
        metric.update(detections(found, replace(rule, threshold=threshold)), found.targets)
        assert curve[threshold] == pytest.approx(float(metric.compute()))


def best_by_hand(values: list[Tensor], truth: list[Tensor]) -> tuple[float, float]:
    """Balanced accuracy of the best common threshold, and of the best threshold for each image, by trying all."""
    positives, negatives = sum(int(t.sum()) for t in truth), sum(int((~t).sum()) for t in truth)

    def gain(v: Tensor, t: Tensor, threshold: float) -> float:
        return int((v[t] > threshold).sum()) / positives - int((v[~t] > threshold).sum()) / negatives

    levels = [-1.0, *torch.cat(values).tolist()]
    one = max(sum(gain(v, t, level) for v, t in zip(values, truth, strict=True)) for level in levels)
    own = sum(max(gain(v, t, level) for level in levels) for v, t in zip(values, truth, strict=True))
    return (1 + one) / 2, (1 + own) / 2


@given(st.integers(0, 1000))
def test_scale_by_brute_force(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    values = [torch.rand(count, generator=draw) for count in (3, 5, 4)]
    truth = [v + 0.5 * torch.rand(len(v), generator=draw) > 0.6 for v in values]
    truth[0][:2] = torch.tensor([True, False])
    scale = evaluate.Scale.of(values, truth)
    assert scale.accuracies == pytest.approx(best_by_hand(values, truth))
    again = [float(statistic(torch.full((1, 3), 2.0))) for statistic in scale.statistics()]
    assert again == pytest.approx(scale.accuracies)  # every image twice


def test_a_scale_per_image_costs_nothing_with_own_thresholds() -> None:
    values = [torch.tensor([0.1, 0.2]), torch.tensor([10.0, 20.0])]
    truth = [torch.tensor([False, True])] * 2
    assert evaluate.Scale.of(values, truth).accuracies == (0.75, 1.0)


def test_cells_between_object_and_ground_are_left_out() -> None:
    maps, covered = [torch.tensor([[0.9, 0.1, 0.95]])], [torch.tensor([[0.8, 0.0, 0.4]])]
    scale = evaluate.cell_scale(maps, covered)
    assert scale.accuracies == (1.0, 1.0)
    assert scale.totals.sum() == 2


def test_covered_cells_prefer_masks_to_boxes() -> None:
    target = {"boxes": torch.tensor([[0.0, 0.0, 16.0, 8.0]]), "labels": torch.tensor([0])}
    found = SceneMaps([torch.zeros(1, 2, 2)], torch.zeros(1, 1), torch.tensor([[16, 16]]), [target])
    assert evaluate.covered_cells(found)[0].tolist() == [[1, 1], [0, 0]]
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[:, 8:, :4] = True
    masked = replace(found, targets=[target | {"masks": mask}])
    assert evaluate.covered_cells(masked)[0].tolist() == [[0, 0], [0.5, 0]]


def test_evidence_agrees_with_the_metrics() -> None:
    found, single = scenes(9), scenes(6, seed=1, single=True)
    rule = BoxRule.preset("dcm", threshold=0.4)
    judged, alone = DetectionAP(4, (0, 0.25, 0.5)), GuessLocalizationError(4)
    judged.update(detections(found, rule), found.targets)
    alone.update(detections(single, rule), single.targets)
    numbers = evaluate.evidence(judged, alone, found, evaluate.covered_cells(found), 0.4)
    once = torch.ones(1, 9)
    values = {
        name: float(statistic(torch.ones(1, 6) if name == "top5_loc_error" else once))
        for name, statistic in numbers.items()
    }
    assert values["ap25"] == pytest.approx(float(judged.compute()["mAP@0.25"]))
    assert values["p_at_r30"] == pytest.approx(float(judged.precision_at(0.3, 0.25)))
    recall, precision = judged.curve(0.25)
    assert values["max_recall"] >= float(recall[precision > 0].max())
    assert values["mean_precision"] == pytest.approx(float(precision[10:100:10].mean()))
    assert values["box_threshold"] == pytest.approx(0.4)
    assert values["scale_cost"] == pytest.approx(values["presence_own"] - values["presence"])
    assert values["cells_own"] >= values["cells"] >= 0.5
