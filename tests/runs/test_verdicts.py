from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from wsolnb.metrics.bootstrap import Interval, Statistic, measure
from wsolnb.runs.paper import Claim, Paper
from wsolnb.runs.verdicts import _judge, verdict_table, verdicts

N = 400


def mean_of(scores: np.ndarray) -> Statistic:
    values = torch.as_tensor(scores, dtype=torch.float64)
    return lambda weights: weights @ values / weights.sum(dim=1)


def hits(share: float, seed: int, n: int = N) -> Statistic:
    """A statistic whose value is exactly `share`, over images shuffled by the seed."""
    scores = np.zeros(n)
    scores[: round(share * n)] = 1
    return mean_of(np.random.default_rng(seed).permutation(scores))


def undefined(weights: torch.Tensor) -> torch.Tensor:
    return torch.full((len(weights),), math.nan, dtype=torch.float64)


def test_each_verdict_follows_from_its_numbers() -> None:
    evidence = {
        "cam": {"ap25": hits(0.5, 0), "ap0": hits(0.5, 0), "top5_loc_error": hits(0.48, 0, 50)},
        "dcm-onehot": {"ap25": hits(0.8, 1), "ap0": hits(0.49, 1), "top5_loc_error": hits(0.48, 0, 50)},
        "dcm-semantic": {"ap25": hits(0.81, 2), "ap0": undefined},
    }
    images = {"ap25": N, "ap0": N, "top5_loc_error": 50}
    table = verdicts(Paper("barz2022"), evidence, images, draws=300, seed=1).set_index("claim")
    assert table.verdict.to_dict() == {
        "dcm-beats-cam": "reproduced",
        "semantic-beats-onehot": "same direction",
        "semantic-multilabel": "not tested",
        "onehot-multilabel": "not reproduced",
        "precision-at-recall": "not tested",
        "single-object": "reproduced",
    }
    row = table.loc["dcm-beats-cam"]
    assert (row.measured_first, row.measured_second) == (80.0, 50.0)
    assert row.difference == pytest.approx(30)
    assert 0 < row.low < 30 < row.high < 45
    assert table.note["semantic-multilabel"] == "ap0 is not defined on these images"
    assert table.note["precision-at-recall"] == "the run has no p_at_r30 of dcm-onehot and cam"


def test_the_bootstrap_is_paired() -> None:
    hard = np.random.default_rng(0).normal(size=N)
    evidence = {"cam": {"ap25": mean_of(hard)}, "dcm-onehot": {"ap25": mean_of(hard + 0.01)}}
    row = verdicts(Paper("barz2022"), evidence, N, draws=200).iloc[0]
    assert row.verdict == "reproduced"  # unpaired, the spread of the images would drown a hundredth
    assert row.high - row.low < 1e-9


@pytest.mark.parametrize(
    ("kind", "value", "low", "high", "verdict"),
    [
        ("greater", 2.0, 0.1, 4.0, "reproduced"),
        ("greater", 2.0, 0.0, 4.0, "same direction"),
        ("greater", 0.0, -1.0, 1.0, "not reproduced"),
        ("greater", -2.0, -4.0, 1.0, "not reproduced"),
        ("less", -2.0, -4.0, -0.1, "reproduced"),
        ("less", -2.0, -4.0, 0.1, "same direction"),
        ("less", 2.0, -0.1, 4.0, "not reproduced"),
        ("equal", 0.5, -1.0, 1.9, "reproduced"),
        ("equal", 0.5, -2.1, 1.9, "same direction"),
        ("equal", -2.5, -3.0, 1.9, "not reproduced"),
    ],
)
def test_judge(kind: str, value: float, low: float, high: float, verdict: str) -> None:
    claim = Claim("c", "", "", kind, "m", "a", "b", (1, 2), margin=2 if kind == "equal" else 0)  # type: ignore[arg-type]
    assert _judge(claim, value, low, high) == verdict


def test_measure_gives_intervals_and_keeps_what_is_undefined() -> None:
    scores = measure({"cam": {"ap25": hits(0.25, 0), "ap0": undefined}}, N, draws=300)
    assert scores["cam"]["ap25"].value == 0.25
    assert 0.19 < scores["cam"]["ap25"].low < 0.25 < scores["cam"]["ap25"].high < 0.31
    assert math.isnan(scores["cam"]["ap0"].value)


def test_verdicts_on_what_was_measured_are_those_on_the_statistics() -> None:
    evidence = {
        "cam": {"ap25": hits(0.5, 0), "ap0": undefined},
        "dcm-onehot": {"ap25": hits(0.52, 1), "ap0": undefined},
    }
    measured = measure(evidence, N, draws=200, seed=3)
    pd.testing.assert_frame_equal(
        verdicts(Paper("barz2022"), measured), verdicts(Paper("barz2022"), evidence, N, draws=200, seed=3)
    )


def test_a_difference_needs_the_draws_of_both() -> None:
    measured = {
        "cam": measure({"cam": {"ap25": hits(0.5, 0)}}, N, draws=20)["cam"],
        "dcm-onehot": measure({"dcm-onehot": {"ap25": hits(0.8, 1)}}, N, draws=30)["dcm-onehot"],
    }
    with pytest.raises(ValueError, match="the same draws on both sides, got 30 and 20 draws"):
        verdicts(Paper("barz2022"), measured)
    with pytest.raises(ValueError, match="got no and no draws"):
        Interval(0.5, 0.4, 0.6).minus(Interval(0.5, 0.4, 0.6))


def test_table_for_reading() -> None:
    evidence = {"cam": {"ap25": hits(0.5, 0)}, "dcm-onehot": {"ap25": hits(0.8, 1)}}
    table = verdict_table(verdicts(Paper("barz2022"), evidence, N, draws=100))
    assert list(table) == ["claim", "says", "reported", "measured", "difference", "verdict"]
    assert table.reported[0] == "21.6 > 17 %"
    assert table.measured[0] == "80.0 : 50.0 %"
    assert table.difference[0].startswith("+30.0 [+2")
    assert table.reported[5] == "48 = 48 %"
    assert (table.measured[5], table.difference[5]) == ("", "")
    assert table.verdict[5] == "not tested (the run has no top5_loc_error of dcm-onehot and cam)"
