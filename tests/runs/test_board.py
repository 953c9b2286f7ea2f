"""The committed board and the README's summary are those that the committed studies give."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from wsolnb.runs.board import _plain, _sections, board, in_order, summary
from wsolnb.runs.paper import Paper, paper_keys
from wsolnb.runs.study import committed, read_study
from wsolnb.runs.verdicts import TRAININGS, VERDICTS, verdicts


def test_the_board_is_in_step_with_the_studies(repo: Path) -> None:
    written = (repo / "VERDICTS.md").read_text(encoding="utf-8")
    assert written == board(repo), "run `wsolnb report --board VERDICTS.md`"


def test_the_readme_has_the_summary(repo: Path) -> None:
    readme = (repo / "README.md").read_text(encoding="utf-8")
    assert summary(repo, "VERDICTS.md") in readme
    assert len(summary(repo).splitlines()) == 2 + len(paper_keys())


def test_every_link_of_the_board_leads_to_a_file(repo: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", board(repo))
    assert len(links) > 60
    assert all((repo / link).exists() for link in set(links) if "://" not in link)


def test_the_summary_leads_to_the_sections_of_the_board(repo: Path) -> None:
    headings = re.findall(r"^## (.*)$", board(repo), re.MULTILINE)
    anchors = ["#" + "-".join(re.sub(r"[^a-z0-9_ -]", "", heading.lower()).split(" ")) for heading in headings]
    assert re.findall(r"\]\((#[^)]+)\)", summary(repo)) == anchors
    assert len(anchors) == len(paper_keys())


def test_no_verdict_comes_from_fewer_than_eight_trainings() -> None:
    for paper in in_order():
        for path in committed(paper).values():
            tested = verdicts(paper, study=read_study(path))
            judged = tested[tested.verdict != "not tested"]
            assert set(tested.verdict) <= set(VERDICTS)
            assert (judged.trainings >= TRAININGS).all()
            assert read_study(path).seed.min() >= 100


def test_claims_of_our_own_stand_apart() -> None:
    paper = Paper("primer")
    rows = [[100 + seed, m, "top1_loc", v] for seed in range(8) for m, v in (("cam", 0.7), ("gmp", 0.4))]
    tested = verdicts(paper, study=pd.DataFrame(rows, columns=["seed", "method", "metric", "value"])).iloc[:1]
    both = pd.concat([tested, tested.assign(ours=True, says="Ours | too.", where="a control")])
    paper_part, heading, ours = _sections(paper, both, Path())
    assert heading == "**Ours**\n"
    assert ours.splitlines()[2].startswith(r"| Ours \| too. ([a control](")
    assert "| +30.0 [+30.0, +30.0] | 8 of 8 | reproduced |" in paper_part


@pytest.mark.parametrize("key", paper_keys())
def test_the_sentence_to_remember_is_one(key: str) -> None:
    assert Paper(key).remember.endswith(".")
    assert len(Paper(key).remember) < 160


def test_what_a_paper_says_is_text_and_neither_html_nor_a_link() -> None:
    assert _plain("a <b> of [x](javascript:y)") == "a &lt;b> of \\[x](javascript:y)"
