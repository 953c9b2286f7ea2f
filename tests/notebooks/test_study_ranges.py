"""The check of default runs against studies: what it lets pass and what it catches."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from study_ranges import outside


def study(values: np.ndarray, metric: str = "m") -> pd.DataFrame:
    return pd.DataFrame({"seed": range(len(values)), "method": "a", "metric": metric, "value": values})


def run(value: float, metric: str = "m") -> pd.DataFrame:
    return pd.DataFrame({"method": ["a"], "metric": [metric], "value": [value]})


def test_one_in_a_thousand_trainings_is_outside() -> None:
    values = 0.5 + 0.05 * np.random.default_rng(0).standard_normal((9, 20_000))
    table = pd.DataFrame(values, columns=[str(number) for number in range(20_000)]).rename_axis("seed")
    rows = table.reset_index().melt("seed", var_name="metric").assign(method="a")
    caught = outside(rows[rows.seed == 8], rows[rows.seed < 8])
    assert 0.0005 < len(caught) / 20_000 < 0.0015


@pytest.mark.parametrize(("value", "caught"), [(0.74, 0), (0.76, 1), (0.26, 0), (0.24, 1)])
def test_the_ends_are_students(value: float, caught: int) -> None:
    values = np.array([0.46, 0.54] * 4)  # mean 0.5, standard deviation 0.0428; t 5.408 with 7 degrees of freedom
    assert len(outside(run(value), study(values))) == caught


def test_what_never_moved_may_move_by_a_few_images() -> None:
    assert outside(run(0.98), study(np.ones(8))).empty
    assert len(outside(run(0.95), study(np.ones(8)))) == 1


def test_a_number_that_the_study_lacks_is_caught_unless_neither_defines_it() -> None:
    assert outside(run(0.5, "new"), study(np.full(8, 0.5))).index.tolist() == [("a", "new")]
    assert outside(run(np.nan), study(np.full(8, np.nan))).empty
    assert len(outside(run(np.nan), study(np.full(8, 0.5)))) == 1
