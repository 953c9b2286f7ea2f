"""Losses against hand-computed values and numerical gradients."""

from __future__ import annotations

import math

import pytest
import torch

from wsolnb.losses import CrossEntropy
from wsolnb.papers.barz2022.losses import CosineLoss


def test_cosine_loss_by_hand() -> None:
    loss = CosineLoss(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))  # the second is normalised to 45 degrees
    outputs, labels = torch.tensor([[2.0, 0.0], [3.0, 0.0]]), torch.tensor([0, 1])
    assert float(loss(outputs, labels)) == pytest.approx((0 + 1 - math.sqrt(0.5)) / 2)
    torch.testing.assert_close(loss.scores(outputs)[0], torch.tensor([1.0, math.sqrt(0.5)]))


def test_cosine_loss_does_not_see_the_length_of_the_output() -> None:
    loss, outputs, labels = CosineLoss(torch.eye(4)), torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(loss(outputs, labels), loss(outputs * 100, labels))


def test_cosine_loss_gradient() -> None:
    loss = CosineLoss(torch.randn(4, 3)).double()
    outputs = torch.randn(5, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss(x, torch.tensor([0, 1, 2, 3, 0])), outputs)


def test_an_output_of_zero_costs_one_and_has_a_finite_gradient() -> None:
    outputs = torch.zeros(1, 3, requires_grad=True)
    value = CosineLoss(torch.eye(3))(outputs, torch.tensor([1]))
    value.backward()
    assert float(value.detach()) == 1
    assert torch.isfinite(outputs.grad).all()


def test_cross_entropy_scores_are_probabilities() -> None:
    torch.testing.assert_close(CrossEntropy().scores(torch.randn(3, 5)).sum(dim=1), torch.ones(3))


def test_embeddings_without_length_or_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="class 1 has an embedding of length zero"):
        CosineLoss(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match=r"matrix \(C, E\), got shape \(3,\)"):
        CosineLoss(torch.ones(3))
