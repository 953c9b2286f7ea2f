"""The result of `wsolnb eval` as one table of several methods: Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from wsolnb._utils.text import markdown_table

_HEADINGS = {
    "MaxBoxAcc": "GT-known (MaxBoxAcc)",
    "Top-1": "Top-1",
    "Top-5": "Top-5",
    "MaxBoxAccV2": "MaxBoxAccV2",
    "MaxBoxAccV2@0.3": "V2@0.3",
    "MaxBoxAccV2@0.5": "V2@0.5",
    "MaxBoxAccV2@0.7": "V2@0.7",
    "PxAP": "PxAP",
    "pixel IoU": "pixel IoU",
}
"""Headings of the numbers of `wsolnb.localization.evaluate`, in the order of the columns."""
_DEFINITIONS = {
    "MaxBoxAcc": "GT-known: the box of the largest region above a threshold has an IoU of 0.5 or more with a true box; "
    "at the best threshold this is MaxBoxAcc.",
    "Top-1": "Top-k: GT-known, and the class is among the k best scores.",
    "MaxBoxAccV2": "MaxBoxAccV2: the box of any region counts; the mean of V2@IoU at IoUs 0.3, 0.5 and 0.7, each at "
    "its own threshold.",
    "PxAP": "PxAP needs no threshold.",
}

_ESCAPES = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
})  # fmt: skip


@dataclass(frozen=True)
class ResultTable:
    """Headings, rows of cells (a blank one is explained by a note), and notes that stand below."""

    columns: list[str]
    rows: list[list[str]]
    notes: list[str]


def result_table(result: Mapping[str, Any]) -> ResultTable:
    """One row for each method at its best thresholds, then at fixed ones, then the differences from the first method.

    ``result`` is that of `wsolnb.localization.evaluate.evaluate_maps`; numbers are percentages with two decimals, in
    brackets their intervals.

    Example:
        >>> number = {"method": "cam", "name": "PxAP", "kind": "", "value": 0.5, "low": 0.25, "high": 0.625}
        >>> number |= {"threshold": None, "chosen": "none needed"}
        >>> methods = {"cam": {"maps": "maps"}}
        >>> result = {"images": 8, "methods": methods, "numbers": [number], "differences": [], "absent": []}
        >>> result_table(result).rows
        [['cam', 'oracle', '50.00 [25.00, 62.50]']]
    """
    numbers, differences = result["numbers"], result["differences"]
    missing = [name for entry in result["absent"] for name in entry["names"] if name != "fixed"]
    names = [name for name in _HEADINGS if name in {row["name"] for row in numbers} | set(missing)]
    fixed = any(row["kind"] == "fixed" for row in numbers)
    rows = []
    for kind in ("oracle", "fixed") if fixed else ("oracle",):
        for method in result["methods"]:
            cells = {row["name"]: _cell(row) for row in numbers if row["method"] == method and _is(row, kind)}
            rows.append([method, kind, *(cells.get(name, "") for name in names)])
        for method in list(result["methods"])[1:]:
            ours = [row for row in differences if row["method"] == method and _is(row, kind)]
            cells = {row["name"]: _cell(row, "+") for row in ours}
            if cells:
                rows.append([f"{method} - {ours[0]['minus']}", kind, *(cells.get(name, "") for name in names)])
    return ResultTable(["method", "threshold", *(_HEADINGS[name] for name in names)], rows, [*_notes(result)])


def _is(row: Mapping[str, Any], kind: str) -> bool:
    """Whether a number belongs into a row; one that needs no threshold belongs into both."""
    return row["kind"] in ("", kind)


def _cell(row: Mapping[str, Any], sign: str = "") -> str:
    value, low, high = (f"{100 * row[key]:{sign}.2f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _notes(result: Mapping[str, Any]) -> Iterator[str]:
    numbers = result["numbers"]
    names = {row["name"] for row in numbers}
    paired = "; of differences over the same draws for both methods (paired)" if result["differences"] else ""
    yield f"Percent of {result['images']} images, with 95 % bootstrap intervals over images (1000 draws){paired}."
    yield from (text for name, text in _DEFINITIONS.items() if name in names)
    kinds = {row["kind"] for row in numbers}
    yield from ["oracle: at the threshold that is best on these very images."] if "oracle" in kinds else []
    for method, about in result["methods"].items():
        for kind in ("oracle", "fixed"):
            ours = [row for row in numbers if row["method"] == method and row["kind"] == kind]
            at = [f"{_HEADINGS[row['name']]} {row['threshold']:.4g}" for row in ours if row["threshold"] is not None]
            if at:
                val = about.get("val")
                source = f", chosen on {val['metadata']}" if val and kind == "fixed" else ""
                yield f"Thresholds of {method}, {kind}{source}: {', '.join(at)}."
    for entry in result["absent"]:
        of = f" of {entry['method']}" if "method" in entry else ""
        fixed = entry["names"] == ["fixed"]
        what = "fixed thresholds" if fixed else ", ".join(_HEADINGS[name] for name in entry["names"])
        yield f"No {what}{of}: {entry['why']}."


def to_markdown(table: ResultTable) -> str:
    """The table, and below it the notes as a list.

    Example:
        >>> print(to_markdown(ResultTable(["method"], [["cam"]], ["A note."])), end="")
        | method |
        | --- |
        | cam |
        <BLANKLINE>
        - A note.
    """
    return "\n".join([*markdown_table(table.columns, table.rows), "", *(f"- {note}" for note in table.notes), ""])


def to_latex(table: ResultTable) -> str:
    r"""A tabular for booktabs, below it the notes in small print; everything is escaped.

    Example:
        >>> print(to_latex(ResultTable(["method", "threshold", "Top-1"], [["a_b", "oracle", "-1.00"]], ["A note."])))
        % needs \usepackage{booktabs}
        \begin{tabular}{llr}
        \toprule
        method & threshold & Top-1 \\
        \midrule
        a\_b & oracle & $-$1.00 \\
        \bottomrule
        \end{tabular}
        <BLANKLINE>
        {\footnotesize
        A note.\par
        }
        <BLANKLINE>
    """
    layout = "ll" + "r" * (len(table.columns) - 2)
    lines = [r"% needs \usepackage{booktabs}", rf"\begin{{tabular}}{{{layout}}}", r"\toprule", _row(table.columns)]
    for _, rows in groupby(table.rows, key=lambda row: row[1]):
        lines += [r"\midrule", *map(_row, rows)]
    notes = [rf"{note.translate(_ESCAPES)}\par" for note in table.notes]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", "", r"{\footnotesize", *notes, "}", ""])


def _row(cells: Sequence[str]) -> str:
    """A row of LaTeX; braces at its start, so that a name in brackets is no option of the line before."""
    text = " & ".join(re.sub(r"-(?=\d+\.\d)", "$-$", cell.translate(_ESCAPES)) for cell in cells)
    return rf"{{}}{text} \\" if text.startswith("[") else rf"{text} \\"


def to_csv(result: Mapping[str, Any]) -> str:
    """Numbers and differences as rows: fractions, thresholds, and how these were chosen."""
    columns = ["method", "minus", "name", "kind", "value", "low", "high", "threshold", "chosen"]
    rows = csv.DictWriter(text := io.StringIO(), columns, lineterminator="\n", extrasaction="ignore")
    rows.writeheader()
    rows.writerows([*result["numbers"], *result["differences"]])
    return text.getvalue()
