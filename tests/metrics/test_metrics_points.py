from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torchvision.ops import box_iou

from wsolnb.metrics import VOCAP, DetectionAP, PointAP


def voc_area(ranked, positives):
    """Area under the interpolated curve of (score, verdict) rows; verdict None is ignored."""
    rows = [hit for _, hit in sorted(ranked, key=lambda row: -row[0]) if hit is not None]
    right = np.cumsum(rows) if rows else np.zeros(0)
    precision, recall = right / np.arange(1, len(rows) + 1), right / positives
    steps = np.diff(np.concatenate([[0], recall]))
    return float(sum(step * precision[i:].max() for i, step in enumerate(steps)))


@st.composite
def point_cases(draw):
    seed = draw(st.integers(0, 10**6))
    generator = torch.Generator().manual_seed(seed)
    images = draw(st.integers(1, 5))
    maps, scores = torch.rand(images, 3, 4, 5, generator=generator), torch.rand(images, 3, generator=generator)
    targets = []
    for _ in range(images):
        count = int(torch.randint(4, (), generator=generator))
        near = torch.randint(30, (count, 2), generator=generator)
        boxes = torch.cat([near, near + torch.randint(1, 30, (count, 2), generator=generator)], dim=1).float()
        labels = torch.randint(3, (count,), generator=generator)
        targets.append({"boxes": boxes, "labels": labels, "crowd": torch.rand(count, generator=generator) < 0.3})
    return maps, scores, targets, torch.randint(20, 60, (images, 2), generator=generator)


@given(point_cases(), st.sampled_from([0.0, 5.0]))
@settings(max_examples=60, deadline=None)
def test_points_equal_brute_force(case, tolerance):
    maps, scores, targets, sizes = case
    metric = PointAP(3, tolerance=tolerance)
    for i in range(len(maps)):
        metric.update(maps[i : i + 1], scores[i : i + 1], targets[i : i + 1], sizes[i : i + 1])
    per_class = []
    for k in range(3):
        ranked, positives = [], 0
        for i, target in enumerate(targets):
            y, x = divmod(int(maps[i, k].argmax()), 5)
            px, py = (x + 0.5) * float(sizes[i, 1]) / 5, (y + 0.5) * float(sizes[i, 0]) / 4
            boxes = [b for b, label, c in zip(*target.values(), strict=True) if label == k and not c]
            crowded = any(label == k and c for label, c in zip(target["labels"], target["crowd"], strict=True))
            inside = [b[0] - tolerance <= px < b[2] + tolerance and b[1] - tolerance <= py < b[3] + tolerance
                      for b in boxes]  # fmt: skip
            positives += bool(boxes)
            ranked.append((float(scores[i, k]), None if crowded and not boxes else any(bool(hit) for hit in inside)))
        per_class.append(voc_area(ranked, positives) if positives else np.nan)
    assert metric.compute()["AP"].tolist() == pytest.approx(per_class, nan_ok=True)


def test_points_statistic():
    maps, scores = torch.rand(6, 2, 3, 4), torch.rand(6, 2)
    targets = [{"boxes": torch.tensor([[0.0, 0, 20, 30]]), "labels": torch.tensor([i % 2])} for i in range(6)]
    sizes = torch.tensor([[30, 40]] * 6)
    metric, again = PointAP(2), PointAP(2)
    metric.update(maps, scores, targets, sizes)
    copies = [0, 0, 3, 3, 4, 5]
    again.update(maps[copies], scores[copies], [targets[i] for i in copies], sizes[copies])
    weights = torch.tensor([[2, 0, 0, 2, 1, 1]])
    assert metric.statistic()(weights).item() == pytest.approx(again.compute()["mAP"].item())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"maps": torch.rand(2, 3, 4, 5)}, r"maps must have shape \(2, 2, any, any\), got \(2, 3, 4, 5\)"),
        ({"maps": torch.full((2, 2, 4, 5), torch.nan)}, "a map of image 0 of this batch is not finite"),
        ({"scores": torch.rand(1, 2)}, "scores must have shape"),
        ({"scores": torch.full((2, 2), torch.inf)}, "a score of image 0"),
        ({"sizes": torch.ones(2)}, "sizes must have shape"),
    ],
)
def test_points_bad_input(spoil, message):
    target = {"boxes": torch.tensor([[0.0, 0, 2, 3]]), "labels": torch.tensor([1])}
    good = {"maps": torch.rand(2, 2, 4, 5), "scores": torch.rand(2, 2), "sizes": torch.ones(2, 2)}
    with pytest.raises(ValueError, match=message):
        PointAP(2).update(**(good | spoil), targets=[target, target])


