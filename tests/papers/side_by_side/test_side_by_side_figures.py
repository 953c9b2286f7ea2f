"""Figures of the comparison are drawn from what they are given, and names never lie on one another."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from wsolnb.metrics.bootstrap import Interval
from wsolnb.papers.side_by_side import figures
from wsolnb.papers.side_by_side.results import COLUMNS

NAMES = {"cam": "CAM", "tap": "TAP", "stage2": "ORNet", "beam": "beam search"}
MEASURED = {
    "cam": {"gt_known": Interval(0.5, 0.4, 0.6), "ap25": Interval(0.3, 0.2, 0.4), "passes": Interval(1, 1, 1)},
    "tap": {"gt_known": Interval(0.5, 0.4, 0.6), "ap25": Interval(0.4, 0.2, 0.5), "passes": Interval(1, 1, 1)},
    "stage2": {"gt_known": Interval(0.9, 0.8, 1.0), "passes": Interval(1.9, 1.9, 1.9)},
    "beam": {"gt_known": Interval(0.5, 0.4, 0.6), "ap25": Interval(0.2, 0.1, 0.3), "passes": Interval(26, 26, 26)},
}


def test_standings_show_every_number_and_leave_out_what_cannot_be() -> None:
    fig = figures.plot_standings(MEASURED, NAMES, {"gt_known": "GT-known", "ap25": "AP 25", "pxap": "PxAP"})
    (ax,) = fig.axes
    texts = [text.get_text() for text in ax.texts]
    assert texts.count("50.0") == 3
    assert len(texts) == 2 * 7
    assert [label.get_text() for label in ax.get_xticklabels()] == ["GT-known", "AP 25"]
    assert len(ax.patches) == 2


def test_cost_names_every_method_once_without_overlap() -> None:
    fig = figures.plot_cost(MEASURED, NAMES, {"gt_known": "one", "ap25": "many"}, unit="forward passes")
    fig.canvas.draw()
    one, many = fig.axes
    assert {text.get_text().strip() for text in one.texts} == set(NAMES.values())
    assert "ORNet" not in {text.get_text().strip() for text in many.texts}
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
    means = {name: {"small": 0.25, "large": 0.5, "fish": float("nan")} for name in NAMES}
    (ax,) = figures.plot_breakdown(means, NAMES, gap=2).axes
    assert [text.get_text() for text in ax.texts].count("25") == 4
    assert len(ax.texts) == 8


def test_knobs_have_a_line_per_method_and_a_note_where_nothing_was_measured() -> None:
    rows = [
        (world, seed, name, metric, 0.1 * k + 0.2 * seed, 0.0, 1.0)
        for k, name in enumerate(("cam", "tap"))
        for seed in (0, 1)
        for world in ("base", "objects 5")
        for metric in ("gt_known", "ap25")
        if (world, metric) != ("objects 5", "gt_known")
    ]
    table, levels = pd.DataFrame(rows, columns=list(COLUMNS)), {"objects": {2.0: "base", 5.0: "objects 5"}}
    fig = figures.plot_knobs(
        table, levels, NAMES, {"gt_known": "one", "ap25": "many"}, {"objects": "animals"}, falling=["objects"]
    )
    upper, lower = fig.axes
    assert [text.get_text() for text in upper.texts] == ["this knob turns scenes only"]
    assert len(lower.lines) == 2
    assert lower.lines[0].get_ydata() == pytest.approx([10, 10])
    assert lower.get_xlabel() == "animals"
    assert lower.xaxis_inverted()
