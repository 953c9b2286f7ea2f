from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from wsolnb.metrics import VOCAP, DetectionAP, GuessLocalizationError, PointAP, Ranking, interval

IOUS = (0.0, 0.25, 0.5)


def prediction(*rows):
    """Rows of (x, y, w, h, label, score)."""
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
    boxes = torch.cat([table[:, :2], table[:, :2] + table[:, 2:4]], dim=1)
    return {"boxes": boxes, "labels": table[:, 4].long(), "scores": table[:, 5]}


def target(*rows):
    """Rows of (x, y, w, h, label[, crowd])."""
    table = torch.tensor([(*row, 0)[:6] for row in rows], dtype=torch.float64).reshape(-1, 6)
    boxes = torch.cat([table[:, :2], table[:, :2] + table[:, 2:4]], dim=1)
    return {"boxes": boxes, "labels": table[:, 4].long(), "crowd": table[:, 5].bool()}


def scored(predictions, targets, classes=1, matching="instances", ious=IOUS):
    metric = DetectionAP(classes=classes, iou_thresholds=ious, matching=matching)
    metric.update(predictions, targets)
    return metric


def maps_of(metric):
    result = metric.compute()
    return [result[f"mAP@{t:g}"].item() for t in metric.iou_thresholds]


def coco_reference(predictions, targets, classes, ious=IOUS):
    """COCOeval with its own accumulation: precision (T, 101, C), -1 without positives."""

    def rows(entries, predicted):
        number = 0
        for image, entry in enumerate(entries):
            for i in range(len(entry["boxes"])):
                number += 1
                x0, y0, x1, y1 = entry["boxes"][i].float().double().tolist()
                row = {"id": number, "image_id": image, "category_id": int(entry["labels"][i])}
                row |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
                row["iscrowd"] = 0 if predicted else int(entry["crowd"][i])
                if predicted:
                    row["score"] = entry["scores"][i].float().item()
                yield row

    with contextlib.redirect_stdout(io.StringIO()):
        tables = []
        for entries, predicted in ((targets, False), (predictions, True)):
            table = COCO()
            table.dataset = {
                "images": [{"id": i} for i in range(len(targets))],
                "categories": [{"id": k} for k in range(classes)],
                "annotations": list(rows(entries, predicted)),
            }
            table.createIndex()
            tables.append(table)
        judge = COCOeval(*tables, iouType="bbox")
        judge.params.iouThrs, judge.params.maxDets = list(ious), [10**6]
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.evaluate()
        judge.accumulate()
    return judge.eval["precision"][:, :, :, 0, 0]


def reference_map(*args, **kwargs):
    precision = coco_reference(*args, **kwargs)
    return [np.mean(p[p > -1]) if (p > -1).any() else np.nan for p in precision]


@st.composite
def scenes(draw, max_images=5, classes=3, distinct_scores=True):
    coordinate = st.integers(0, 12)
    box = st.tuples(coordinate, coordinate, st.integers(1, 12), st.integers(1, 12), st.integers(0, classes - 1))
    images = draw(st.integers(1, max_images))
    targets = [target(*draw(st.lists(box, max_size=4))) for _ in range(images)]
    for entry in targets:
        entry["crowd"] = torch.tensor(
            draw(st.lists(st.booleans(), min_size=len(entry["boxes"]), max_size=len(entry["boxes"]))), dtype=torch.bool
        )
    boxes = [draw(st.lists(box, max_size=5)) for _ in range(images)]
    total = sum(map(len, boxes))
    if distinct_scores:
        scores = iter([(1 + rank) / 64 for rank in draw(st.permutations(range(total)))])
    else:
        scores = iter([draw(st.sampled_from([0.25, 0.5, 0.75])) for _ in range(total)])
    return [prediction(*[(*b, next(scores)) for b in rows]) for rows in boxes], targets


def test_one_disjoint_box_of_the_right_class():
    metric = scored([prediction((50, 60, 10, 20, 0, 0.9))], [target((0, 0, 10, 20, 0))])
    assert maps_of(metric) == [1, 0, 0]


def test_a_perfect_box_is_found_though_ids_start_at_zero_elsewhere():
    metric = scored([prediction((0, 0, 10, 20, 0, 0.9))], [target((0, 0, 10, 20, 0))])
    assert maps_of(metric) == [1, 1, 1]


