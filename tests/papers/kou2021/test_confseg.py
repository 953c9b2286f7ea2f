"""The confidence mask by hand and against its thresholds; the inner loss and its gradient; the whole objective."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

from wsolnb.boxes.quantise import minmax_normalise
from wsolnb.papers.kou2021.coaug import CoAug
from wsolnb.papers.kou2021.confseg import confidence, confidence_mask, fixed_mask, inner_loss, thresholds
from wsolnb.papers.kou2021.losses import CSoALoss
from wsolnb.papers.kou2021.network import TwoMaps

# The first map: mean 2, distances 2 2 1 / 1 4 4, their mean 14/6.
BY_HAND = torch.tensor([[[0.0, 4.0, 1.0], [3.0, -2.0, 6.0]], [[5.0, 5.0, 5.0], [5.0, 5.0, 5.0]]])


def test_mask_by_hand() -> None:
    torch.testing.assert_close(confidence(BY_HAND)[0], torch.tensor([[2.0, 2.0, 1.0], [1.0, 4.0, 4.0]]))
    expected = [[False, False, False], [False, True, True]]  # both ends count: sure background and sure object
    assert confidence_mask(BY_HAND)[0].tolist() == expected
    assert not confidence_mask(BY_HAND)[1].any()  # nothing is sure in a constant map


def test_thresholds_by_hand() -> None:
    low, high = thresholds(BY_HAND)
    torch.testing.assert_close(low, torch.tensor([2 - 14 / 6, 5.0]))
    torch.testing.assert_close(high, torch.tensor([2 + 14 / 6, 5.0]))


@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(2, 9), st.floats(0.1, 50))
def test_mask_is_what_its_two_thresholds_say(seed: int, height: int, width: int, scale: float) -> None:
    maps = scale * torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    low, high = (each[:, None, None] for each in thresholds(maps))
    near = ((maps - low).abs() < 1e-9) | ((maps - high).abs() < 1e-9)  # equality is decided by rounding
    assert torch.equal(confidence_mask(maps) | near, (maps < low) | (maps > high) | near)


@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-100, 100))
def test_mask_adapts_to_scale_and_shift_of_a_map(seed: int, scale: float, shift: float) -> None:
    maps = torch.randint(-50, 50, (2, 3, 5), generator=torch.Generator().manual_seed(seed)).double()
    distance = confidence(maps)
    near = (distance - distance.mean(dim=(1, 2), keepdim=True)).abs() < 1e-9
    assert torch.equal(confidence_mask(maps) | near, confidence_mask(scale * maps + shift) | near)


def test_fixed_thresholds_do_not_know_the_image() -> None:
    peaked = torch.tensor([[[0.0, 1.0, 2.0, 10.0]]])
    flat = torch.tensor([[[0.0, 9.0, 9.5, 10.0]]])
    both = torch.cat([peaked, flat])
    assert fixed_mask(both, 0.05, 0.7).sum(dim=(1, 2)).tolist() == [2, 4]  # of the flat map everything
    assert confidence_mask(both).sum(dim=(1, 2)).tolist() == [1, 1]
    assert not fixed_mask(torch.ones(1, 2, 3), 0.0, 0.5).any()
    assert minmax_normalise(both).amax(dim=(1, 2)).tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"0 <= low <= high <= 1, got low=0.7, high=0.1"):
        fixed_mask(peaked, 0.7, 0.1)


def test_inner_loss_by_hand() -> None:
    inner = BY_HAND + torch.tensor([[[1.0, 1.0, 1.0], [1.0, 2.0, -3.0]]])
    mask = confidence_mask(BY_HAND)
    assert float(inner_loss(inner, BY_HAND, mask)) == pytest.approx((2 + 3) / 6 / 2)
    assert float(inner_loss(inner, BY_HAND, mask, over="sum")) == pytest.approx((2 + 3 + 0) / 2)


def test_inner_loss_teaches_the_inner_map_only_and_only_where_it_is_sure() -> None:
    last = BY_HAND.clone().requires_grad_()
    inner = (BY_HAND + 1).requires_grad_()
    inner_loss(inner, last, confidence_mask(last.detach()), over="sum").backward()
    assert last.grad is None
    torch.testing.assert_close(inner.grad[0], torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.5]]))


def test_inner_loss_gradient() -> None:
    last = torch.randn(3, 2, 5, dtype=torch.double)
    inner = torch.randn(3, 2, 5, dtype=torch.double, requires_grad=True)
    mask = confidence_mask(last)
    assert torch.autograd.gradcheck(lambda x: inner_loss(x, last, mask), inner)
    assert torch.autograd.gradcheck(lambda x: inner_loss(x, last, mask, over="sum"), inner)


def outputs(classes: int = 4, *, inner: bool = True) -> TwoMaps:
    maps = torch.randn(3, classes, 2, 5)
    return TwoMaps(maps, torch.randn_like(maps) if inner else None, torch.rand(3, 3, 16, 40))


def test_objective_is_the_sum_of_its_parts() -> None:
    found, labels = outputs(), torch.tensor([0, 3, 3])
    mean_colour = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    rows = (torch.arange(3), labels)
    last, inner = found.last[rows], found.inner[rows]
    cross = sum(nn.functional.cross_entropy(y, labels) for y in found.logits())
    coaug = CoAug(mean_colour)
    expected = {
        CSoALoss(): cross,
        CSoALoss(alpha=0.5): cross + 0.5 * inner_loss(inner, last, confidence_mask(last)),
        CSoALoss(alpha=1, over="sum"): cross + inner_loss(inner, last, confidence_mask(last), over="sum"),
        CSoALoss(alpha=1, fixed=(0.1, 0.7)): cross + inner_loss(inner, last, fixed_mask(last, 0.1, 0.7)),
        CSoALoss(coaug=coaug, coaug_weight=0.3): cross + 0.3 * coaug(last, found.images, labels),
    }
    for loss, value in expected.items():
        torch.testing.assert_close(loss(found, labels), value)


def test_both_weights_rise_with_the_epochs() -> None:
    found, labels = outputs(), torch.tensor([0, 3, 3])
    coaug = CoAug(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    loss, cross = CSoALoss(alpha=0.8, coaug=coaug, coaug_weight=0.3), float(CSoALoss()(found, labels))
    added = float(loss(found, labels)) - cross  # before any epoch: the whole weights
    assert added > 0
    seen = []
    for epoch in range(5):
        loss.begin_epoch(epoch, 5)
        seen.append((float(loss(found, labels)) - cross) / added)
    assert seen == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=1e-5)
    loss.begin_epoch(0, 1)
    assert loss.risen == 1
    constant = CSoALoss(alpha=0.8, ramp="constant")
    constant.begin_epoch(0, 5)
    assert constant.risen == 1
    assert repr(constant) == repr(CSoALoss(alpha=0.8, ramp="constant"))  # the epoch is no setting


def test_one_head_costs_one_cross_entropy() -> None:
    found = outputs(inner=False)
    zero = TwoMaps(torch.zeros_like(found.last), None, found.images)
    assert float(CSoALoss()(zero, torch.tensor([0, 1, 2]))) == pytest.approx(math.log(4))
    torch.testing.assert_close(CSoALoss().scores(zero), torch.full((3, 4), 0.25))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"float \(B, h, w\), one class each, got torch.float32 \(1, 2, 3, 4\)"):
        confidence_mask(torch.zeros(1, 2, 3, 4))
    with pytest.raises(ValueError, match=r"one shape, got \(1, 2, 3\), \(1, 2, 4\), \(1, 2, 3\)"):
        inner_loss(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4), torch.ones(1, 2, 3).bool())
    with pytest.raises(ValueError, match="over must be 'sum' or 'mean', not 'max'"):
        inner_loss(*[torch.zeros(1, 2, 3)] * 3, over="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="build the network with `inner`"):
        CSoALoss(alpha=1)(outputs(inner=False), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1, got 2"):
        CSoALoss(alpha=2)
    with pytest.raises(ValueError, match="ramp must be 'linear' or 'constant', not 'steep'"):
        CSoALoss(ramp="steep")  # type: ignore[arg-type]


def test_extreme_maps_give_finite_losses() -> None:
    for values in (torch.zeros(2, 3, 2, 5), torch.full((2, 3, 2, 5), 1e4), -torch.full((2, 3, 2, 5), 1e4)):
        last = values.clone().requires_grad_()
        loss = CSoALoss(alpha=1, coaug=CoAug(nn.Flatten()))(TwoMaps(last, last, torch.rand(2, 3, 8, 20)), _pair())
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(last.grad).all()


def _pair() -> Tensor:
    return torch.tensor([1, 1])
