"""ORNet's figures show what they are given: shares, erased pixels, curves, sweeps."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

matplotlib.use("Agg")

from wsolnb.boxes import BoxRule
from wsolnb.localization.locate import tune_and_evaluate
from wsolnb.localization.maps import LocalizationMaps, as_probabilities
from wsolnb.papers.xie2021.figures import (
    plot_histograms,
    plot_plateau,
    plot_seeds,
    plot_sensitivity,
    plot_weighting,
    pool_seeds,
    show_erasing,
)

RUNS = pd.DataFrame(
    {
        "method": ["a", "b", "a", "b"],
        "seed": [1, 1, 2, 2],
        "value": [0.2, 0.9, 0.4, 0.7],
        "low": [0.17, 0.8, 0.36, 0.6],
        "high": [0.23, 1.0, 0.44, 0.8],
    }
)


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def found() -> LocalizationMaps:
    maps = torch.full((3, 4, 6), 0.05)
    maps[:, :2, :3] = 0.95
    maps[:, 3] = 0.5
    boxes = [torch.tensor([[0.0, 0.0, 6.0, 4.0]])] * 3
    return LocalizationMaps(maps, torch.eye(3), torch.arange(3), boxes, (8, 12), upsample=as_probabilities)


def test_histograms_say_how_much_is_undecided(found: LocalizationMaps) -> None:
    fig = plot_histograms({"stage two": found})
    assert fig.axes[0].get_title() == "stage two: 25 % undecided"
    heights = [bar.get_height() for bar in fig.axes[0].containers[0]]
    assert sum(heights) == pytest.approx(100)
    assert heights[20] == pytest.approx(25)


def test_weighting_has_three_panels_and_the_pull_changes_its_sign_at_one_half() -> None:
    weight, loss, pull = plot_weighting().axes
    assert len(weight.lines) == 3
    assert len(loss.lines) == 2
    x, y = pull.lines[1].get_data()
    assert bool((y[(x > 0.3) & (x < 0.49)] < 0).all())
    assert bool((y[(x > 0.51) & (x < 0.7)] > 0).all())


def test_erasing_counts_what_is_gone() -> None:
    gone = torch.zeros(4, 6, dtype=torch.bool)
    gone[1, 2:5] = True
    fig = show_erasing(torch.rand(3, 16, 24), torch.rand(4, 6), {"attentive": gone})
    assert [ax.get_title() for ax in fig.axes] == ["image", "map", "attentive"]
    assert fig.axes[2].get_xlabel() == "3 of 24 erased"


def test_plateau_shows_thresholds_from_005_to_095(found: LocalizationMaps) -> None:
    located = tune_and_evaluate(found, found, BoxRule(0.5, reference="absolute"), thresholds=20)
    line = plot_plateau({"all": located}).axes[0].lines[0]
    assert len(line.get_xdata()) == 19
    assert float(max(line.get_ydata())) == 100


def test_seeds_are_pooled_as_independent() -> None:
    pooled = pool_seeds(RUNS)
    assert pooled.value.round(6).to_dict() == {"a": 0.3, "b": 0.8}
    half = (0.03**2 + 0.04**2) ** 0.5 / 2
    assert pooled.loc["a", "high"] == pytest.approx(0.3 + half)
    labels = [text.get_text() for text in plot_seeds(RUNS, {"b": "second", "a": "first"}).axes[0].get_yticklabels()]
    assert labels == ["second", "first"]


def test_sensitivity_rises_upwards_and_averages_repeated_pairs() -> None:
    table = pd.DataFrame({"alpha": [0.5, 1.5, 1.5], "beta": [0.2, 0.2, 0.2], "corloc": [0.1, 0.4, 0.6]})
    ax = plot_sensitivity(table).axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["1.5", "0.5"]
    assert [text.get_text() for text in ax.texts] == ["50", "10"]
