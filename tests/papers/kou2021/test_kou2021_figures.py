"""The figures of kou2021's notebook draw what they are given."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import pytest
import torch
from torch import Tensor

from wsolnb.data.critters import World
from wsolnb.localization.maps import LocalizationMaps
from wsolnb.metrics.bootstrap import Interval
from wsolnb.papers.kou2021 import figures
from wsolnb.papers.kou2021.maps import RULE, merged


@pytest.fixture
def _closed() -> object:
    plt.switch_backend("Agg")
    yield
    plt.close("all")


@pytest.mark.usefixtures("_closed")
def test_figures_draw_what_they_are_given() -> None:
    world = World(families=2, species=2, size=(48, 64))
    images = world.singles(4)
    masks = torch.stack([images[i][1]["masks"][0] for i in range(4)]).float()
    boxes = [images[i][1]["boxes"].as_subclass(Tensor) for i in range(4)]
    truth = (torch.eye(4), torch.arange(4), boxes)
    heads = LocalizationMaps(torch.stack([masks, torch.zeros_like(masks)], dim=1), *truth, (48, 64), upsample=merged)
    found = {how: replace(heads, upsample=partial(merged, how=how)) for how in ("union", "intersection")}
    found |= {"last": replace(heads, maps=masks), "inner": replace(heads, maps=torch.zeros_like(masks))}
    fig = figures.show_merge(images, found, [0, 2], RULE, world.classes)
    texts = [text.get_text() for ax in fig.axes for text in ax.texts]
    overlaps = [float(t) for t in texts if t.replace(".", "").isdigit()]
    assert overlaps == pytest.approx([0, 0, 1, 1, 1, 1, 0, 0], abs=0.1)  # inner, last, union, intersection
    fig = figures.show_confidence(images, masks, [0, 1, 3])
    assert len(fig.axes) == 15
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["surely object", "undecided", "surely background"]
    smaller = LocalizationMaps(masks, *truth, (24, 32), upsample=merged)  # photos are brought to one frame
    (panel,) = figures.show_merge(images, {"union": smaller}, [1], RULE, world.classes).axes
    assert panel.images[0].get_array().shape == (24, 32, 3)
    measured = {k: {"top1_loc_error": Interval(v, v - 0.1, v + 0.1)} for k, v in (("base", 0.5), ("csoa", 0.25))}
    (ax,) = figures.plot_errors(measured, {"base": "one", "csoa": "both"}, {"top1_loc_error": "Top-1"}).axes
    assert [text.get_text() for text in ax.texts] == ["50.0", "25.0"]
    panels = figures.plot_errors(
        measured | {"csoa": {"top1_loc_error": Interval(0.9, 0.8, 1.0)}}, {"base": "one"}, {"top1_loc_error": "Top-1"}
    ).axes
    assert [float(panel.get_xlim()[0]) for panel in panels] == [0]


def test_heads_differ_most_first() -> None:
    same, half, none = torch.ones(4, 4), torch.eye(4), torch.zeros(4, 4)
    heads = torch.stack([torch.stack([same, other]) for other in (same, none, half)])
    maps = LocalizationMaps(heads, torch.eye(3), torch.arange(3), [], (4, 4))
    both = {how: replace(maps, upsample=partial(merged, how=how)) for how in ("union", "intersection")}
    assert figures.heads_differ(both, 0.5, 2) == [1, 2]
