"""The figures of single objects draw what they are given, edge cases included."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch
from torch import Tensor

from wsolnb.boxes import BoxRule
from wsolnb.data.critters import World
from wsolnb.localization.locate import LocalizationResult, tune_and_evaluate
from wsolnb.localization.maps import LocalizationMaps
from wsolnb.metrics.bootstrap import Interval
from wsolnb.plots import localization as figures


@pytest.fixture(autouse=True)
def _closed() -> object:
    plt.switch_backend("Agg")
    yield
    plt.close("all")


@pytest.fixture
def located() -> LocalizationResult:
    images = WORLD.singles(4)
    masks = torch.stack([images[i][1]["masks"][0] for i in range(4)]).float()
    boxes = [images[i][1]["boxes"].as_subclass(Tensor) for i in range(4)]
    found = LocalizationMaps(masks, torch.eye(4), torch.arange(4), boxes, (48, 64))
    return tune_and_evaluate(found, found, BoxRule.preset("rethinking", reference="maximum", far_corner="exclusive"))


WORLD = World(families=2, species=2, size=(48, 64))


def test_boxes_are_drawn_with_their_overlap(located: LocalizationResult) -> None:
    nothing = replace(located, rule=replace(located.rule, threshold=1.0, empty="none"))
    fig = figures.show_located(WORLD.singles(4), {"good": located, "empty": nothing}, [0, 2], WORLD.classes)
    texts = [text.get_text() for ax in fig.axes for text in ax.texts]
    assert len(fig.axes) == 6
    assert [float(t) for t in texts[:2]] == pytest.approx([1, 1], abs=0.1)
    assert texts[2:] == ["0.00", "0.00"]


def test_curves_and_bars_have_one_entry_per_way(located: LocalizationResult) -> None:
    assert len(figures.plot_thresholds({"a": located, "b": located}).axes[0].lines) == 4
    shares = {"a": torch.tensor([0.2, 0.4, float("nan")]), "b": torch.tensor([0.9, 1.0, 0.8])}
    labels = [t.get_text() for t in figures.plot_inside(shares, chance=0.3).axes[0].get_legend().get_texts()]
    assert labels == ["a\n(mean 30 %)", "b\n(mean 90 %)", "the box's share\nof the image (30%)"]
    panels = figures.plot_covered({"a": {"mark": 0.5, "body": 0.25}, "b": {"mark": 1.0, "body": 0.0}}).axes
    assert [[bar.get_width() for bar in ax.patches] for ax in panels] == [[50, 100], [25, 0]]


def test_components_show_values_and_baselines() -> None:
    measured = {"cam": {"gt_known": Interval(0.5, 0.4, 0.6)}, "tap+nwc+pas": {"gt_known": Interval(0.75, 0.7, 0.8)}}
    names = {"cam": "CAM", "tap+nwc+pas": "all", "absent": "not measured"}
    ax = figures.plot_components(measured, names, baselines={"centre": 0.3}).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["CAM", "all"]
    assert [text.get_text() for text in ax.texts] == ["50.0", "75.0"]


def test_analyses_are_drawn() -> None:
    curves = {"maximum": torch.rand(3, 40).sort(descending=True).values, "percentile": torch.full((3, 40), torch.nan)}
    curves["percentile"][0] = 0.5
    assert len(figures.plot_sorted(curves, {"maximum": 0.2, "percentile": 0.35}).axes) == 2
    areas = {"average": (torch.tensor([0.0, 0.1, 0.2, 0.3]), torch.rand(4))}
    assert len(figures.plot_areas(areas).axes) == 1
    image = torch.randint(0, 255, (3, 48, 64), dtype=torch.uint8)
    assert len(figures.show_parts(image, {"positive": torch.rand(6, 8), "negative": -torch.rand(6, 8)}).axes) == 4
    boxes = torch.tensor([[0.0, 0.0, 30.0, 20.0], [torch.nan] * 4])
    fig = figures.show_thresholds(image, torch.rand(48, 64), (0.2, 0.8), boxes, torch.tensor([[0.0, 0.0, 30.0, 20.0]]))
    assert [ax.get_title() for ax in fig.axes] == ["map", "above 20%: IoU 1.00", "above 80%: IoU 0.00"]