def test_a_crowd_ignores_everything_of_its_class_at_iou_zero():
    predictions = [prediction((0, 0, 10, 20, 0, 0.5)), prediction((50, 60, 10, 20, 0, 0.9))]
    targets = [target((0, 0, 10, 20, 0)), target((0, 0, 10, 20, 0, 1))]
    for matching in ("instances", "image-class"):
        assert maps_of(scored(predictions, targets, matching=matching)) == [1, 0.5, 0.5]


def test_one_box_per_class_caps_recall_unless_pairs_are_matched():
    predictions = [prediction((0, 0, 10, 20, 0, 0.9))]
    targets = [target((0, 0, 10, 20, 0), (30, 0, 10, 20, 0))]
    assert maps_of(scored(predictions, targets)) == pytest.approx([51 / 101] * 3)
    assert maps_of(scored(predictions, targets, matching="image-class")) == [1, 1, 1]


def test_false_box_ranked_first():
    predictions = [prediction((0, 0, 10, 20, 0, 0.5)), prediction((0, 0, 10, 20, 0, 0.9))]
    metric = scored(predictions, [target((0, 0, 10, 20, 0)), target()])
    assert maps_of(metric) == [0.5] * 3


MIX = (
    [
        prediction((12, 12, 20, 20, 0, 0.9), (40, 40, 30, 30, 1, 0.8)),
        prediction((5, 5, 40, 40, 0, 0.7), (5, 5, 40, 40, 1, 0.75)),
        prediction((30, 30, 40, 40, 1, 0.6), (0, 0, 10, 10, 0, 0.85)),
    ],
    [
        target((10, 10, 20, 20, 0), (60, 60, 30, 30, 1)),
        target((0, 0, 50, 50, 0), (60, 60, 20, 20, 0)),
        target((20, 20, 40, 40, 1)),
    ],
)


def test_the_mixed_example():
    result = scored(*MIX, classes=2).compute()
    each = torch.stack([result["AP@0"], result["AP@0.25"], result["AP@0.5"]], dim=1)
    expected = [[0.554455, 0.554455, 0.554455], [0.834983, 0.168317, 0.0]]
    torch.testing.assert_close(each, torch.tensor(expected, dtype=torch.float64), atol=5e-7, rtol=0)


def test_nothing_is_cut_off_at_a_hundred_boxes_per_image():
    rows = [(200 + i, 0, 1, 1, 0, 1 - i / 1000) for i in range(150)] + [(0, 0, 10, 20, 0, 0.1)]
    metric = scored([prediction(*rows)], [target((0, 0, 10, 20, 0))])
    assert maps_of(metric)[2] == pytest.approx(1 / 151)


def test_nothing_is_printed(capsys):
    scored(*MIX, classes=2).compute()
    assert capsys.readouterr().out == ""


@given(scenes(distinct_scores=False))
@settings(max_examples=60, deadline=None)
def test_equals_coco_accumulation(scene):
    assert maps_of(scored(*scene, classes=3)) == pytest.approx(reference_map(*scene, 3), abs=1e-12, nan_ok=True)


@given(scenes(max_images=4), st.lists(st.integers(0, 3), min_size=4, max_size=4))
@settings(max_examples=60, deadline=None)
def test_statistic_equals_coco_on_repeated_images(scene, counts):
    predictions, targets = scene
    metric = scored(predictions, targets, classes=3)
    counts = counts[: len(targets)]
    copies = [i for i, count in enumerate(counts) for _ in range(count)]
    expected = reference_map([predictions[i] for i in copies], [targets[i] for i in copies], 3)
    found = [metric.statistic(t)(torch.tensor([counts, [1] * len(counts)])) for t in IOUS]
    assert [pair[0].item() for pair in found] == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert [pair[1].item() for pair in found] == pytest.approx(maps_of(metric), abs=1e-12, nan_ok=True)


