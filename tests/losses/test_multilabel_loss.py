"""The loss for images that show several classes: by hand, by its gradient, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from wsolnb.losses import MultiLabelCrossEntropy

LABELS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])


def test_softmax_by_hand() -> None:
    outputs = torch.tensor([[math.log(2), 0.0, 0.0], [0.0, 0.0, 0.0]])  # probabilities 1/2 1/4 1/4, and 1/3 each
    first = -(math.log(1 / 2) + math.log(3 / 4) + 0.5 * math.log(1 / 4) + 0.5 * math.log(3 / 4))
    assert float(MultiLabelCrossEntropy()(outputs, LABELS)) == pytest.approx(
        (first - 3 * math.log(2 / 3)) / 6, rel=1e-5
    )


def test_sigmoid_is_binary_cross_entropy() -> None:
    outputs = torch.randn(2, 3)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(outputs, LABELS)
    assert torch.allclose(MultiLabelCrossEntropy("sigmoid")(outputs, LABELS), expected)


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_gradient(output: str) -> None:
    loss = MultiLabelCrossEntropy(output)  # type: ignore[arg-type]
    outputs = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss(x, LABELS.double()), outputs)


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_extreme_outputs_stay_finite(output: str) -> None:
    outputs = torch.tensor([[1e4, -1e4, 0.0], [0.0, 1e4, -1e4]], requires_grad=True)
    loss = MultiLabelCrossEntropy(output)(outputs, LABELS)  # type: ignore[arg-type]
    loss.backward()
    assert bool(loss.isfinite())
    assert outputs.grad is not None
    assert bool(outputs.grad.isfinite().all())


def test_unknown_labels_count_for_nothing() -> None:
    labels = LABELS.clone()
    labels[0, 1] = torch.nan
    outputs = torch.randn(2, 3, requires_grad=True)
    loss = MultiLabelCrossEntropy("sigmoid")
    loss(outputs, labels).backward()
    assert outputs.grad is not None
    assert outputs.grad[0, 1] == 0
    assert loss(outputs, torch.full((2, 3), torch.nan)).item() == 0


def test_refuses() -> None:
    with pytest.raises(ValueError, match="'tanh'"):
        MultiLabelCrossEntropy("tanh")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(2,\) do not fit outputs \(2, 3\)"):
        MultiLabelCrossEntropy()(torch.zeros(2, 3), torch.zeros(2))
