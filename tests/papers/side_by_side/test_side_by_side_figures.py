"""Figures of the comparison are drawn from what they are given, and names never lie on one another."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wsolnb.data.critters import World
from wsolnb.metrics.bootstrap import Interval
from wsolnb.papers.side_by_side import figures

NAMES = {"cam": "CAM", "tap": "TAP", "stage2": "ORNet", "beam": "beam search"}
MEASURED = {
    "cam": {"gt_known": Interval(0.5, 0.4, 0.6), "ap25": Interval(0.3, 0.2, 0.4), "train_passes": Interval(5, 5, 5)},
    "tap": {"gt_known": Interval(0.5, 0.4, 0.6), "ap25": Interval(0.4, 0.2, 0.5), "train_passes": Interval(5, 5, 5)},
    "stage2": {"gt_known": Interval(0.9, 0.8, 1.0), "train_passes": Interval(16, 16, 16)},
    "beam": {"gt_known": Interval(0.5, 0.4, 0.6), "ap25": Interval(0.2, 0.1, 0.3), "train_passes": Interval(6, 6, 6)},
}


def test_standings_show_every_number_and_leave_out_what_cannot_be() -> None:
    longer = {"tap-converged": {"ap25": Interval(0.6, 0.5, 0.7)}}
    table = figures.standings_table(MEASURED | longer, NAMES, {"gt_known": "GT-known", "ap25": "AP 25", "pxap": "PxAP"})
    first, second = figures.BUDGETS.values()
    assert list(table.data) == [(first, "GT-known"), (first, "AP 25"), (second, "AP 25")]
    assert list(table.data.index) == list(NAMES.values())
    assert table.data[first, "GT-known"].tolist() == ["50.0 ± 10.0", "50.0 ± 10.0", "90.0 ± 10.0", "50.0 ± 10.0"]
    assert table.data[first, "AP 25"].tolist() == ["30.0 ± 10.0", "40.0 ± 15.0", "", "20.0 ± 10.0"]
    assert table.data[second, "AP 25"].tolist() == ["", "60.0 ± 10.0", "", ""]
    bold = {cell for cell, css in table._compute().ctx.items() if ("font-weight", "bold") in css}
    assert bold == {(2, 0), (1, 1), (1, 2)}


def test_standings_grey_out_what_is_another_methods() -> None:
    table = figures.standings_table(MEASURED, NAMES, {"gt_known": "GT-known"}, borrowed={("stage2", "gt_known")})
    css = {row: dict(value) for (row, _), value in table._compute().ctx.items()}
    assert css[2] == {"color": "#999"}
    assert css[0] == css[1] == css[3]  # the best among those that are their own
    assert css[0]["font-weight"] == "bold"


def test_cost_names_every_method_once_without_overlap() -> None:
    longer = {"tap-converged": {"gt_known": Interval(0.6, 0.5, 0.7), "train_passes": Interval(35, 35, 35)}}
    fig = figures.plot_cost(MEASURED | longer, NAMES, {"gt_known": "one", "ap25": "many"}, unit="passes")
    fig.canvas.draw()
    one, many = fig.axes
    assert {text.get_text().strip() for text in one.texts} == set(NAMES.values())
    assert "ORNet" not in {text.get_text().strip() for text in many.texts}
    joined = [line.get_xydata().tolist() for line in one.lines]
    assert [[5.0, 50.0], [35.0, 60.0]] in joined
    for ax in fig.axes:
        boxes = [text.get_window_extent() for text in ax.texts]
        for k, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:k])


@pytest.mark.parametrize("wanted", [[1.0, 1.0, 1.0], [0.0, 0.1, 9.9, 10.0], [3.0], list(np.linspace(4, 5, 9))])
def test_places_are_a_step_apart_and_inside(wanted: list[float]) -> None:
    places = figures._apart(np.array(wanted), 1.0, 0.0, 10.0)
    assert len(places) == len(wanted)
    assert (np.diff(places) >= 1 - 1e-9).all()
    assert places.min() >= -1e-9
    assert places.max() <= 10 + 1e-9


def test_breakdown_has_a_cell_per_method_and_part() -> None:
    means = {name: {"small": 0.25, "large": 0.5, "middle": float("nan")} for name in NAMES}
    (ax,) = figures.plot_breakdown(means, NAMES).axes
    assert [text.get_text() for text in ax.texts].count("25") == 4
    assert len(ax.texts) == 8


def test_crowds_have_a_line_per_method_that_was_measured_at_every_level() -> None:
    scores = {2: "ap25", 5: "ap25 objects 5"}
    panels = {
        title: {
            "cam": {metric: Interval(value - 0.1 * k, 0.0, 1.0) for k, metric in enumerate(scores.values())},
            "tap": {"ap25": Interval(0.5, 0.4, 0.6)},
        }
        for title, value in (("equal", 0.5), ("long", 0.8))
    }
    fig = figures.plot_crowds(panels, scores, NAMES, label="AP")
    assert [ax.get_title() for ax in fig.axes] == ["equal", "long"]
    assert fig.axes[1].lines[0].get_ydata() == pytest.approx([80, 70])
    assert [text.get_text() for text in fig.legends[0].texts] == ["CAM"]


def test_scenes_name_their_detections_below_the_picture() -> None:
    scenes = World(families=2, species=2, size=32).scenes(2, size=(48, 64))
    found = [target | {"scores": torch.full((len(target["labels"]),), 0.5)} for _, target in (scenes[0], scenes[1])]
    fig = figures.plot_scenes(scenes, scenes.classes, [0, 1], {"CAM": found})
    fig.canvas.draw()
    assert len(fig.axes) == 4
    for ax in fig.axes:
        boxes = [text.get_window_extent() for text in ax.texts]
        assert all(box.y1 <= ax.get_window_extent().y0 for box in boxes)
        assert not any(box.overlaps(other) for k, box in enumerate(boxes) for other in boxes[:k])
