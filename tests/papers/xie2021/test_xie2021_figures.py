"""ORNet's figures show what they are given: shares, erased pixels, curves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

matplotlib.use("Agg")

from wsolnb.boxes import BoxRule
from wsolnb.localization.locate import tune_and_evaluate
from wsolnb.localization.maps import LocalizationMaps, as_probabilities
from wsolnb.papers.xie2021.figures import (
    plot_histograms,
    plot_plateau,
    plot_weighting,
    show_erasing,
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


def test_plateau_shows_every_threshold_up_to_the_last(found: LocalizationMaps) -> None:
    late = torch.full((3, 4, 6), 0.96)
    late[:, :2, :3] = 0.99
    boxes = [torch.tensor([[0.0, 0.0, 6.0, 4.0]])] * 3
    found = replace(found, maps=late, boxes=boxes)
    line, dot = plot_plateau({"all": tune_and_evaluate(found, found, BoxRule(0.5, reference="absolute"))}).axes[0].lines
    assert line.get_xdata().tolist() == pytest.approx([k / 100 for k in range(100)])
    assert max(line.get_ydata()[:96]) == 0
    assert float(dot.get_xdata()[0]) > 0.95
    assert float(dot.get_ydata()[0]) == 100
