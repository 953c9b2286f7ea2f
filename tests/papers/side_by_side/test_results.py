"""The means of a study, and the claims that are tested on it."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import yaml

from wsolnb.papers.side_by_side.methods import METHODS
from wsolnb.papers.side_by_side.results import over_trainings
from wsolnb.runs.paper import Paper


def test_means_have_the_interval_of_student() -> None:
    values = {"cam": [0.2, 0.4, 0.6, 0.8], "tap": [0.3]}
    rows = [(seed, name, "ap25", value) for name, row in values.items() for seed, value in enumerate(row, start=100)]
    found = over_trainings(pd.DataFrame(rows, columns=["seed", "method", "metric", "value"]))
    cam, tap = found["cam"]["ap25"], found["tap"]["ap25"]
    half = 3.182446 * math.sqrt(0.2 / 3) / 2  # t(0.975, 3) s / sqrt(4)
    assert (cam.value, cam.low, cam.high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    assert tap.value == 0.3
    assert math.isnan(tap.low)


def test_every_comparison_is_claimed_once_per_budget() -> None:
    paper = Paper("side_by_side")
    claims = {claim["id"]: claim for claim in yaml.safe_load((paper.folder / "claims.yaml").read_text())}
    short = {name: claim for name, claim in claims.items() if not name.endswith("-converged")}
    assert set(claims) == set(short) | {f"{name}-converged" for name in short}
    for name, claim in short.items():
        longer = claims[f"{name}-converged"]
        assert (longer["first"], longer["second"]) == (f"{claim['first']}-converged", f"{claim['second']}-converged")
        assert (longer["metric"], longer["kind"]) == (claim["metric"], claim["kind"])
        assert claim["ours"], f"{name}: no paper trains for equal steps"
        assert "Equal steps" in claim["setting"]
        assert "until its loss" in longer["setting"]


def test_results_are_named_for_both_budgets() -> None:
    names = list(Paper("side_by_side").methods)
    assert names == [*METHODS, *(f"{name}-converged" for name in METHODS)]
