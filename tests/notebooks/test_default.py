"""Every paper's notebook with its defaults: the numbers are still those that its folder states.

The run leaves its trained weights in the cache, so that nbval, which comes after the tests, only compares.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from wsolnb.papers import Paper, paper_keys
from wsolnb.runs import run

DRIFT = 0.03  # between processors and versions of libraries, beyond the spread over test images


@pytest.mark.slow
@pytest.mark.parametrize("key", paper_keys())
def test_default_run_measures_what_is_stated(key: str, tmp_path: Path) -> None:
    stated = Paper(key).folder / "measured.csv"
    if not stated.exists():
        pytest.skip(f"no {stated.name}: copy metrics.csv of a default run to {stated.parent}")
    wanted = pd.read_csv(stated).set_index(["method", "metric"])
    found = pd.read_csv(run(key, root=tmp_path) / "metrics.csv").set_index(["method", "metric"])
    assert set(found.index) == set(wanted.index)
    allowed = DRIFT + (wanted.high - wanted.low).fillna(0) / 2
    gap = (found.value - wanted.value).abs()
    assert gap[gap > allowed].to_dict() == {}
