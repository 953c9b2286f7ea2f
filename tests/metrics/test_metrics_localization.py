from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import protocol_oracle as oracle
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional

from wsolnb.boxes import BoxRule, iou
from wsolnb.boxes.quantise import quantise
from wsolnb.metrics import CorLoc, MaxBoxAcc, MaxBoxAccV2, PxAP, TopLocalization, interval, select_class_maps
from wsolnb.metrics._best_iou import best_ious


def drawn(images, size=(40, 56), cells=(5, 7), seed=0):
    """Smooth maps in [0, 1] and one to three inclusive boxes per image, whole pixels."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(images, 1, *cells, generator=generator, dtype=torch.float64)
    maps = functional.interpolate(maps, size, mode="bicubic")[:, 0]
    maps -= maps.amin(dim=(1, 2), keepdim=True)
    maps /= maps.amax(dim=(1, 2), keepdim=True)
    boxes = []
    for image in range(images):
        x = torch.randint(size[1], (1 + image % 3, 2), generator=generator).sort(dim=1).values
        y = torch.randint(size[0], (1 + image % 3, 2), generator=generator).sort(dim=1).values
        boxes.append(torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1))
    return maps, boxes


def protocol(maps, boxes, *, every, ious, thresholds):
    grid = np.arange(0, 1, 1 / thresholds)
    truths = [each.numpy() for each in boxes]
    return oracle.max_box_acc([m.numpy() for m in maps], truths, every=every, ious=ious, thresholds=grid)


@pytest.mark.parametrize("thresholds", [100, 1000])
def test_equals_the_protocol_to_the_last_digit(thresholds):
    maps, boxes = drawn(30)
    for metric, every, ious in (
        (MaxBoxAcc(gt_convention="inclusive", thresholds=thresholds), False, (0.5,)),
        (MaxBoxAcc(0.3, "inclusive", thresholds=thresholds), False, (0.3,)),
        (MaxBoxAccV2("inclusive", thresholds=thresholds), True, (0.3, 0.5, 0.7)),
    ):
        metric.update(maps, boxes)
        assert metric.compute().item() == protocol(maps, boxes, every=every, ious=ious, thresholds=thresholds)


@st.composite
def small_cases(draw):
    size = draw(st.tuples(st.integers(1, 7), st.integers(1, 9)))
    images = draw(st.integers(1, 3))
    values = st.lists(st.integers(0, 6), min_size=size[0] * size[1], max_size=size[0] * size[1])
    maps = torch.tensor([draw(values) for _ in range(images)]).reshape(images, *size) / 6
    boxes = []
    for _ in range(images):
        rows = []
        for _ in range(draw(st.integers(1, 3))):
            x = sorted(draw(st.tuples(*[st.integers(0, size[1] - 1)] * 2)))
            y = sorted(draw(st.tuples(*[st.integers(0, size[0] - 1)] * 2)))
            rows.append([x[0], y[0], x[1], y[1]])
        boxes.append(torch.tensor(rows))
    return maps.double(), boxes


@given(small_cases())
@settings(max_examples=80, deadline=None)
def test_equals_the_protocol_on_small_constant_and_tied_maps(case):
    maps, boxes = case
    one, all_ = MaxBoxAcc(gt_convention="inclusive", thresholds=10), MaxBoxAccV2("inclusive", thresholds=10)
    one.update(maps, boxes)
    all_.update(maps, boxes)
    assert one.compute().item() == protocol(maps, boxes, every=False, ious=(0.5,), thresholds=10)
    assert all_.compute().item() == protocol(maps, boxes, every=True, ious=(0.3, 0.5, 0.7), thresholds=10)


def test_conventions_differ_by_one_pixel():
    maps, boxes = drawn(12, seed=3)
    inclusive, exclusive = MaxBoxAccV2("inclusive", thresholds=50), MaxBoxAccV2(thresholds=50)
    inclusive.update(maps, boxes)
    exclusive.update(maps, [each + torch.tensor([0, 0, 1, 1]) for each in boxes])
    assert torch.equal(inclusive.curve()[1], exclusive.curve()[1])


def test_a_rule_that_is_not_quantised():
    maps, boxes = drawn(8, seed=2)
    rule = BoxRule.preset("dcm")
    metric = MaxBoxAcc(0.5, "inclusive", rule=rule, thresholds=10)
    metric.update(maps, boxes)
    threshold, accuracy = metric.curve()
    for index in (0, 3, 9):
        cut = BoxRule.preset("dcm", threshold=float(threshold[index]))(maps[:, None], maps.shape[1:])[:, 0]
        cut = cut.nan_to_num(nan=-9.0).double() - torch.tensor([0, 0, 1, 1])
        right = [oracle.inclusive_iou(cut[i : i + 1].numpy(), boxes[i].numpy()).max() >= 0.5 for i in range(8)]
        assert accuracy[index] == pytest.approx(np.mean(right))
    with pytest.raises(TypeError, match="does not quantise"):
        metric.update(quantise(maps), boxes)


@pytest.mark.parametrize("component", ["largest", "extent", "all", "all_contours"])
@pytest.mark.parametrize("reference", ["maximum", "percentile", "absolute"])
@pytest.mark.parametrize(("strict", "quantise"), [(True, False), (False, False), (False, True)])
def test_many_thresholds_at_once_equal_one_cut_after_another(component, reference, strict, quantise):
    maps, boxes = drawn(6, seed=4)
    maps[0], maps[1] = 0.0, (maps[1] * 4).round() / 4  # nothing to cut, and values that lie on limits
    rule = BoxRule(reference=reference, strict=strict, quantise=quantise, component=component, empty="image")
    thresholds = torch.arange(300).double().flip(0) / 300
    best = best_ious(maps, [each.double() for each in boxes], rule, thresholds)
    for index in (0, 37, 150, 225, 299):
        cut, image, _ = replace(rule, threshold=float(thresholds[index])).all_boxes(maps[:, None], maps.shape[1:])
        for i, true in enumerate(boxes):
            assert best[i, index] == iou(cut[image == i], true).max()


def test_curve_threshold_and_fixed_numbers():
    (maps, boxes), (others, other_boxes) = drawn(20, seed=1), drawn(20, seed=2)
    validation, test = (MaxBoxAcc(gt_convention="inclusive", thresholds=40) for _ in range(2))
    validation.update(maps, boxes)
    test.update(others, other_boxes)
    threshold, accuracy = test.curve()
    assert threshold.shape == accuracy.shape == (40,)
    assert test.compute() == accuracy.max() == test.at(test.best_threshold())
    fixed = test.at(validation.best_threshold())
    assert fixed == accuracy[(threshold - validation.best_threshold()).abs().argmin()]
    assert fixed <= test.compute()
    with pytest.raises(ValueError, match=r"0.333 is not among this metric's 40 thresholds; the nearest is 0.325"):
        test.at(0.333)


def test_every_iou_has_its_own_best_threshold():
    maps, boxes = drawn(20, seed=1)
    metric = MaxBoxAccV2("inclusive", thresholds=40)
    metric.update(maps, boxes)
    best = metric.best_thresholds()
    assert len(best) == 3
    assert metric.at(best) == metric.compute()
    assert metric.at(best[0]) <= metric.compute()
    with pytest.raises(ValueError, match="2 thresholds for 3 IoUs"):
        metric.at([0.1, 0.2])


@given(st.integers(0, 9), st.integers(0, 9))
@settings(max_examples=10, deadline=None)
def test_batches_do_not_matter(a, b):
    maps, boxes = drawn(9, size=(12, 17))
    whole, parts = (MaxBoxAccV2("inclusive", thresholds=30, per_image=True) for _ in range(2))
    whole.update(maps, boxes)
    a, b = sorted((a, b))
    for part in (slice(0, a), slice(a, b), slice(b, 9)):
        parts.update(maps[part], boxes[part])
    assert torch.equal(whole.curve()[1], parts.curve()[1])
    weights = torch.randint(3, (4, 9)) + 1
    assert torch.equal(whole.statistic()(weights), parts.statistic()(weights))


def test_statistic_equals_repeated_images():
    maps, boxes = drawn(7, size=(20, 30))
    for make in (lambda **k: MaxBoxAcc(0.3, "inclusive", **k), lambda **k: MaxBoxAccV2("inclusive", **k)):
        metric = make(thresholds=33, per_image=True)
        metric.update(maps, boxes)
        counts = [0, 3, 1, 0, 2, 1, 0]
        copies = [i for i, count in enumerate(counts) for _ in range(count)]
        again = make(thresholds=33)
        again.update(maps[copies], [boxes[i] for i in copies])
        weights = torch.tensor([counts, [1] * 7])
        assert metric.statistic()(weights).tolist() == pytest.approx([again.compute().item(), metric.compute().item()])
        fixed = metric.statistic(threshold=10 / 33)(weights)
        assert fixed.tolist() == pytest.approx([again.at(10 / 33).item(), metric.at(10 / 33).item()])
        assert interval(metric.statistic(), 7, draws=20).value == pytest.approx(metric.compute().item())
    with pytest.raises(ValueError, match="per_image=True"):
        again.statistic()


def test_updates_in_another_thread_give_the_same():
    maps, boxes = drawn(9, size=(12, 17))
    plain, behind = (MaxBoxAcc(gt_convention="inclusive", thresholds=30) for _ in range(2))
    plain.update(maps, boxes)
    with ThreadPoolExecutor(1) as worker:
        for part in (slice(0, 4), slice(4, 9)):
            worker.submit(behind.update, quantise(maps[part]), boxes[part]).result()
    assert torch.equal(plain.curve()[1], behind.curve()[1])


def test_state_does_not_grow():
    maps, boxes = drawn(4, size=(12, 17))
    metric = MaxBoxAccV2("inclusive")
    metric.update(maps, boxes)
    before = sum(state.numel() for state in metric.metric_state.values())
    metric.update(maps, boxes)
    assert sum(state.numel() for state in metric.metric_state.values()) == before
    assert int(metric.seen) == 8


def test_top_k():
    maps, boxes = drawn(10, size=(20, 30), seed=4)
    scores = torch.rand(10, 6)
    labels = torch.randint(6, (10,))
    metric = TopLocalization(threshold=0.25, ks=(1, 3), iou_threshold=0.3, gt_convention="inclusive", thresholds=20)
    metric.update(maps[:3], boxes[:3], scores[:3], labels[:3])
    metric.update(maps[3:], boxes[3:], scores[3:], labels[3:])
    result = metric.compute()
    right = np.array([oracle.best_ious(m.numpy(), b.numpy(), every=False, thresholds=np.arange(0, 1, 0.05)) >= 0.3
                      for m, b in zip(maps, boxes, strict=True)])  # fmt: skip
    for k, name in ((6, "gt_known"), (1, "top1_error"), (3, "top3_error")):
        named = np.array([labels[i].item() in scores[i].topk(k).indices.tolist() for i in range(10)])
        accuracy = (right & named[:, None]).mean(axis=0)
        oracle_, fixed = accuracy.max(), accuracy[5]
        if k < 6:
            oracle_, fixed = 1 - oracle_, 1 - fixed
            assert result[f"top{k}_classification_error"].item() == pytest.approx(1 - named.mean())
        assert result[f"{name}@best"].item() == pytest.approx(oracle_)
        assert result[f"{name}@0.25"].item() == pytest.approx(fixed)
        assert metric.at(0.25)[name].item() == pytest.approx(fixed)
        assert metric.at(metric.best_threshold(name))[name].item() == pytest.approx(oracle_)


def test_top_k_statistic():
    maps, boxes = drawn(8, size=(20, 30), seed=4)
    scores, labels = torch.rand(8, 3), torch.randint(3, (8,))
    metric = TopLocalization(ks=(1,), iou_threshold=0.3, thresholds=20, per_image=True)
    metric.update(maps, boxes, scores, labels)
    copies = [1, 1, 4, 5, 5, 5, 7, 0]
    again = TopLocalization(ks=(1,), iou_threshold=0.3, thresholds=20)
    again.update(maps[copies], [boxes[i] for i in copies], scores[copies], labels[copies])
    weights = torch.bincount(torch.tensor(copies), minlength=8)[None]
    for name in ("gt_known", "top1_error"):
        assert metric.statistic(name)(weights).item() == pytest.approx(again.compute()[f"{name}@best"].item())
        assert metric.statistic(name, 0.5)(weights).item() == pytest.approx(again.at(0.5)[name].item())
    with pytest.raises(ValueError, match="choose one of gt_known, top1_error"):
        metric.statistic("top5")


def test_readings_agree_for_top_1_and_differ_for_top_5():
    maps, scores, labels = torch.rand(20, 6, 4, 5), torch.rand(20, 6), torch.randint(6, (20,))
    predicted, true = (select_class_maps(maps, scores, labels, reading) for reading in ("predicted", "true"))
    same = (predicted == true).flatten(1).all(dim=1)
    assert torch.equal(same, scores.argmax(dim=1) == labels)
    assert torch.equal(true[7], maps[7, labels[7]])
    with pytest.raises(ValueError, match="unknown reading"):
        select_class_maps(maps, scores, labels, "both")


def test_corloc_averages_over_classes():
    maps, boxes = drawn(9, size=(20, 30), seed=5)
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 3, 3, 1])
    metric = CorLoc(5, threshold=0.3, iou_threshold=0.3, gt_convention="inclusive", thresholds=10, per_image=True)
    metric.update(maps, boxes, labels)
    right = np.array([oracle.best_ious(m.numpy(), b.numpy(), every=False, thresholds=np.arange(0, 1, 0.1)) >= 0.3
                      for m, b in zip(maps, boxes, strict=True)])  # fmt: skip
    each = np.stack([right[labels.numpy() == k].mean(axis=0) for k in (0, 1, 3)])
    result = metric.compute()
    assert result["corloc@best"].item() == pytest.approx(each.mean(axis=0).max())
    assert result["corloc@0.3"].item() == pytest.approx(each.mean(axis=0)[3])
    assert metric.per_class(0.3)[[0, 1, 3]].tolist() == pytest.approx(each[:, 3].tolist())
    assert metric.at(metric.best_threshold()) == result["corloc@best"]
    weights = torch.tensor([[1] * 9, [2, 0, 1, 0, 0, 3, 0, 2, 0]])
    own = [labels.numpy() == k for k in (0, 3)]
    weighted = np.mean([np.average(right[rows], axis=0, weights=weights[1, rows]) for rows in own], axis=0)
    expected = [result["corloc@best"].item(), weighted.max()]
    assert metric.statistic()(weights).tolist() == pytest.approx(expected)
    assert metric.statistic(0.3)(weights)[1].item() == pytest.approx(weighted[3])
    with pytest.raises(ValueError, match="label 5 is out of range for 5 classes"):
        metric.update(maps[:1], boxes[:1], torch.tensor([5]))


BOX = torch.tensor([[0, 0, 3, 3]])
GOOD = torch.rand(2, 5, 7)


def spoilt(value):
    maps = GOOD.clone()
    maps[1, 2, 3] = value
    return maps


@pytest.mark.parametrize(
    ("maps", "boxes", "message"),
    [
        (spoilt(torch.nan), [BOX, BOX], r"image 1 of this batch \(image 3 of all, from 0\) holds nan"),
        (spoilt(torch.inf), [BOX, BOX], "image 1 .* holds inf"),
        (spoilt(1.5), [BOX, BOX], r"image 1 .* to 1.5, outside of \[0, 1\]"),
        (GOOD[0], [BOX], "must have shape"),
        (GOOD, [BOX], "2 maps but 1 lists of boxes"),
        (GOOD, [BOX, BOX, BOX], "2 maps but 3 lists of boxes"),
        (GOOD, [BOX, torch.tensor([[3, 0, 2, 4]])], "boxes of image 1 of this batch: box 0 .* negative size"),
        (GOOD, [BOX, torch.zeros(0, 4)], "image 1 of this batch has no ground-truth box"),
    ],
)
def test_bad_input(maps, boxes, message):
    metric = MaxBoxAcc(thresholds=10)
    metric.update(GOOD, [BOX, BOX])
    with pytest.raises(ValueError, match=message):
        metric.update(maps, boxes)
    assert int(metric.seen) == 2


def test_bad_settings():
    with pytest.raises(ValueError, match="'exclusive' or 'inclusive', not 'padded'"):
        MaxBoxAcc(gt_convention="padded")
    with pytest.raises(ValueError, match=r"IoU thresholds must lie in \(0, 1\]"):
        MaxBoxAcc(50)
    with pytest.raises(ValueError, match="at least 2 thresholds"):
        MaxBoxAcc(thresholds=1)
    with pytest.raises(TypeError, match="int64"):
        MaxBoxAcc(thresholds=10).update(torch.ones(1, 2, 3, dtype=torch.int64), [BOX])
    with pytest.raises(ValueError, match=r"class scores must have shape \(2, classes\)"):
        TopLocalization(thresholds=10).update(GOOD, [BOX, BOX], torch.rand(3, 4), torch.tensor([0, 1]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_maps_on_the_gpu_give_the_same():
    maps, boxes = drawn(9, size=(24, 31))
    masks, device = maps > 0.6, torch.device("cuda")
    for make, truth in (
        (lambda: MaxBoxAccV2("inclusive", thresholds=30, per_image=True), boxes),
        (lambda: PxAP(30, per_image=True), masks),
    ):
        near, far = make(), make().to(device)
        near.update(maps, truth)
        far.update(maps.to(device), truth if truth is boxes else masks.to(device))
        assert far.compute() == near.compute()
        assert all(state.is_cuda for state in far.metric_state.values() if isinstance(state, torch.Tensor))
        weights = torch.ones(1, 9)
        assert far.statistic()(weights) == near.statistic()(weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["ornet", "cam", "dcm", "wsoleval", "rethinking"])
def test_half_precision_is_judged_as_the_rule_cuts_it(name, dtype):
    rule = replace(BoxRule.preset(name), resize=None, normalise=None)
    generator = torch.Generator().manual_seed(0)
    maps = (torch.randint(0, 11, (8, 6, 9), generator=generator) / 10).to(dtype)
    maps[:, 0, 0], truth = 1.0, torch.tensor([[1.0, 1.0, 7.0, 5.0]])
    metric = MaxBoxAcc(iou_threshold=0.3, rule=rule, thresholds=10)
    metric.update(maps, [truth] * 8)
    single = MaxBoxAcc(iou_threshold=0.3, rule=rule, thresholds=10)
    single.update(maps.float(), [truth] * 8)
    assert torch.equal(metric.curve()[1], single.curve()[1])
    for k, threshold in enumerate(metric.thresholds.tolist()):
        boxes = replace(rule, threshold=threshold)(maps[:, None], (6, 9))[:, 0].nan_to_num(-9)
        right = (iou(boxes.double(), truth.double())[:, 0] >= 0.3).double().mean()
        assert metric.curve()[1][k] == right
