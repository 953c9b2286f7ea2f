"""Verdicts: a paper's claims, tested on a study of many trainings, and where one more run lies among them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wsolnb.metrics.bootstrap import Interval, Measured, mean_interval
from wsolnb.runs.claims import Claim
from wsolnb.runs.paper import Paper
from wsolnb.runs.study import committed, read_study

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

VERDICTS = ("reproduced", "contradicted", "undecided", "not tested")
TRAININGS = 8  # a verdict needs as many
LEVEL = 0.95
_SIGNS = {"greater": ">", "less": "<", "equal": "="}
_BADGES = {"reproduced": "#00734f", "contradicted": "#b34700", "undecided": "#5f5f5f", "not tested": "#5f5f5f"}


@dataclass(frozen=True)
class Judgement:
    """What the trainings of a study say about a claim, in its unit."""

    mean: float  # of the differences, first minus second
    low: float  # Student's t interval of the mean, 95 %
    high: float
    trainings: int
    agreeing: int  # trainings whose difference has the claimed sign, or lies within the margin
    verdict: str  # one of VERDICTS
    note: str = ""  # why there is no verdict


def judge(claim: Claim, differences: Sequence[float]) -> Judgement:
    """Judge a claim by its paired differences, one per training (first minus second, in the claim's unit).

    The interval is Student's t, 95 % (:func:`wsolnb.metrics.bootstrap.mean_interval`). The claim is *reproduced* if the
    whole interval lies on the claimed side of zero (for an equality: within the margin), *contradicted* if it lies
    wholly on the other side (wholly outside of the margin), else *undecided*. Fewer than eight trainings give no
    verdict.

    Example:
        >>> claim = Paper("primer").claims()[0]
        >>> judge(claim, [2.0, 1.0, 3.0, 2.0, 2.5, 1.5, 2.0, 2.0]).verdict
        'reproduced'
        >>> judge(claim, [2.0, 1.0, 3.0]).note
        'a verdict needs 8 trainings, not 3'
    """
    values = np.asarray([value for value in differences if not math.isnan(value)], dtype=float)
    size, over = len(values), mean_interval(values, LEVEL)
    sign = -1 if claim.kind == "less" else 1
    agrees = np.abs(values) <= claim.margin if claim.kind == "equal" else sign * values > 0
    verdict, note = "not tested", f"a verdict needs {TRAININGS} trainings, not {size}"
    if size >= TRAININGS:
        verdict, note = _verdict(claim, over.low, over.high), ""
    return Judgement(over.value, over.low, over.high, size, int(agrees.sum()), verdict, note)


def _verdict(claim: Claim, low: float, high: float) -> str:
    if claim.kind == "equal":
        within, outside = -claim.margin <= low and high <= claim.margin, low > claim.margin or high < -claim.margin
    else:
        within, outside = (low > 0, high < 0) if claim.kind == "greater" else (high < 0, low > 0)
    return "reproduced" if within else "contradicted" if outside else "undecided"


def verdicts(paper: Paper, measured: Measured | None = None, study: pd.DataFrame | None = None) -> pd.DataFrame:
    """Test every claim of a paper on a study, by default the committed one, and put a run beside its trainings.

    ``measured`` is what :func:`wsolnb.metrics.bootstrap.measure` returned for the run, all methods over the same test
    images and from the same draws; the interval of its difference is over these images, of one training. A run gives
    no verdict.

    Returns:
        A row per claim: its fields, except that ``reported`` is ``reported_first`` and ``reported_second``; all in its
        unit, ``mean_first`` and ``mean_second``, the fields of a :class:`Judgement`, ``differences`` (a list, one per
        training) and, of the run, ``run``, ``run_low`` and ``run_high``.

    Example:
        >>> tested = verdicts(Paper("primer"))
        >>> bool(tested.verdict.isin(VERDICTS).all())
        True
    """
    if study is None:
        files = committed(paper)
        study = read_study(files["default"]) if "default" in files else None
    rows = []
    for claim in paper.claims():
        fields = {name: value for name, value in vars(claim).items() if name not in ("id", "reported")}
        reported = claim.reported or (math.nan, math.nan)
        row = {"claim": claim.id, **fields, "reported_first": reported[0], "reported_second": reported[1]}
        rows.append(row | _of_study(claim, study) | _of_run(claim, measured or {}))
    return pd.DataFrame(rows)


def differences(claim: Claim, study: pd.DataFrame) -> pd.DataFrame:
    """What a claim compares, per seed and in the claim's unit: ``first``, ``second`` and their ``difference``.

    Example:
        >>> rows = [[100, "cam", "top1_loc", 0.7], [100, "gmp", "top1_loc", 0.4]]
        >>> study = pd.DataFrame(rows, columns=["seed", "method", "metric", "value"])
        >>> differences(Paper("primer").claims()[0], study).round(1).values.tolist()
        [[70.0, 40.0, 30.0]]
    """
    numbers = study[study.metric == claim.metric].pivot(index="seed", columns="method", values="value")
    sides = {
        name: claim.scale * numbers[side] if isinstance(side, str) else pd.Series(float(side), numbers.index)
        for name, side in (("first", claim.first), ("second", claim.second))
    }
    return pd.DataFrame(sides).assign(difference=sides["first"] - sides["second"])


def _of_study(claim: Claim, study: pd.DataFrame | None) -> dict[str, Any]:
    note = "there is no study yet"
    if study is not None:
        there = set(study.method[study.metric == claim.metric])
        missing = [side for side in (claim.first, claim.second) if isinstance(side, str) and side not in there]
        note = f"the study has no {claim.metric} of {' and '.join(missing)}" if missing else ""
    if study is None or note:
        nothing = {"mean_first": math.nan, "mean_second": math.nan, "differences": []}
        return nothing | vars(replace(judge(claim, []), note=note))
    pairs = differences(claim, study)
    means = {"mean_first": pairs["first"].mean(), "mean_second": pairs["second"].mean()}
    values = pairs["difference"].dropna().tolist()
    return means | {"differences": values} | vars(judge(claim, values))


def _of_run(claim: Claim, measured: Measured) -> dict[str, float]:
    nothing = Interval(math.nan, math.nan, math.nan)
    first = measured.get(claim.first, {}).get(claim.metric, nothing)
    gap = first
    if isinstance(claim.second, str):
        second = measured.get(claim.second, {}).get(claim.metric, nothing)
        known = not (math.isnan(first.value) or math.isnan(second.value))
        gap = first.minus(second) if known else nothing
    shift = 0.0 if isinstance(claim.second, str) else float(claim.second)
    value, low, high = (claim.scale * end - shift for end in (gap.value, gap.low, gap.high))
    return {"run": value, "run_low": low, "run_high": high}


def verdict_table(tested: pd.DataFrame) -> Styler:
    """The verdicts as one table, whose long texts wrap.

    It has what is claimed, tested and reported, this run's difference, the study's, and the verdict.

    Example:
        >>> verdict_table(verdicts(Paper("primer"))).data.columns.tolist()[:4]
        ['claim', 'setting', 'metric', 'reported']
    """
    table = texts(tested).drop(columns="where")
    table["claim"] = [f"{says} ({where})" for says, where in zip(tested.says, tested["where"], strict=True)]
    of_run = [_signed(row["run"], row["run_low"], row["run_high"]) for row in tested.to_dict("records")]
    table.insert(4, "this run, over images of one training", of_run)
    styled = table.style.hide(axis="index").set_table_styles(
        [
            {"selector": "th, td", "props": "text-align: left; white-space: normal; vertical-align: top"},
            {"selector": "td.col0", "props": "min-width: 18em"},
        ]
    )
    return styled.map(lambda text: f"color: {_BADGES[text.partition(' (')[0]]}; font-weight: bold", subset=["verdict"])


def texts(tested: pd.DataFrame) -> pd.DataFrame:
    """What a study says about claims, as text for tables.

    The columns: ``claim`` and ``where``, ``setting``, ``metric``, what was ``reported``, the mean difference with its
    interval, in how many trainings it is ``as claimed``, and the ``verdict``.

    Example:
        >>> row = texts(verdicts(Paper("primer"))).iloc[0]
        >>> row.metric, row.reported
        ('top1_loc', '43.6 > 42.22 %')
    """
    rows = [
        {
            "claim": row["says"],
            "where": row["where"],
            "setting": row["setting"] + _margin(row),
            "metric": row["metric"],
            "reported": _reported(row),
            "study: mean difference": _signed(row["mean"], row["low"], row["high"]),
            "as claimed": f"{row['agreeing']} of {row['trainings']}" if row["trainings"] else "",
            "verdict": row["verdict"] + (f" ({row['note']})" if row["note"] else ""),
        }
        for row in tested.to_dict("records")
    ]
    return pd.DataFrame(rows)


def _margin(row: Mapping[Hashable, Any]) -> str:
    return f" (equal: within {row['margin']:g}, {row['because']})" if row["because"] else ""


def _reported(row: Mapping[Hashable, Any]) -> str:
    if math.isnan(row["reported_first"]):
        return ""
    return f"{row['reported_first']:g} {_SIGNS[row['kind']]} {row['reported_second']:g} {row['unit']}".strip()


def _signed(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:+.1f}" + ("" if math.isnan(low) else f" [{low:+.1f}, {high:+.1f}]")
