from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from wsolnb.localization.baselines import centred_gaussian
from wsolnb.metrics import PxAP


def protocol_pxap(maps, masks, ignore, thresholds):
    """The protocol's definition, threshold by threshold and without histograms."""
    scores = np.concatenate([m.numpy().astype(np.float64).ravel() for m in maps])
    truth = np.concatenate([m.numpy().ravel() for m in masks])
    kept = truth | ~np.concatenate([m.numpy().ravel() for m in ignore])
    scores, truth = scores[kept], truth[kept]
    area, before = 0.0, 0.0
    for edge in [2.0, 1.0, *np.arange(0, 1, 1 / thresholds)[::-1]]:
        above = scores >= edge
        recall = (above & truth).sum() / truth.sum()
        precision = (above & truth).sum() / max(above.sum(), 1)
        area, before = area + precision * (recall - before), recall
    return area


@st.composite
def cases(draw):
    images, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 6))
    count = images * height * width
    scores = draw(st.lists(st.sampled_from([0, 0.1, 0.3, 0.35, 0.7, 0.999, 1.0]), min_size=count, max_size=count))
    codes = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    codes = torch.tensor(codes).reshape(images, height, width)
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return torch.tensor(scores, dtype=dtype).reshape(images, height, width), codes >= 2, codes % 2 == 1


@given(cases(), st.sampled_from([2, 10, 100, 1000]))
@settings(max_examples=100, deadline=None)
def test_equals_brute_force(case, thresholds):
    maps, masks, ignore = case
    metric = PxAP(thresholds)
    metric.update(maps, masks, ignore)
    if not masks.any():
        with pytest.raises(ValueError, match="no mask has a foreground pixel"):
            metric.compute()
        return
    assert metric.compute().item() == pytest.approx(protocol_pxap(maps, masks, ignore, thresholds), abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.sampled_from([3, 7, 100, 1000]))
@settings(max_examples=100)
def test_bins_equal_numpys(scores, thresholds):
    scores = torch.tensor(scores, dtype=torch.float64)
    grid = np.arange(thresholds) * (1 / thresholds)
    scores = torch.cat([scores, torch.from_numpy(grid), torch.from_numpy(np.nextafter(grid, 1))]).clamp(max=1)
    metric = PxAP(thresholds)
    metric.update(scores[None, None], torch.ones(1, 1, len(scores), dtype=torch.bool))
    expected = np.histogram(scores.numpy(), bins=[*grid, 1.0, 2.0, 3.0])[0]
    assert metric.foreground.tolist() == expected.tolist()


def test_a_case_by_hand():
    metric = PxAP(10)
    maps = torch.tensor([[[0.95, 0.85, 0.55, 0.35]]])
    metric.update(maps, torch.tensor([[[1, 0, 1, 0]]]))
    assert metric.compute().item() == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    result = metric.at(0.5)
    assert (result["precision"], result["recall"], result["iou"]) == pytest.approx((2 / 3, 1, 2 / 3))
    assert metric.best_threshold() == pytest.approx(0.4)
    assert metric.curve()["precision"].shape == (10,)


def test_ignored_pixels_count_for_nothing_unless_they_are_foreground():
    maps, masks = torch.rand(2, 5, 7), torch.rand(2, 5, 7) > 0.6
    plain, ignoring = PxAP(), PxAP()
    plain.update(maps, masks)
    ignoring.update(maps, masks, masks)
    assert plain.compute() == ignoring.compute()
    ignoring.reset()
    ignoring.update(maps, masks, torch.ones_like(masks))
    assert ignoring.compute() == 1


@given(st.integers(0, 6), st.integers(0, 6))
@settings(max_examples=10, deadline=None)
def test_batches_do_not_matter(a, b):
    maps, masks = torch.rand(6, 5, 7), torch.rand(6, 5, 7) > 0.6
    a, b = sorted((a, b))
    whole, parts = PxAP(), PxAP()
    whole.update(maps, masks)
    for part in (slice(0, a), slice(a, b), slice(b, 6)):
        parts.update(maps[part], masks[part])
    assert whole.compute() == parts.compute()


