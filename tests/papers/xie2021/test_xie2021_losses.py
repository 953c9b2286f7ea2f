"""Entropy, area and total loss of ORNet: values by hand, gradients, the ends of the range, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from wsolnb.papers.xie2021.losses import (
    AreaLoss,
    Coarse,
    EntropyLoss,
    Refined,
    RefinementLoss,
    TwoHeads,
    pixel_entropy,
    uncertainty_weight,
)

INSIDE = torch.tensor([[[[0.03, 0.2, 0.41], [0.5, 0.77, 0.98]]]], dtype=torch.float64)


def refined(maps: Tensor, classes: int = 4) -> Refined:
    torch.manual_seed(0)
    scores = torch.randn(len(maps), classes, dtype=maps.dtype)
    return Refined(scores, maps, torch.rand(len(maps), classes, *maps.shape[2:], dtype=maps.dtype))


def test_entropy_of_a_pixel_by_hand() -> None:
    found = pixel_entropy(torch.tensor([0.25, 0.5, 0.9], dtype=torch.float64))
    by_hand = [
        0.25 * math.log(4) + 0.75 * math.log(4 / 3),
        math.log(2),
        -0.9 * math.log(0.9) - 0.1 * math.log(0.1),
    ]
    torch.testing.assert_close(found, torch.tensor(by_hand, dtype=torch.float64))


@given(st.floats(0, 1))
def test_entropy_is_the_same_for_object_and_background(p: float) -> None:
    both = pixel_entropy(torch.tensor([p, 1 - p], dtype=torch.float64))
    assert both[0] == pytest.approx(float(both[1]), abs=1e-12)
    assert 0 <= both[0] <= math.log(2) + 1e-12


def test_weight_by_hand() -> None:
    # one and two deviations away from the mean
    found = uncertainty_weight(torch.tensor([0.5, 0.4, 0.7], dtype=torch.float64))
    by_hand = torch.tensor([1.0, math.exp(-0.5), math.exp(-2.0)], dtype=torch.float64)
    torch.testing.assert_close(found, by_hand)
    assert float(uncertainty_weight(torch.tensor(0.9), mean=0.6, deviation=0.3)) == pytest.approx(math.exp(-0.5))


def test_both_entropy_losses_are_means_over_images_and_pixels() -> None:
    maps = torch.tensor([[[[0.5, 0.4, 0.0]]], [[[1.0, 0.25, 0.5]]]], dtype=torch.float64)
    entropy = pixel_entropy(maps).flatten()
    plain = (2 * math.log(2) + float(entropy[1]) + float(entropy[4])) / 6
    weighted = (2 * math.log(2) + math.exp(-0.5) * float(entropy[1]) + math.exp(-3.125) * float(entropy[4])) / 6
    assert float(EntropyLoss(weighted=False)(maps)) == pytest.approx(plain, abs=1e-9)
    assert float(EntropyLoss()(maps)) == pytest.approx(weighted, abs=1e-9)


@pytest.mark.parametrize("weighted", [True, False])
def test_gradient_of_the_entropy(weighted: bool) -> None:
    assert torch.autograd.gradcheck(EntropyLoss(weighted=weighted), INSIDE.clone().requires_grad_())


def test_gradient_of_the_weighted_entropy_by_hand() -> None:
    p = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    EntropyLoss()(p.reshape(1, 1, 1, 1)).backward()
    # d(γH) = γ'H + γH', γ' = -(p - μ)/σ² γ, H' = log((1 - p)/p)
    weight, entropy = math.exp(-0.5), float(pixel_entropy(p.detach()))
    by_hand = 0.1 / 0.01 * weight * entropy + weight * math.log(0.6 / 0.4)
    assert p.grad is not None
    assert float(p.grad) == pytest.approx(by_hand)


def test_weighted_entropy_pulls_in_the_middle_and_leaves_certain_pixels_alone() -> None:
    p = torch.tensor([0.05, 0.15, 0.4, 0.6, 0.85, 0.95], dtype=torch.float64, requires_grad=True)
    EntropyLoss()(p.reshape(1, 1, 2, 3)).backward()
    assert p.grad is not None
    pull = p.grad
    assert bool((pull[:3] > 0).all()), "values below the mean are pulled down"
    assert bool((pull[3:] < 0).all()), "values above it are pulled up"
    assert float(pull[2]) > 30 * float(pull[1]) > 30 * float(pull[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("loss", [EntropyLoss(), EntropyLoss(weighted=False)], ids=["weighted", "plain"])
def test_ends_of_the_range_are_safe(loss: EntropyLoss, dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).tiny
    maps = torch.tensor([[[[0.0, 1.0, tiny], [1 - torch.finfo(dtype).eps, 0.5, 0.0]]]], dtype=dtype).requires_grad_()
    value = loss(maps)
    value.backward()
    assert maps.grad is not None
    assert bool(value.isfinite())
    assert bool(maps.grad.isfinite().all())
    assert float(pixel_entropy(maps.detach())[0, 0, 0, 0]) < 50 * torch.finfo(dtype).eps


def test_gradient_stays_finite_through_a_saturated_sigmoid() -> None:
    logits = torch.tensor([-1e4, -100.0, 0.3, 100.0, 1e4], requires_grad=True)
    EntropyLoss()(logits.sigmoid().reshape(1, 1, 1, 5)).backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    assert logits.grad[[0, 1, 3, 4]].tolist() == [0, 0, 0, 0]


def test_area_is_the_mean_of_the_map() -> None:
    outputs = refined(INSIDE)
    assert float(AreaLoss()(outputs)) == pytest.approx((0.03 + 0.2 + 0.41 + 0.5 + 0.77 + 0.98) / 6)


def test_gradient_of_the_area() -> None:
    outputs = refined(INSIDE)
    maps = INSIDE.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: AreaLoss()(outputs._replace(maps=p)), maps)
    evidence = outputs.evidence.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda e: AreaLoss((2, 3))(outputs._replace(evidence=e)), evidence)


def test_extra_area_term_of_the_released_code_by_hand() -> None:
    scores = torch.tensor([[0.1, 0.4, 0.3, 0.2], [4.0, 3.0, 2.0, 1.0]])
    channel_means = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    outputs = Refined(scores, torch.full((2, 1, 3, 5), 0.25), channel_means[..., None, None].expand(2, 4, 3, 5))
    # first image: rank 3 is class 3 (mean 4), rank 4 is class 0 (mean 1); second: classes 2 and 3 (7 and 8)
    assert float(AreaLoss((3, 25))(outputs)) == pytest.approx(0.25 + ((4 + 1) + (7 + 8)) / 2)
    assert float(AreaLoss((3, 3))(outputs)) == pytest.approx(0.25 + (4 + 7) / 2)


def test_two_heads_add_up() -> None:
    outputs = Coarse(torch.tensor([[0.0, math.log(3)]]), torch.tensor([[0.0, 0.0]]))
    loss = TwoHeads()
    assert float(loss(outputs, torch.tensor([1]))) == pytest.approx(math.log(4 / 3) + math.log(2))
    torch.testing.assert_close(loss.scores(outputs), torch.tensor([[0.25, 0.75]]))


def test_total_is_evaluation_plus_weighted_parts() -> None:
    outputs, labels = refined(INSIDE), torch.tensor([2])
    evaluation = torch.nn.functional.cross_entropy(outputs.scores, labels)
    by_hand = evaluation + 1.5 * EntropyLoss()(INSIDE) + 0.02 * INSIDE.mean()
    torch.testing.assert_close(RefinementLoss()(outputs, labels), by_hand)
    torch.testing.assert_close(RefinementLoss(0, 0)(outputs, labels), evaluation)
    plain = RefinementLoss(2, 0, entropy=EntropyLoss(weighted=False))(outputs, labels)
    torch.testing.assert_close(plain, evaluation + 2 * pixel_entropy(INSIDE).mean())
    torch.testing.assert_close(RefinementLoss().scores(outputs), outputs.scores.softmax(dim=1))


def test_gradient_of_the_total() -> None:
    outputs, loss = refined(INSIDE), RefinementLoss(area=AreaLoss((2, 3)))

    def total(scores: Tensor, maps: Tensor, evidence: Tensor) -> Tensor:
        return loss(Refined(scores, maps, evidence), torch.tensor([2]))  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(total, [each.clone().requires_grad_() for each in outputs])


@pytest.mark.parametrize("wrong", [-0.01, 1.01])
def test_maps_outside_of_the_range_are_refused(wrong: float) -> None:
    maps = torch.full((1, 1, 2, 3), 0.5)
    maps[0, 0, 1, 2] = wrong
    for loss in (pixel_entropy, EntropyLoss(), lambda p: AreaLoss()(refined(p))):
        with pytest.raises(ValueError, match=rf"\[0, 1\].*{wrong}"):
            loss(maps)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0, got 0"):
        EntropyLoss(deviation=0)
    with pytest.raises(ValueError, match="at least 0, got -1 and"):
        RefinementLoss(alpha=-1)
    with pytest.raises(ValueError, match=r"rise from at least 1, got \(5, 4\)"):
        AreaLoss((5, 4))
    with pytest.raises(ValueError, match="rank 5, but there are 4 classes"):
        AreaLoss((5, 25))(refined(INSIDE))