def brute_pair_ap(predictions, targets, classes, t):
    """Image-class average precision, one pair after another, without crowds."""
    per_class = []
    for klass in range(classes):
        positives, ranked = 0, []
        for p, truth in zip(predictions, targets, strict=True):
            there = truth["boxes"][truth["labels"] == klass]
            positives += len(there) > 0
            mine = p["labels"] == klass
            if not mine.any():
                continue
            best = p["scores"][mine].argmax()
            ious = [0.0]
            for g in there:
                b = p["boxes"][mine][best]
                w, h = min(b[2], g[2]) - max(b[0], g[0]), min(b[3], g[3]) - max(b[1], g[1])
                shared = float(max(w, 0) * max(h, 0))
                areas = float((b[2] - b[0]) * (b[3] - b[1]) + (g[2] - g[0]) * (g[3] - g[1]))
                ious.append(shared / (areas - shared))
            ranked.append((float(p["scores"][mine][best]), len(there) > 0 and max(ious) >= t))
        if not positives:
            continue
        ranked.sort(key=lambda row: -row[0])
        right = np.cumsum([hit for _, hit in ranked])
        precision = right / np.arange(1, len(ranked) + 1)
        recall = right / positives
        per_class.append(np.mean([max(precision[recall >= r], default=0) for r in np.linspace(0, 1, 101)]))
    return np.mean(per_class) if per_class else np.nan


@given(scenes())
@settings(max_examples=60, deadline=None)
def test_pairs_equal_brute_force(scene):
    predictions, targets = scene
    for entry in targets:
        entry["crowd"][:] = False
    expected = [brute_pair_ap(predictions, targets, 3, t) for t in IOUS]
    metric = scored(predictions, targets, classes=3, matching="image-class")
    assert maps_of(metric) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(scenes(), st.integers(0, 4))
@settings(max_examples=25, deadline=None)
def test_batches_do_not_matter(scene, cut):
    whole = scored(*scene, classes=3)
    parts = DetectionAP(classes=3)
    for part in (slice(None, cut), slice(cut, None)):
        parts.update(scene[0][part], scene[1][part])
    assert maps_of(parts) == pytest.approx(maps_of(whole), abs=0, nan_ok=True)


def test_image_ids_make_the_order_of_arrival_irrelevant():
    predictions = [prediction((0, 0, 10, 20, 0, 0.5)), prediction((50, 0, 10, 20, 0, 0.5))]
    targets = [target((0, 0, 10, 20, 0)) | {"image_id": 0}, target((0, 0, 10, 20, 0)) | {"image_id": 1}]
    forth, back = scored(predictions, targets), scored(predictions[::-1], targets[::-1])
    assert maps_of(forth) == maps_of(back)
    weights = torch.tensor([[2.0, 0.0]])
    assert forth.statistic(0.5)(weights) == back.statistic(0.5)(weights) == 1


def test_curves():
    metric = scored(*MIX, classes=2)
    recall, precision = metric.curve(0.25)
    assert recall.shape == precision.shape == (101,)
    # pooled order: .9 right, .85 wrong, .8 wrong, .75 wrong, .7 right, .6 right; five positives
    ranks = [(0.2, 1.0), (0.4, 0.4), (0.6, 0.5)]
    expected = [max((p for r, p in ranks if r >= x), default=0.0) for x in recall.tolist()]
    assert precision.tolist() == pytest.approx(expected)
    assert metric.precision_at(0.3, 0.25).item() == pytest.approx(0.5)
    _, each = metric.curve(0.25, per_class=True)
    torch.testing.assert_close(each.mean(dim=1), metric.compute()["AP@0.25"])


def test_absent_classes_are_left_out():
    result = scored([prediction((0, 0, 5, 9, 0, 0.5))], [target((0, 0, 5, 9, 0))], classes=4).compute()
    assert result["mAP@0.5"] == 1
    assert result["AP@0.5"].isnan().tolist() == [False, True, True, True]


def test_no_images_with_boxes_gives_nan():
    metric = scored([prediction()], [target()])
    assert np.isnan(maps_of(metric)).all()


def test_area_and_eleven_point():
    for kind, expected in (("area", 1 / 2 + 1 / 3), ("voc07", 1)):
        metric = DetectionAP(classes=1, iou_thresholds=(0.5,), interpolation=kind)
        predictions = [prediction((0, 0, 9, 5, 0, 0.9), (70, 0, 9, 5, 0, 0.8), (20, 0, 9, 5, 0, 0.7))]
        metric.update(predictions, [target((0, 0, 9, 5, 0), (20, 0, 9, 5, 0))])
        expected = expected if kind == "area" else (6 * 1 + 5 * 2 / 3) / 11
        assert metric.compute()["mAP@0.5"].item() == pytest.approx(expected)


