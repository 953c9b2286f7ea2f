"""The verdict board: every claim of every paper that was run, reported beside measured, with the verdict on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

VERDICTS = ("reproduced", "same direction", "not reproduced", "not tested")
_COLUMNS = ("claim", "where", "reported", "measured", "difference", "verdict")


def board(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The verdicts of several runs as Markdown: a table of counts, and below it every claim.

    Args:
        runs: Verdicts by name of the run, as they stand in its ``metrics.json``.

    Returns:
        Markdown; runs without verdicts are left out. Empty if none has any.

    Example:
        >>> row = {"claim": "a", "says": "A beats B.", "where": "Table 1", "kind": "greater", "unit": "%", "note": ""}
        >>> row |= dict(reported_first=9, reported_second=5, measured_first=8.0, measured_second=6.0)
        >>> row |= dict(difference=2.0, low=1.0, high=3.0, verdict="reproduced")
        >>> print(board({"demo": [row]}).splitlines()[2])
        | demo | 1 | 0 | 0 | 0 |
        >>> print(board({"demo": [row]}).splitlines()[-3])
        | A beats B. | Table 1 | 9 > 5 % | 8.0 : 6.0 % | +2.0 [+1.0, +3.0] | reproduced |
    """
    judged = {name: rows for name, rows in runs.items() if rows}
    if not judged:
        return ""
    counts = {name: Counter(row["verdict"] for row in rows) for name, rows in judged.items()}
    lines = _table(("run", *VERDICTS), ((name, *(count[each] for each in VERDICTS)) for name, count in counts.items()))
    for name, rows in judged.items():
        lines += ["", f"<details><summary>{name}: {len(rows)} claims</summary>", ""]
        lines += [*_table(_COLUMNS, _claims(rows)), "", "</details>"]
    return "\n".join(lines) + "\n"


def _claims(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    from wsolnb.verdicts import verdict_table  # brings torch

    numbers = ["measured_first", "measured_second", "difference", "low", "high"]
    tested = pd.DataFrame(rows)
    tested[numbers] = tested[numbers].astype(float)  # what was not tested is null in the file
    said = verdict_table(tested).assign(claim=tested["says"], where=tested["where"])
    return [tuple(row[column] for column in _COLUMNS) for row in said.to_dict("records")]


def _table(columns: Sequence[str], rows: Any) -> list[str]:
    cells = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in row) + " |" for row in cells]
