"""The verdict board in the README: every claim of every paper, with the numbers of the default runs and one more."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from wsolnb.papers.side_by_side.results import pooled
from wsolnb.runs.paper import Paper, paper_keys
from wsolnb.runs.verdicts import VERDICTS

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
BOARD = README.partition("<!-- verdicts -->")[2].partition("<!-- /verdicts -->")[0]


RUNS = [*((key, "default") for key in paper_keys()), ("xie2021", "all-rows")]


def rows(key: str, run: str) -> dict[str, list[str]]:
    """Cells of a run's rows by what the claim says."""
    part = re.search(rf"<summary>{key}-{run}: \d+ claims</summary>(.*?)</details>", BOARD, re.DOTALL)
    assert part, f"the board has no part for {key}-{run}: run `wsolnb report` on these runs"
    lines = [line.strip("| ").split(" | ") for line in part[1].splitlines() if line.startswith("|")][2:]
    return {line[0]: line for line in lines}


def numbers(paper: Paper, run: str) -> dict[tuple[str, str], float]:
    """What the verdicts of a run compare: its own numbers, or those of all runs of a committed sweep."""
    if (sweep := paper.folder / "results.csv").exists():
        return {
            (name, metric): each.value
            for name, row in pooled(pd.read_csv(sweep)).items()
            for metric, each in row.items()
        }
    file = "measured.csv" if run == "default" else f"{run}.csv"
    return pd.read_csv(paper.folder / file).set_index(["method", "metric"]).value.to_dict()


@pytest.mark.parametrize(("key", "run"), RUNS)
def test_the_readme_has_every_claim_with_the_numbers_of_the_run(key: str, run: str) -> None:
    paper = Paper(key)
    measured = numbers(paper, run)
    shown = rows(key, run)
    assert list(shown) == [" ".join(claim.says.split()) for claim in paper.claims()]
    for claim, line in zip(paper.claims(), shown.values(), strict=True):
        ends = [(claim.first, claim.metric), (claim.second, claim.metric)]
        if all(end in measured for end in ends):
            first, second = (claim.scale * measured[end] for end in ends)
            assert line[3].startswith(f"{first:.1f} : {second:.1f}")
        verdict = line[5].partition(" (")[0]
        assert verdict in VERDICTS


@pytest.mark.parametrize(("key", "run"), RUNS)
def test_the_counts_are_those_of_the_rows(key: str, run: str) -> None:
    found = [line[5].partition(" (")[0] for line in rows(key, run).values()]
    counts = " | ".join(str(found.count(verdict)) for verdict in VERDICTS)
    assert f"| {key}-{run} | {counts} |" in BOARD


def test_every_claim_is_put_to_the_test_in_some_run() -> None:
    verdict = {(key, says): [] for key, _ in RUNS for says in rows(key, "default")}
    for key, run in RUNS:
        for says, line in rows(key, run).items():
            verdict[key, says].append(line[5].partition(" (")[0])
    assert [claim for claim, found in verdict.items() if set(found) == {"not tested"}] == []