def test_area_equals_brute_force_over_classes():
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(12, (60,), generator=generator)
    klass = torch.randint(4, (60,), generator=generator)
    score = torch.rand(60, generator=generator, dtype=torch.float64)
    right = torch.rand(60, generator=generator) < 0.5
    none = torch.zeros(60, dtype=torch.bool)
    everyone = torch.cat([klass[right], torch.arange(4)])
    at = torch.cat([image[right], torch.arange(4)])
    ranking = Ranking(score, right, none, image, klass, at, everyone, images=12, classes=4)
    weights = torch.randint(3, (5, 12), generator=generator).double()
    found = ranking.average_precision("area", weights)
    for draw in range(5):
        for k in range(4):
            rows = [(s, w, r) for s, w, r, c in zip(score, weights[draw, image], right, klass, strict=True) if c == k]
            rows.sort(key=lambda row: -row[0])
            hits = np.cumsum([w * r for _, w, r in rows])
            every = np.cumsum([w for _, w, _ in rows])
            precision = np.divide(hits, every, out=np.zeros_like(hits), where=every > 0)
            best = np.maximum.accumulate(precision[::-1])[::-1]
            positives = weights[draw, at[everyone == k]].sum()
            expected = (np.diff(hits, prepend=0) * best).sum() / positives
            assert found[draw, k].item() == pytest.approx(float(expected), nan_ok=True)


def test_bootstrap_of_a_detection_metric():
    metric = scored(*MIX, classes=2)
    result = interval(metric.statistic(0.25), metric.images, draws=200)
    assert result.low <= result.value <= result.high
    assert result.value == pytest.approx(maps_of(metric)[1])


def test_chunks_of_draws_change_nothing(monkeypatch):
    ranking = scored(*MIX, classes=2).ranking(0.25)
    weights = torch.randint(3, (11, 3))
    whole = ranking.statistic()(weights)
    monkeypatch.setattr("wsolnb.metrics.ranking._CHUNK_ELEMENTS", 12)
    assert torch.equal(ranking.statistic()(weights).nan_to_num(), whole.nan_to_num())


BOX = {"boxes": torch.tensor([[0.0, 0.0, 4.0, 8.0]]), "labels": torch.tensor([0])}
HIT = BOX | {"scores": torch.tensor([0.5])}


@pytest.mark.parametrize(
    ("predictions", "targets", "message"),
    [
        ([HIT], [BOX, BOX], "1 predictions but 2 targets"),
        ([BOX], [BOX], "prediction 0 lacks scores: it has boxes, labels"),
        ([HIT | {"labels": torch.tensor([2])}], [BOX], "label 2 is out of range for 2 classes"),
        ([HIT | {"labels": torch.tensor([0.5])}], [BOX], "labels must be integers"),
        ([HIT | {"scores": torch.tensor([torch.nan])}], [BOX], "score nan is not finite"),
        ([HIT | {"scores": torch.tensor([0.5, 0.4])}], [BOX], "1 boxes but scores of shape"),
        ([HIT], [BOX | {"boxes": torch.tensor([[5.0, 0.0, 4.0, 8.0]])}], "target 0: box 0 .* negative size"),
        ([HIT], [BOX | {"boxes": torch.tensor([[0.0, 0.0, torch.inf, 8.0]])}], "not finite"),
        ([HIT], [BOX | {"boxes": torch.zeros(1, 5)}], r"shape \(n, 4\), got \(1, 5\)"),
        ([HIT], [BOX | {"crowd": torch.zeros(2)}], "crowd of shape"),
        ([HIT], [BOX | {"labels": torch.tensor([0, 1])}], "1 boxes but labels of shape"),
    ],
)
def test_bad_input(predictions, targets, message):
    with pytest.raises(ValueError, match=message):
        DetectionAP(classes=2).update(predictions, targets)


def test_an_image_given_twice():
    metric = DetectionAP(classes=1)
    for _ in range(2):
        metric.update([HIT], [BOX | {"image_id": 7}])
    with pytest.raises(ValueError, match="image_id 7 was given twice"):
        metric.compute()
    metric.reset()
    metric.update([HIT, HIT], [BOX | {"image_id": 7}, BOX])
    with pytest.raises(ValueError, match="give one to all or to none"):
        metric.compute()