@st.composite
def voc_cases(draw):
    coordinate, length = st.integers(0, 10), st.integers(1, 10)
    box = st.tuples(coordinate, coordinate, length, length, st.integers(0, 1))

    def table(rows):
        values = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
        return torch.cat([values[:, :2], values[:, :2] + values[:, 2:4]], dim=1), values[:, 4].long()

    images = draw(st.integers(1, 4))
    truth = [draw(st.lists(box, max_size=4)) for _ in range(images)]
    found = [draw(st.lists(box, max_size=5)) for _ in range(images)]
    scores = iter(draw(st.permutations(range(sum(map(len, found))))))
    predictions, targets = [], []
    for rows in found:
        boxes, labels = table(rows)
        values = torch.tensor([(1 + next(scores)) / 32 for _ in rows])
        predictions.append({"boxes": boxes, "labels": labels, "scores": values})
    for rows in truth:
        boxes, labels = table(rows)
        crowd = draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
        targets.append({"boxes": boxes, "labels": labels, "crowd": torch.tensor(crowd, dtype=torch.bool)})
    return predictions, targets


def devkit(predictions, targets, k, threshold):
    """The devkit's loop over ranked detections."""
    ranked = sorted(
        ((float(p["scores"][j]), i, p["boxes"][j]) for i, p in enumerate(predictions) for j in range(len(p["boxes"]))
         if p["labels"][j] == k), key=lambda row: -row[0])  # fmt: skip
    positives = sum(int(((t["labels"] == k) & ~t["crowd"]).sum()) for t in targets)
    taken, rows = set(), []
    for score, i, box in ranked:
        own = (targets[i]["labels"] == k).nonzero().squeeze(1).tolist()
        ious = [box_iou(box[None].double(), targets[i]["boxes"][g][None].double()).item() for g in own]
        hit = False
        if ious and max(ious) >= threshold:
            g = own[int(np.argmax(ious))]
            hit = None if targets[i]["crowd"][g] else (i, g) not in taken
            taken.add((i, g))
        rows.append((score, hit))
    return voc_area(rows, positives) if positives else np.nan


@given(voc_cases(), st.sampled_from([0.1, 0.5]))
@settings(max_examples=80, deadline=None)
def test_voc_equals_the_devkit(case, threshold):
    metric = VOCAP(2, iou_threshold=threshold)
    for i in range(len(case[0])):
        metric.update(case[0][i : i + 1], case[1][i : i + 1])
    expected = [devkit(*case, k, threshold) for k in range(2)]
    assert metric.compute()["AP"].tolist() == pytest.approx(expected, nan_ok=True)


def test_voc_and_coco_treat_a_second_box_differently():
    truth = {"boxes": torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10]]), "labels": torch.tensor([0, 0])}
    found = {"boxes": torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10]]), "labels": torch.tensor([0, 0])}
    found["scores"] = torch.tensor([0.9, 0.8])
    voc, coco = VOCAP(1, iou_threshold=0.5), DetectionAP(1, (0.5,), interpolation="area")
    for metric in (voc, coco):
        metric.update([found], [truth])
    assert voc.compute()["mAP"] == 0.5
    assert coco.compute()["mAP@0.5"] == 1


def test_voc_eleven_points_and_statistic():
    truth = {"boxes": torch.tensor([[0.0, 0, 10, 20]]), "labels": torch.tensor([0])}
    hit = truth | {"scores": torch.tensor([0.5])}
    miss = {"boxes": torch.tensor([[90.0, 0, 99, 20]]), "labels": torch.tensor([0]), "scores": torch.tensor([0.9])}
    metric = VOCAP(1, interpolation="voc07")
    metric.update([hit, miss, hit], [truth, truth, truth])
    assert metric.compute()["mAP"].item() == pytest.approx(7 / 11 * 2 / 3)
    assert metric.statistic()(torch.tensor([[2, 0, 1], [0, 3, 0]])).tolist() == pytest.approx([1.0, 0.0])
    with pytest.raises(ValueError, match="interpolations"):
        VOCAP(1, interpolation="coco")
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        VOCAP(1, iou_threshold=0)
