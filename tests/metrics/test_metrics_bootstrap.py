from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from wsolnb.metrics import bootstrap
from wsolnb.metrics.bootstrap import Interval, difference, image_weights, interval, mean_statistic


def mean_of(values):
    return lambda weights: weights @ values / weights.sum(dim=1)


def test_weights_are_multinomial_counts():
    weights = image_weights(7, draws=4000, seed=3)
    assert weights.shape == (4000, 7)
    assert torch.equal(weights.sum(dim=1), torch.full((4000,), 7.0, dtype=torch.float64))
    assert weights.mean(dim=0).sub(1).abs().max() < 0.06
    assert weights.var(dim=0).sub(6 / 7).abs().max() < 0.1


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 60))
def test_batches_of_draws_change_nothing(n, draws, elements):
    whole = image_weights(n, draws, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "_BATCH_ELEMENTS", elements)
        assert torch.equal(image_weights(n, draws, seed=1), whole)


def test_interval_of_a_mean_agrees_with_theory():
    values = torch.randn(400, dtype=torch.float64)
    result = interval(mean_of(values), 400, draws=4000)
    half = 1.96 * values.std() / 20
    assert result.value == pytest.approx(values.mean().item())
    assert result.high - result.low == pytest.approx(2 * half.item(), rel=0.06)


def test_pairing_sees_a_small_difference_between_noisy_methods():
    noise = torch.randn(200, dtype=torch.float64) * 10
    a, b = mean_of(noise + 0.2 + 0.05 * torch.randn(200)), mean_of(noise)
    paired = difference(a, b, 200)
    assert paired.excludes_zero
    assert paired.low > 0.15
    assert not interval(a, 200).excludes_zero


def test_memory_of_draws_is_bounded(monkeypatch):
    monkeypatch.setattr(bootstrap, "_BATCH_ELEMENTS", 50)
    rows = []

    def statistic(weights):
        rows.append(len(weights))
        return weights[:, 0]

    interval(statistic, 10, draws=23)
    assert rows == [5, 5, 5, 5, 3, 1]


def test_draws_without_a_score_are_left_out():
    first = interval(lambda w: torch.where(w[:, 0] > 0, w[:, 0], torch.nan), 3, draws=200)
    assert first.low >= 1
    with pytest.raises(ValueError, match="NaN in all of 20 draws"):
        interval(lambda w: w[:, 0] * torch.nan, 3, draws=20)


@pytest.mark.parametrize(("low", "high", "verdict"), [(0.1, 0.2, True), (-0.2, -0.1, True), (0.0, 1.0, False)])
def test_excludes_zero(low, high, verdict):
    assert Interval(0.0, low, high).excludes_zero is verdict


@settings(max_examples=20)
@given(st.integers(0, 2**31))
def test_the_same_seed_gives_the_same_interval(seed):
    values = torch.arange(6, dtype=torch.float64)
    once, again = (interval(mean_of(values), 6, draws=50, seed=seed) for _ in range(2))
    assert once == again


def test_the_mean_of_all_images_and_of_some():
    values, members = torch.rand(9, dtype=torch.float64), torch.arange(9) % 3 > 0
    weights = image_weights(9, draws=20)
    assert torch.equal(mean_statistic(values)(weights), mean_of(values)(weights))
    expected = weights[:, members] @ values[members] / weights[:, members].sum(dim=1)
    torch.testing.assert_close(mean_statistic(values, members)(weights), expected)
    assert mean_statistic(values, members)(torch.eye(9)[:1]).isnan().all()


def test_refusals():
    with pytest.raises(ValueError, match="n=0"):
        image_weights(0)
    with pytest.raises(ValueError, match="level"):
        interval(mean_of(torch.ones(2, dtype=torch.float64)), 2, level=95)
    with pytest.raises(ValueError, match=r"expected shape \(1000,\)"):
        interval(lambda weights: weights.mean(), 2)