def test_iou_statistic_equals_repeated_images():
    generator = torch.Generator().manual_seed(2)
    maps = torch.rand(5, 4, 7, generator=generator)
    masks = torch.rand(5, 4, 7, generator=generator) > 0.6
    metric = PxAP(10, per_image=True)
    metric.update(maps, masks)
    weights = torch.tensor([[1.0] * 5, [0, 3, 1, 0, 1], [2, 0, 0, 3, 0]])
    for threshold in (None, 0.4):
        expected = []
        for row in weights.long():
            score, truth = maps.repeat_interleave(row, 0), masks.repeat_interleave(row, 0)
            cuts = [score.double() >= i * 0.1 for i in (range(10) if threshold is None else [4])]
            expected.append(max(((cut & truth).sum() / (cut | truth).sum()).item() for cut in cuts))
        assert metric.iou_statistic(threshold)(weights).tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"threshold 0\.45 is not among"):
        metric.iou_statistic(0.45)


def test_statistic_equals_repeated_images():
    maps, masks = torch.rand(5, 4, 6), torch.rand(5, 4, 6) > 0.6
    metric = PxAP(50, per_image=True)
    metric.update(maps[:2], masks[:2])
    metric.update(maps[2:], masks[2:])
    copies = [0, 0, 3, 4, 4]
    again = PxAP(50)
    again.update(maps[copies], masks[copies])
    weights = torch.tensor([[2, 0, 0, 1, 2], [1, 1, 1, 1, 1]])
    expected = [again.compute().item(), metric.compute().item()]
    assert metric.statistic()(weights).tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match="per_image=True"):
        again.statistic()


def test_images_without_foreground_count_as_background():
    metric = PxAP(10)
    maps = torch.tensor([[[0.9, 0.1]], [[0.95, 0.2]]])
    metric.update(maps, torch.tensor([[[True, False]], [[False, False]]]))
    assert metric.compute() == 0.5


def test_updates_leave_their_arguments_alone():
    maps, masks, ignore = torch.rand(2, 5, 7), torch.rand(2, 5, 7) > 0.6, torch.rand(2, 5, 7) > 0.6
    copies = maps.clone(), masks.clone(), ignore.clone()
    PxAP().update(maps, masks, ignore)
    assert all(torch.equal(*pair) for pair in zip(copies, (maps, masks, ignore), strict=True))


GOOD = torch.rand(2, 5, 7)
MASKS = GOOD > 0.5


@pytest.mark.parametrize(
    ("maps", "masks", "ignore", "message"),
    [
        (GOOD / 0, MASKS, None, r"image 0 of this batch \(image 2 of all, from 0\)"),
        (GOOD - 1, MASKS, None, r"image 0 .* outside of \[0, 1\]"),
        (GOOD, MASKS[:1], None, "2 maps but 1 masks"),
        (GOOD, MASKS.transpose(1, 2), None, r"maps are \(2, 5, 7\) but masks \(2, 7, 5\)"),
        (GOOD, MASKS, MASKS[:, :4], r"but ignore regions \(2, 4, 7\)"),
        (GOOD, MASKS * 255, None, "masks must hold 0 and 1 only, not values from 0 to 255"),
    ],
)
def test_bad_input(maps, masks, ignore, message):
    metric = PxAP()
    metric.update(GOOD, MASKS)
    before = metric.foreground.clone()
    with pytest.raises(ValueError, match=message):
        metric.update(maps, masks, ignore)
    assert torch.equal(metric.foreground, before)


def test_centred_gaussian():
    field = centred_gaussian((6, 9))
    assert field.shape == (6, 9)
    assert field.min() == 0
    assert field.max() == 1
    torch.testing.assert_close(field, field.flip(0, 1))
    assert centred_gaussian((1, 1)).item() == 1
