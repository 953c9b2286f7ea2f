"""Poolings: values worked out by hand, edge cases, gradients, and the classifier that carries one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from wsolnb.losses import CrossEntropy
from wsolnb.models.backbones import backbone
from wsolnb.models.cam import Classifier, GlobalAveragePooling, GlobalMaxPooling
from wsolnb.papers.bae2020.pooling import ThresholdedAveragePooling


def row(*values: float) -> Tensor:
    """One image with one channel of 1 x n cells."""
    return torch.tensor(values).view(1, 1, 1, -1)


@pytest.mark.parametrize(
    ("values", "threshold", "pooled"),
    [
        ((0.0, 1.0, 2.0, 4.0), 0.0, 7 / 3),  # positive cells only: not the plain average
        ((0.0, 1.0, 2.0, 4.0), 0.1, 7 / 3),
        ((0.0, 1.0, 2.0, 4.0), 0.25, 3.0),  # 1 is exactly the threshold, and the comparison is strict
        ((0.0, 1.0, 2.0, 4.0), 0.5, 4.0),  # the same for 2
        ((0.0, 1.0, 2.0, 4.0), 0.99, 4.0),
        ((5.0, 5.0, 5.0, 5.0), 0.1, 5.0),
        ((0.0, 0.0, 0.0, 0.0), 0.1, 0.0),  # empty: the denominator becomes 1
        ((-3.0, 2.0, 4.0, -1.0), 0.1, 3.0),  # negative cells are never kept
        ((-3.0, 0.0, -4.0, -1.0), 0.0, 0.0),
        ((-3.0, -2.0, -4.0, -1.0), 0.1, 0.0),  # below a negative maximum's share, so empty as well
    ],
)
def test_thresholded_average_by_hand(values: tuple[float, ...], threshold: float, pooled: float) -> None:
    torch.testing.assert_close(ThresholdedAveragePooling(threshold)(row(*values)), torch.tensor([[pooled]]))


def test_threshold_is_taken_per_image_and_channel() -> None:
    features = torch.tensor([[[[1.0, 9.0]], [[0.1, 0.2]]], [[[1.0, 1.5]], [[0.0, 30.0]]]])
    expected = torch.tensor([[9.0, 0.2], [1.25, 30.0]])
    torch.testing.assert_close(ThresholdedAveragePooling(0.5)(features), expected)


def test_average_and_maximum_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0, 6.0]], [[-1.0, -4.0, -1.0]]]])
    torch.testing.assert_close(GlobalAveragePooling()(features), torch.tensor([[3.0, -2.0]]))
    torch.testing.assert_close(GlobalMaxPooling()(features), torch.tensor([[6.0, -1.0]]))


@given(
    arrays("float32", (2, 3, 3, 5), elements=st.floats(-4, 4, width=32)),
    st.floats(0, 0.99),
)
def test_equals_a_plain_reading_of_the_equation(values: object, threshold: float) -> None:
    features = torch.as_tensor(values)
    found = ThresholdedAveragePooling(threshold)(features)
    for image in range(2):
        for channel in range(3):
            cells = features[image, channel].flatten()
            kept = cells[cells > threshold * cells.max()]
            assert bool((kept > 0).all())  # so the paper's denominator and the released code's agree
            expected = kept.mean() if len(kept) else torch.tensor(0.0)
            torch.testing.assert_close(found[image, channel], expected)


def test_lies_between_average_and_maximum_where_features_are_not_negative() -> None:
    features = torch.rand(2, 4, 3, 5).sub(0.5).relu()
    average, maximum = GlobalAveragePooling()(features), GlobalMaxPooling()(features)
    previous = average
    for threshold in (0.0, 0.2, 0.5, 0.9):
        pooled = ThresholdedAveragePooling(threshold)(features)
        assert bool((pooled >= previous - 1e-6).all())
        assert bool((pooled <= maximum + 1e-6).all())
        previous = pooled


def test_gradient_is_that_of_the_mean_of_the_kept_cells() -> None:
    features = row(0.0, 1.0, 2.0, 3.0, 4.0).requires_grad_()
    ThresholdedAveragePooling(0.5)(features).sum().backward()
    torch.testing.assert_close(features.grad, row(0.0, 0.0, 0.0, 0.5, 0.5))


@pytest.mark.parametrize("pool", [GlobalAveragePooling(), GlobalMaxPooling(), ThresholdedAveragePooling(0.3)])
def test_gradients_by_finite_differences(pool: nn.Module) -> None:
    features = torch.randn(2, 3, 3, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(pool, (features,))


def test_empty_channels_give_zero_gradient_and_no_nan() -> None:
    features = torch.zeros(1, 2, 3, 4, requires_grad=True)
    ThresholdedAveragePooling(0.1)(features).sum().backward()
    assert torch.equal(features.grad, torch.zeros(1, 2, 3, 4))  # type: ignore[arg-type]


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 7.0, float("nan")])
def test_thresholds_outside_the_range_are_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\), got"):
        ThresholdedAveragePooling(threshold)


def test_a_classifier_carries_any_pooling_and_trains_through_it() -> None:
    images, labels = torch.rand(4, 3, 32, 48), torch.tensor([0, 1, 2, 0])
    for pool in (GlobalMaxPooling(), ThresholdedAveragePooling(0.2)):
        net = Classifier(backbone("tiny"), 3, pool=pool)
        CrossEntropy()(net(images), labels).backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())
        net.eval()
        features = net.features(images)
        torch.testing.assert_close(net(images), net.head(pool(features)))


def test_the_pooling_is_part_of_what_tells_trained_networks_apart() -> None:
    assert repr(ThresholdedAveragePooling(0.1)) != repr(ThresholdedAveragePooling(0.2))
