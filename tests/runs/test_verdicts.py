"""Verdicts against Student's t by hand, and a run beside its study."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, strategies as st

from wsolnb.metrics.bootstrap import Interval
from wsolnb.runs.claims import Claim
from wsolnb.runs.paper import Paper
from wsolnb.runs.verdicts import VERDICTS, differences, judge, verdict_table, verdicts

T_7 = 2.364624  # the 97.5 % quantile of Student's t with 7 degrees of freedom, from a printed table


def claim(kind: str = "greater", **others: Any) -> Claim:
    equal = {"margin": 2.0, "because": "two points are noise"} if kind == "equal" else {}
    fields: dict[str, Any] = {"id": "c", "says": "", "where": "", "setting": "s", "kind": kind, "metric": "m"}
    return Claim(**(fields | {"first": "a", "second": "b", "reported": (1, 2)} | equal | others))


def around(mean: float, half: float) -> list[float]:
    """Eight differences whose interval is exactly mean plus or minus half."""
    spread = np.array([-1, 1] * 4)
    return list(mean + spread * half / T_7 * math.sqrt(8) / spread.std(ddof=1))


def table(**methods: list[float]) -> pd.DataFrame:
    rows = [
        [100 + seed, method, "m", value] for method, values in methods.items() for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["seed", "method", "metric", "value"])


@pytest.mark.parametrize(
    ("kind", "mean", "half", "verdict", "agreeing"),
    [
        ("greater", 2.0, 1.7, "reproduced", 8),
        ("greater", 2.0, 1.9, "reproduced", 4),
        ("greater", 2.0, 2.1, "undecided", 4),
        ("greater", -2.0, 2.1, "undecided", 4),
        ("greater", -2.0, 1.7, "contradicted", 0),
        ("less", -2.0, 1.7, "reproduced", 8),
        ("less", -2.0, 2.1, "undecided", 4),
        ("less", 2.0, 1.7, "contradicted", 0),
        ("equal", 0.5, 1.2, "reproduced", 8),
        ("equal", 0.5, 1.6, "undecided", 4),
        ("equal", -3.0, 0.8, "contradicted", 0),
        ("equal", 3.0, 1.1, "undecided", 4),
    ],
)
def test_a_verdict_follows_from_the_whole_interval(
    kind: str, mean: float, half: float, verdict: str, agreeing: int
) -> None:
    judged = judge(claim(kind), around(mean, half))
    assert (judged.mean, judged.low, judged.high) == pytest.approx((mean, mean - half, mean + half), abs=1e-5)
    assert (judged.verdict, judged.agreeing, judged.trainings) == (verdict, agreeing, 8)


def test_seven_trainings_give_no_verdict() -> None:
    judged = judge(claim(), [5.0, 5.1, 4.9, 5.0, 5.2, 4.8, 5.0])
    assert (judged.verdict, judged.agreeing) == ("not tested", 7)
    assert judged.note == "a verdict needs 8 trainings, not 7"
    assert judged.low > 4.8


def test_what_never_varies_has_an_interval_of_a_point() -> None:
    assert judge(claim(), [3.0] * 8).verdict == "reproduced"
    assert judge(claim(), [0.0] * 8).verdict == "undecided"
    assert judge(claim("equal"), [0.0] * 8).verdict == "reproduced"


@given(st.lists(st.floats(-50, 50), min_size=8, max_size=12), st.sampled_from(["greater", "less"]))
def test_swapping_the_sides_swaps_the_verdict(values: list[float], kind: str) -> None:
    swapped = {"reproduced": "contradicted", "contradicted": "reproduced", "undecided": "undecided"}
    there, back = judge(claim(kind), values), judge(claim(kind), [-value for value in values])
    assert back.verdict == swapped[there.verdict]


def test_differences_are_paired_by_seed_and_in_the_claims_unit() -> None:
    study = table(a=[0.5, 0.7], b=[0.25, 0.1]).sample(frac=1, random_state=0)
    found = differences(claim(unit="%"), study)
    assert found.index.tolist() == [100, 101]
    assert found.difference.tolist() == pytest.approx([25.0, 60.0])
    assert differences(claim(second=0.5), study).difference.tolist() == pytest.approx([0.0, 0.2])


class OnePaper(Paper):
    """A paper with one claim."""

    def __init__(self, one: Claim) -> None:
        super().__init__("primer")
        self.one = one

    def claims(self) -> list[Claim]:
        return [self.one]


def test_a_run_lies_beside_its_study_and_changes_no_verdict() -> None:
    study = table(a=[0.5 + seed / 100 for seed in range(8)], b=[0.4] * 8)
    draws = {name: torch.tensor(values, dtype=torch.float64) for name, values in {"a": [0.1, 0.3], "b": [0.4, 0.4]}.items()}
    run = {name: {"m": Interval(float(each.mean()), 0, 0, draws=each)} for name, each in draws.items()}
    tested = verdicts(OnePaper(claim(unit="%")), run, study).iloc[0]
    assert tested.run == pytest.approx(-20)
    assert -30 <= tested.run_low < tested.run_high <= -10
    assert (tested.verdict, tested.agreeing) == ("reproduced", 8)
    assert tested.differences == pytest.approx([10 + seed for seed in range(8)])
    assert (tested.mean_first, tested.mean_second) == pytest.approx((53.5, 40.0))
    alone = verdicts(OnePaper(claim(unit="%")), None, study).iloc[0]
    assert math.isnan(alone.run)
    assert alone.verdict == "reproduced"


def test_a_run_is_compared_with_a_number_too() -> None:
    run = {"a": {"m": Interval(0.7, 0.6, 0.8)}}
    tested = verdicts(OnePaper(claim(second=0.5)), run, table(a=[0.4] * 8)).iloc[0]
    assert (tested.run, tested.run_low, tested.run_high) == pytest.approx((0.2, 0.1, 0.3))
    assert (tested["mean"], tested.verdict) == (pytest.approx(-0.1), "contradicted")


def test_what_the_study_lacks_is_not_tested_and_says_why() -> None:
    tested = verdicts(OnePaper(claim()), None, table(a=[0.4] * 8)).iloc[0]
    assert (tested.verdict, tested.note) == ("not tested", "the study has no m of b")
    undefined = verdicts(OnePaper(claim()), None, table(a=[math.nan] + [0.4] * 7, b=[0.1] * 8)).iloc[0]
    assert (undefined.verdict, undefined.note) == ("not tested", "a verdict needs 8 trainings, not 7")


def test_the_table_has_whole_claims_and_their_metric() -> None:
    long = claim(says="a claim of many words " * 9, where="Table 1", unit="%")
    tested = verdicts(OnePaper(long), None, table(a=[0.9] * 8, b=[0.5] * 8))
    html = verdict_table(tested).to_html()
    assert long.says.strip() in " ".join(html.split())
    order = ["claim", "setting", "metric", "reported", "this run", "study: mean", "as claimed", "verdict"]
    places = [html.index(f">{name}") for name in order]
    assert all(before < after for before, after in pairwise(places))
    assert "+40.0 [+40.0, +40.0]" in html
    assert "8 of 8" in html
    assert "over images of one training" in html


@pytest.mark.parametrize("key", ["primer", "barz2022"])
def test_committed_studies_give_verdicts(key: str) -> None:
    tested = verdicts(Paper(key))
    assert set(tested.verdict) <= set(VERDICTS)
    assert (tested.trainings >= 8).any()
