"""Analyses of maps: hand-computed values, undefined cases, and their tie to pooling and box rules."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from wsolnb.papers.bae2020.analysis import (
    activated,
    activated_area,
    area_correlation,
    covered,
    inside,
    kept_share,
    sorted_activations,
)
from wsolnb.papers.bae2020.pooling import ThresholdedAveragePooling


def test_activated_area_counts_what_thresholded_pooling_keeps() -> None:
    features = torch.randn(2, 5, 3, 4).relu()
    area = activated_area(features, 0.3)
    total = torch.where(features > 0.3 * features.amax((2, 3), keepdim=True), features, 0).sum((2, 3))
    torch.testing.assert_close(ThresholdedAveragePooling(0.3)(features) * area * 12, total)
    assert activated_area(torch.zeros(1, 2, 3, 4)).tolist() == [[0.0, 0.0]]


def test_region_is_strict_and_empty_where_nothing_is_positive() -> None:
    maps = torch.tensor([[[0.0, 1.0], [2.0, 4.0], [-1.0, 0.5]], [[-1.0, -2.0], [-3.0, -4.0], [-5.0, -6.0]]])
    assert activated(maps, 0.25)[0].tolist() == [[False, False], [True, True], [False, False]]
    assert not activated(maps, 0.25)[1].any()


def test_shares_by_hand() -> None:
    regions = torch.zeros(2, 3, 4, dtype=torch.bool)
    masks = torch.zeros(2, 3, 4, dtype=torch.bool)
    regions[0, :2, :2] = True  # 4 cells
    masks[0, 1:, 1:] = True  # 6 cells, 1 of them in the region
    masks[1] = True
    torch.testing.assert_close(inside(regions, masks), torch.tensor([1 / 4, float("nan")]), equal_nan=True)
    torch.testing.assert_close(covered(regions, masks), torch.tensor([1 / 6, 0.0]))
    assert covered(masks, regions)[1].isnan()


def test_sorted_curves_fall_and_are_one_at_their_unit() -> None:
    maps = torch.rand(3, 5, 7) + 0.1
    for percent in (100.0, 90.0, 50.0):
        curves = sorted_activations(maps, percent)
        assert bool((curves.diff(dim=1) <= 0).all())
        above = (curves > 1).float().mean(dim=1)
        assert bool(((above - (1 - percent / 100)).abs() <= 1 / 35).all())
    assert torch.equal(sorted_activations(maps)[:, 0], torch.ones(3))


def test_correlation_of_area_and_weight_is_pandas_on_resampled_images_without_dead_channels() -> None:
    areas = torch.rand(9, 7).round(decimals=1)
    areas[:, 3] = 0
    weights, draws = torch.randn(7), torch.randint(1, 4, (5, 9))
    alive = [0, 1, 2, 4, 5, 6]
    means = (draws.double() @ areas.double() / draws.sum(1, keepdim=True))[:, alive]
    expected = [pd.Series(row.numpy()).corr(pd.Series(weights[alive].numpy()), "spearman") for row in means]
    assert area_correlation(areas, weights)(draws).tolist() == pytest.approx(expected)


def test_a_peaked_map_keeps_less_of_the_maximum_and_as_much_of_the_percentile() -> None:
    flat = torch.linspace(0, 1, 100).view(1, 10, 10)
    peaked = torch.where(flat == 1, 5, flat)
    maps = torch.cat([peaked, flat])
    assert kept_share(maps, 0.1).tolist() == [0.5, 0.9]
    low, high = kept_share(maps, 0.5, 90).tolist()
    assert low == high


def test_bad_input_is_named() -> None:
    for percent in (0.0, -1.0, 100.5):
        with pytest.raises(ValueError, match=r"a percentile lies in \(0, 100\], got"):
            sorted_activations(torch.rand(1, 2, 3), percent)
    with pytest.raises(ValueError, match=r"float32 \(1, 2, 3\) and masks torch.bool \(1, 3, 2\) must both be"):
        inside(torch.rand(1, 2, 3), torch.ones(1, 3, 2, dtype=torch.bool))
