"""Verdicts: a paper's claims tested on the results of a run, with a paired bootstrap over test images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, cast

import pandas as pd

from wsolnb.metrics.bootstrap import Evidence, Measured, measure
from wsolnb.runs.paper import Claim, Paper

VERDICTS = ("reproduced", "same direction", "not reproduced", "not tested")
_SIGNS = {"greater": ">", "less": "<", "equal": "="}
_COLUMNS = ("claim", "where", "reported", "measured", "difference", "verdict")


def verdicts(
    paper: Paper,
    results: Measured | Evidence,
    n: int | Mapping[str, int] | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Test every claim of a paper on the results of a run.

    A claim that one result is greater (or less) than another is *reproduced* if the measured difference has that
    direction and its 95 % interval excludes zero, *same direction* if the interval includes zero, else *not
    reproduced*. A claim that two results are equal is *reproduced* if the whole interval lies within the claim's
    margin, *same direction* if only the difference itself does, else *not reproduced*. What the run did not measure is
    *not tested*.

    ``results`` are what :func:`wsolnb.metrics.bootstrap.measure` returned, for all methods over the same test images in
    the same order and from the same draws; or the evidence for it, with the number ``n`` of test images (by metric
    where metrics are taken over different images), and the number and seed of the draws.

    Returns:
        A row per claim: ``claim``, ``says``, ``where``, ``kind``, ``metric``, ``first``, ``second``, ``unit``; in that
        unit ``reported_first``, ``reported_second``, ``measured_first``, ``measured_second``, ``difference`` (first
        minus second), ``low`` and ``high``; ``verdict`` and ``note``.

    Example:
        >>> import torch
        >>> correct = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
        >>> from wsolnb.metrics.bootstrap import mean_statistic
        >>> evidence = {"dcm-onehot": {"ap25": mean_statistic(correct)}, "cam": {"ap25": mean_statistic(correct / 2)}}
        >>> tested = verdicts(Paper("barz2022"), measure(evidence, 4)).iloc[0]
        >>> print(tested.claim, tested.difference, tested.verdict)
        dcm-beats-cam 37.5 reproduced
    """
    claims = paper.claims()
    measured = cast(Measured, results)
    if n is not None:
        compared = {(method, claim.metric) for claim in claims for method in (claim.first, claim.second)}
        evidence = {
            method: {metric: statistic for metric, statistic in row.items() if (method, metric) in compared}
            for method, row in cast(Evidence, results).items()
        }
        measured = measure(evidence, n, draws=draws, seed=seed)
    return pd.DataFrame([_test(claim, measured) for claim in claims])


def _test(claim: Claim, measured: Measured) -> dict[str, object]:
    record: dict[str, object] = {
        "claim": claim.id,
        **{name: getattr(claim, name) for name in ("says", "where", "kind", "metric", "first", "second", "unit")},
        "reported_first": claim.reported[0],
        "reported_second": claim.reported[1],
        **dict.fromkeys(("measured_first", "measured_second", "difference", "low", "high"), math.nan),
        "verdict": "not tested",
        "note": "",
    }
    missing = [method for method in (claim.first, claim.second) if claim.metric not in measured.get(method, {})]
    if missing:
        return record | {"note": f"the run has no {claim.metric} of {' and '.join(missing)}"}
    first, second = measured[claim.first][claim.metric], measured[claim.second][claim.metric]
    record |= {"measured_first": claim.scale * first.value, "measured_second": claim.scale * second.value}
    if math.isnan(first.value) or math.isnan(second.value):
        return record | {"note": f"{claim.metric} is not defined on these images"}
    gap = first.minus(second)
    value, low, high = (claim.scale * end for end in (gap.value, gap.low, gap.high))
    return record | {"difference": value, "low": low, "high": high, "verdict": _judge(claim, value, low, high)}


def _judge(claim: Claim, value: float, low: float, high: float) -> str:
    """Turn a measured difference, first minus second, and its 95 % interval into a verdict, all in the claim's unit."""
    if claim.kind == "equal":
        holds, significant = abs(value) <= claim.margin, max(abs(low), abs(high)) <= claim.margin
    else:
        sign = 1 if claim.kind == "greater" else -1
        holds, significant = sign * value > 0, min(sign * low, sign * high) > 0
    return "reproduced" if holds and significant else "same direction" if holds else "not reproduced"


def verdict_table(tested: pd.DataFrame) -> pd.DataFrame:
    """Verdicts as text: claim, what it says, what was reported and measured, difference (with its interval), verdict.

    Example:
        >>> verdict_table(verdicts(Paper("barz2022"), {}, n=4)).reported[0]
        '21.6 > 17 %'
    """
    rows = [
        {
            "claim": row["claim"],
            "says": row["says"],
            "reported": _text("{:g} {sign} {:g} {unit}", row, "reported_first", "reported_second"),
            "measured": _text("{:.1f} : {:.1f} {unit}", row, "measured_first", "measured_second"),
            "difference": _text("{:+.1f} [{:+.1f}, {:+.1f}]", row, "difference", "low", "high"),
            "verdict": row["verdict"] + (f" ({row['note']})" if row["note"] else ""),
        }
        for row in tested.to_dict("records")
    ]
    return pd.DataFrame(rows)


def _text(template: str, row: Mapping[Hashable, Any], *names: str) -> str:
    numbers = [row[name] for name in names]
    if any(math.isnan(number) for number in numbers):
        return ""
    return template.format(*numbers, unit=row["unit"], sign=_SIGNS[row["kind"]]).strip()


def verdict_board(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The verdicts of runs, as in their ``metrics.json``, as Markdown: a table of counts, and below it every claim.

    Runs without verdicts are left out; the text is empty if none has any.

    Example:
        >>> row = {"claim": "a", "says": "A beats B.", "where": "Table 1", "kind": "greater", "unit": "%", "note": ""}
        >>> row |= dict(reported_first=9, reported_second=5, measured_first=8.0, measured_second=6.0)
        >>> row |= dict(difference=2.0, low=1.0, high=3.0, verdict="reproduced")
        >>> lines = verdict_board({"demo": [row]}).splitlines()
        >>> print(lines[2])
        | demo | 1 | 0 | 0 | 0 |
        >>> print(lines[-3])
        | A beats B. | Table 1 | 9 > 5 % | 8.0 : 6.0 % | +2.0 [+1.0, +3.0] | reproduced |
    """
    runs = {name: rows for name, rows in runs.items() if rows}
    if not runs:
        return ""
    counts = {name: Counter(row["verdict"] for row in rows) for name, rows in runs.items()}
    lines = _markdown(("run", *VERDICTS), [(name, *(count[key] for key in VERDICTS)) for name, count in counts.items()])
    for name, rows in runs.items():
        tested = pd.DataFrame(rows)
        numbers = ["measured_first", "measured_second", "difference", "low", "high"]
        tested[numbers] = tested[numbers].astype(float)  # null in the file if not tested
        table = verdict_table(tested).assign(claim=tested["says"], where=tested["where"])[list(_COLUMNS)]
        lines += ["", f"<details><summary>{name}: {len(rows)} claims</summary>", ""]
        lines += [*_markdown(_COLUMNS, table.to_numpy()), "", "</details>"]
    return "\n".join(lines) + "\n"


def _markdown(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> list[str]:
    cells = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in row) + " |" for row in cells]
