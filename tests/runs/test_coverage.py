"""How often verdicts are wrong on simulated trainings, by both rules."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from wsolnb.runs.board import in_order
from wsolnb.runs.coverage import measured_ratios, plot_coverage, wrong_verdicts

STUDIES = 40_000
ERROR = 3 * np.sqrt(0.05 * 0.95 / STUDIES)  # of a share of 5 %, three standard deviations


@pytest.mark.parametrize("ratio", [0.0, 1.0, 2.5, 5.5])
def test_eight_trainings_are_wrong_in_five_percent(ratio: float) -> None:
    many, _ = wrong_verdicts(ratio, studies=STUDIES, seed=1)
    assert many <= 0.05 + ERROR


def test_one_training_is_wrong_the_more_often_the_more_chance_its_training_holds() -> None:
    shares = [wrong_verdicts(ratio, studies=4000)[1] for ratio in (0.0, 1.0, 2.0, 4.0)]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(0.05, abs=0.015)
    assert shares[2] > 0.3


def test_two_heaps_are_beyond_any_interval_of_eight() -> None:
    many, _ = wrong_verdicts(4.0, studies=4000, collapses=1 / 8)
    assert many > 0.25


def test_the_simulation_covers_the_noise_that_the_studies_show() -> None:
    ratios = measured_ratios(in_order())
    assert len(ratios) >= 5
    figure = plot_coverage(ratios)
    shown = figure.axes[0].lines[0].get_xdata()
    assert min(shown) == 0
    assert np.quantile(ratios, 0.9) <= max(shown)
    plt.close(figure)
