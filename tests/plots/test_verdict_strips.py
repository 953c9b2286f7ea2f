"""Strips of trainings: what lies on the claimed side is drawn on the right, whatever the claim's direction."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from wsolnb.plots import plot_verdicts

ROW = {
    "claim": "a-beats-b", "kind": "greater", "unit": "%", "margin": 0.0, "verdict": "reproduced",
    "mean": 4.0, "low": 3.0, "high": 5.0, "agreeing": 8, "trainings": 8, "differences": [4.0] * 8, "run": 2.0,
}  # fmt: skip


def rows(*changes: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame([ROW | change for change in changes])


@pytest.mark.parametrize(("kind", "side"), [("greater", 1), ("less", -1)])
def test_the_claimed_side_is_right(kind: str, side: int) -> None:
    (figure,) = plot_verdicts(rows({"kind": kind}))
    drawn = {line.get_label(): line.get_xdata() for line in figure.axes[0].lines}
    assert np.asarray(drawn["a training of the study"]).tolist() == [side * 4.0] * 8
    assert drawn["this run"].tolist() == [side * 2.0]
    assert sorted(drawn["mean, 95 % interval"]) == sorted([side * 3.0, side * 5.0])
    assert [text.get_text() for text in figure.axes[0].texts] == ["reproduced\n8 of 8"]
    plt.close(figure)


def test_six_claims_to_a_figure_and_units_apart() -> None:
    claims = [{"claim": f"claim-{number}"} for number in range(8)]
    figures = plot_verdicts(rows(*claims, {"claim": "cost", "unit": ""}))
    labels = [[text.get_text() for text in figure.axes[0].get_yticklabels()] for figure in figures]
    assert labels == [[f"claim {n}" for n in (5, 4, 3, 2, 1, 0)], ["claim 7", "claim 6"], ["cost"]]
    sizes = [text.get_fontsize() for figure in figures for text in figure.axes[0].get_yticklabels()]
    assert min(sizes) >= 16  # of 12.5 inches: readable from the back of a room
    for figure in figures:
        plt.close(figure)


def test_what_nothing_measured_is_left_out_and_a_run_alone_is_drawn() -> None:
    nothing = {"differences": [], "trainings": 0, "verdict": "not tested", "mean": math.nan}
    assert plot_verdicts(rows(nothing | {"run": math.nan})) == []
    (figure,) = plot_verdicts(rows(nothing))
    assert [text.get_text() for text in figure.axes[0].texts] == ["not tested"]
    assert len(figure.axes[0].lines[1].get_xdata()) == 0
    plt.close(figure)


def test_an_equality_has_a_band() -> None:
    (figure,) = plot_verdicts(rows({"kind": "equal", "margin": 2.0}))
    extent = figure.axes[0].collections[0].get_datalim(figure.axes[0].transData)
    assert (extent.x0, extent.x1) == (-2.0, 2.0)
    plt.close(figure)