def test_bad_settings():
    for settings_, message in (
        ({"classes": 0}, "at least 1"),
        ({"classes": 1, "matching": "pairs"}, "unknown matching"),
        ({"classes": 1, "iou_thresholds": (25,)}, r"in \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            DetectionAP(**settings_)
    with pytest.raises(ValueError, match="unknown interpolation"):
        scored(*MIX, classes=2).ranking(0.5).average_precision("voc12")
    with pytest.raises(ValueError, match="not among"):
        scored(*MIX, classes=2).statistic(0.75)
    with pytest.raises(ValueError, match=r"weights must have shape \(draws, 3\)"):
        scored(*MIX, classes=2).statistic(0.5)(torch.ones(1, 2))


def test_guesses():
    box, far = (0, 0, 10, 20), (50, 50, 10, 20)
    predictions = [
        prediction(*[(*far, k, 0.9 - k / 10) for k in range(4)], (*box, 4, 0.1)),  # right at rank 5
        prediction(*[(*far, k, 0.9 - k / 10) for k in range(5)], (*box, 5, 0.1)),  # right at rank 6: too late
        prediction((*box, 1, 0.9)),  # right box, wrong class
        prediction((0, 0, 10, 10, 3, 0.9)),  # IoU of exactly a half
        prediction(),
    ]
    targets = [target((*box, 4)), target((*box, 5)), target((*box, 2)), target((*far, 3), (*box, 3)), target((*box, 0))]
    metric = GuessLocalizationError(classes=6)
    metric.update(predictions, targets)
    assert metric.compute() == pytest.approx(3 / 5)
    assert metric.wrongs().tolist() == [False, True, True, False, True]
    weights = torch.tensor([[1, 1, 1, 1, 1], [5, 0, 0, 0, 0]])
    assert metric.statistic()(weights).tolist() == pytest.approx([0.6, 0.0])
    with pytest.raises(ValueError, match="no ground-truth box"):
        metric.update([prediction()], [target()])


def test_scores_that_differ_in_float64_only_do_not_tie():
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    predictions = [
        {"boxes": box + 50, "scores": torch.tensor([0.9], dtype=torch.float64), "labels": torch.tensor([0])},
        {"boxes": box, "scores": torch.tensor([0.9 + 1e-9], dtype=torch.float64), "labels": torch.tensor([0])},
    ]
    targets = [{"boxes": box, "labels": torch.tensor([0]), "image_id": k} for k in range(2)]
    for metric, key in ((DetectionAP(1, (0.5,)), "mAP@0.5"), (VOCAP(1), "mAP")):
        metric.update(predictions, targets)
        assert metric.compute()[key].item() == pytest.approx(0.5, abs=0.01)  # 0.25 where the wrong one comes first
    metric = PointAP(1)
    scores = torch.tensor([[0.9], [0.9 + 1e-9]], dtype=torch.float64)
    targets[0] = targets[0] | {"boxes": box + 50}
    metric.update(torch.ones(2, 1, 1, 1), scores, targets, torch.tensor([[10, 10]] * 2))
    assert metric.compute()["mAP"] == 0.5


def test_boxes_of_float64_keep_their_digits():
    truth = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]]), "labels": torch.tensor([0])}
    near = torch.tensor([[0.0, 0.0, 10.0, 5.0 - 1e-9]], dtype=torch.float64)
    for metric, key in ((DetectionAP(1, (0.5,)), "mAP@0.5"), (VOCAP(1), "mAP")):
        metric.update([{"boxes": near, "labels": torch.tensor([0]), "scores": torch.tensor([0.9])}], [truth])
        assert metric.compute()[key] == 0


@pytest.mark.parametrize("number", [1.5, "7", -3, 2**70, None, torch.tensor(2.5)])
def test_image_ids_are_whole_numbers(number):
    truth = {"boxes": torch.zeros(1, 4), "labels": torch.tensor([0]), "image_id": number}
    with pytest.raises(ValueError, match=r"target 0: image_id .*(is no whole number|must lie between 0)"):
        DetectionAP(1).update([truth | {"scores": torch.tensor([0.9])}], [truth])


def test_settings_that_are_nan_are_refused():
    with pytest.raises(ValueError, match=r"iou_threshold must lie in \(0, 1\], not nan"):
        GuessLocalizationError(3, iou_threshold=float("nan"))
    with pytest.raises(ValueError, match="tolerance is NaN"):
        PointAP(3, tolerance=float("nan"))
