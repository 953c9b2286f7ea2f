from __future__ import annotations

import math
import pkgutil
import re
from pathlib import Path

import pytest
from made_up_suite import made_up_paper

from wsolnb.metrics.bootstrap import Interval
from wsolnb.runs import paper as papers
from wsolnb.runs.paper import Paper, paper_keys, suite_folder


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite of one made-up paper, found from a folder inside it."""
    folder = made_up_paper(tmp_path)
    (folder / "claims.yaml").write_text("[]")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    return tmp_path


def test_suite_is_found_above_the_working_directory(suite: Path) -> None:
    assert suite_folder() == suite
    assert paper_keys() == ["doe2000"]
    assert Paper("doe2000").notebook == suite / "notebooks" / "1_t.ipynb"


def test_suite_is_found_beside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo: Path) -> None:
    (tmp_path / "papers").mkdir()  # somebody else's folders of these names are not taken for the suite
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    assert suite_folder() == repo


def test_suite_is_found_inside_an_installed_package(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = suite / "site-packages" / "wsolnb"
    package.mkdir(parents=True)
    for name in ("papers", "notebooks"):
        (package / "suite").mkdir(exist_ok=True)
        (suite / name).rename(package / "suite" / name)
    monkeypatch.setattr(papers, "__file__", str(package / "runs" / "paper.py"))
    monkeypatch.chdir(suite.anchor)
    assert suite_folder() == package / "suite"


def test_missing_suite_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path.anchor)
    monkeypatch.setattr(papers, "__file__", str(tmp_path / "lib" / "wsolnb" / "runs" / "paper.py"))
    with pytest.raises(FileNotFoundError, match="lib/wsolnb/suite"):
        suite_folder()


def test_unknown_key_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no paper 'barz2021' .*barz2022"):
        Paper("barz2021")


@pytest.mark.parametrize("key", paper_keys())
def test_every_paper_is_complete(key: str) -> None:
    paper = Paper(key)
    assert paper.title
    assert paper.authors
    assert paper.card.read_text(encoding="utf-8").startswith(f"# {key}")
    assert "smoke" in paper.recipes()
    claims = paper.claims()
    assert len({claim.id for claim in claims}) == len(claims) > 0
    untested: set[object] = set()  # results that no run of ours has
    for claim in claims:
        if claim.setting.startswith("Not tested"):
            untested |= {claim.first, claim.second}
            continue
        assert claim.metric in paper.metrics
        assert {side for side in (claim.first, claim.second) if isinstance(side, str)} <= set(paper.methods)
    reported = paper.reported()
    assert list(reported) == ["table", "row", "method", "dataset", "metric", "value", "unit", "note"]
    assert reported.value.notna().all()
    assert set(reported.method) - {""} <= set(paper.methods) | untested


@pytest.mark.parametrize("key", paper_keys())
def test_cards_name_code_that_exists(key: str) -> None:
    names = re.findall(r"`(wsolnb\.[\w.]+)[`(]", Paper(key).card.read_text(encoding="utf-8"))
    assert names
    for name in names:
        assert pkgutil.resolve_name(name) is not None


def test_unknown_recipe_lists_the_known_ones() -> None:
    known = ", ".join(Paper("barz2022").recipes())
    with pytest.raises(ValueError, match=rf"no recipe 'coco': known are {known}"):
        Paper("barz2022").recipe("coco")


def test_reported_beside_measured() -> None:
    measured = {"cam": {"ap25": Interval(0.3, 0.2, 0.4), "ap50": 0.1}, "cosine-cam": {"ap25": 0.5, "ap50": 0.2}}
    table = Paper("barz2022").beside(measured, "COCO")
    assert list(table.columns) == [(m, s) for m in ("ap25", "ap50") for s in ("reported", "measured")]
    assert table.loc["cross-entropy + CAM"].tolist()[:2] == [17.0, 30.0]
    assert math.isnan(table.loc["cross-entropy + CAM", ("ap50", "reported")])
    assert table.iloc[1, 1] == 50.0
    with pytest.raises(ValueError, match=r"'MNIST': known are COCO, ImageNet-1k"):
        Paper("barz2022").beside(measured, "MNIST")
