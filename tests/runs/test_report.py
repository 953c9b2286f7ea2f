"""Reports: which runs they find, the table, the index, and pages that fetch nothing; see also tests/browser."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from nbformat import v4
from PIL import Image
from typer.testing import CliRunner

from wsolnb.cli.app import app
from wsolnb.metrics.bootstrap import Interval
from wsolnb.runs.paper import Paper
from wsolnb.runs.record import record
from wsolnb.runs.report.pages import STATE, VIEW, _formula, page, take_states
from wsolnb.runs.report.report import _find, report
from wsolnb.runs.run import NOTEBOOK
from wsolnb.runs.verdicts import verdicts

FETCHES = re.compile(
    r"""(?:src|href)\s*=\s*["'](?!data:|#|index\.html|results\.csv|[\w.+-]+\.html)|@import|url\((?!data:)"""
)

STUDY = pd.DataFrame([[100, "cam", "m", 0.5]], columns=["seed", "method", "metric", "value"])


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs of one paper, one of which did not reach its end."""
    for name, ended in (("default", True), ("broken", False)):
        folder = tmp_path / "runs" / "barz2022" / name
        folder.mkdir(parents=True)
        cells = [v4.new_markdown_cell("# Maps\n\n$W\\psi$"), v4.new_code_cell("print('<b>&')")]
        nbformat.write(v4.new_notebook(cells=cells), folder / NOTEBOOK)
        if ended:
            (folder / "figures").mkdir()
            Image.new("RGB", (600, 400), "red").save(folder / "figures" / "detections.png")
            metrics = {"cam": {"ap25": Interval(value=0.25, low=0.2, high=0.3)}, "dcm": {"ap25": 0.5, "ap50": 0.125}}
            tested = verdicts(Paper("barz2022"), {}, study=STUDY)
            record(folder, {"seed": 3, "note": "<script>"}, metrics, tested)
    return tmp_path / "runs"


def test_writes_an_index_a_page_per_run_and_one_table(runs: Path, tmp_path: Path) -> None:
    index = report([runs], tmp_path / "out" / "deep")
    assert index == tmp_path / "out" / "deep" / "index.html"
    assert sorted(path.name for path in index.parent.iterdir()) == [
        "barz2022-broken.html", "barz2022-default.html", "index.html", "results.csv",
    ]  # fmt: skip
    text = index.read_text(encoding="utf-8")
    assert "0.250<small> [0.200, 0.300]</small>" in text
    assert "This run did not reach its end." in text
    assert "&lt;script&gt;" in text
    assert text.count("not tested") >= len(Paper("barz2022").claims())
    assert text.count("data:image/jpeg") == 2  # the figure and, without an explorer, the contact sheet
    for path in index.parent.glob("*.html"):
        assert not FETCHES.search(path.read_text(encoding="utf-8")), path.name


def test_table_has_every_number_with_its_parameters(runs: Path, tmp_path: Path) -> None:
    report([runs], tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "results.csv")
    numbers = table[table.kind == "metric"]
    assert numbers[["run", "method", "metric", "value"]].to_numpy().tolist() == [
        ["barz2022-default", "cam", "ap25", 0.25],
        ["barz2022-default", "dcm", "ap25", 0.5],
        ["barz2022-default", "dcm", "ap50", 0.125],
    ]
    assert numbers["parameter.seed"].tolist() == [3, 3, 3]
    claims = table[table.kind == "claim"]
    assert claims.claim.tolist() == [claim.id for claim in Paper("barz2022").claims()]
    assert claims.value.isna().all()  # one run gives no verdict, and this one measured nothing of theirs
    assert "verdict" not in table


def test_runs_may_be_given_in_any_way(runs: Path, tmp_path: Path) -> None:
    one = runs / "barz2022" / "default"
    assert [run.name for run in _find([one, runs, one / NOTEBOOK])[0]] == ["barz2022-default", "barz2022-broken"]
    other = tmp_path / "elsewhere" / "barz2022" / "default"
    other.mkdir(parents=True)
    (other / NOTEBOOK).write_bytes((one / NOTEBOOK).read_bytes())
    (tmp_path / "my notes.ipynb").write_bytes((one / NOTEBOOK).read_bytes())
    names = [run.name for run in _find([one, other, tmp_path / "my notes.ipynb"])[0]]
    assert names == ["barz2022-default", "barz2022-default-2", "my_notes"]


def test_nothing_to_report_is_an_error_that_helps(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no run .*nowhere"):
        report([tmp_path / "nowhere"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no notebook.ipynb below .*empty, and no eval.json: make a run first"):
        report([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(ValueError, match="theme 'blue' is neither light nor dark"):
        report([tmp_path / "empty"], tmp_path / "out", theme="blue")


def test_a_file_that_is_no_notebook_spoils_only_its_own_page(runs: Path, tmp_path: Path) -> None:
    (runs / "barz2022" / "broken" / NOTEBOOK).write_text("<not json>")
    (runs / "barz2022" / "default" / "metrics.json").write_text("{")
    report([runs], tmp_path / "out")
    assert "notebook.ipynb cannot be read" in (tmp_path / "out" / "barz2022-broken.html").read_text()
    text = (tmp_path / "out" / "index.html").read_text()
    assert "metrics.json cannot be read" in text
    with (tmp_path / "out" / "results.csv").open() as file:
        assert len(list(csv.reader(file))) == 1


ODD = [
    "[1]",
    '{"metrics": {"cam": 3}}',
    '{"metrics": {"cam": {"ap25": {"value": "many"}}}}',
    '{"metrics": [], "parameters": 3}',
    '{"verdicts": [{"claim": "x"}]}',
    '{"metrics": {}, "verdicts": 3}',
]


@pytest.mark.parametrize("content", ODD)
def test_one_odd_record_or_picture_does_not_cost_the_others(runs: Path, tmp_path: Path, content: str) -> None:
    other = runs / "barz2022" / "odd"
    shutil.copytree(runs / "barz2022" / "default", other)
    (other / "metrics.json").write_text(content)
    (other / "figures" / "curves.png").write_bytes((other / "figures" / "detections.png").read_bytes()[:100])
    (other / "figures" / "empty.png").touch()
    said: list[str] = []
    index = report([runs], tmp_path / "out", say=said.append)
    mine = [line for line in said if line.startswith("barz2022-odd: ")]
    assert any("metrics.json" in line for line in mine), said
    assert any("figures/curves.png cannot be read" in line for line in mine)
    assert any("figures/empty.png cannot be read" in line for line in mine)
    assert (index.parent / "barz2022-odd.html").is_file()
    text = index.read_text()
    assert "figures/curves.png cannot be read" in text
    assert "0.250<small> [0.200, 0.300]</small>" in text
    table = pd.read_csv(index.parent / "results.csv")
    assert table.run.unique().tolist() == ["barz2022-default"]


def test_a_widget_of_another_shape_costs_only_its_sheet(runs: Path, tmp_path: Path) -> None:
    notebook = shown("anywidget")
    notebook.metadata.widgets[STATE]["state"]["m1"]["state"]["_wsolnb"] = "explorer"
    nbformat.write(notebook, runs / "barz2022" / "broken" / NOTEBOOK)
    said: list[str] = []
    report([runs], tmp_path / "out", say=said.append)
    assert any("the explorer in notebook.ipynb cannot be drawn" in line.lower() for line in said)


def test_evaluations_are_reported_beside_runs_or_alone(runs: Path, tmp_path: Path) -> None:
    folder = runs / "eval" / "cam.v1"
    folder.mkdir(parents=True)
    number = {"method": "cam", "name": "MaxBoxAcc", "value": 0.625, "low": 0.5, "high": 0.75}
    number |= {"threshold": 0.3, "chosen": "<oracle>"}
    result = {"methods": {"cam": {"maps": "A/cam.v1"}}, "metadata": "split", "images": 8}
    (folder / "eval.json").write_text(json.dumps(result | {"numbers": [number]}))
    for odd in ("[]", '{"numbers": [{"name": 3}]}', json.dumps(result | {"numbers": [number | {"threshold": "high"}]})):
        other = runs / "eval" / f"odd{len(odd)}"
        other.mkdir()
        (other / "eval.json").write_text(odd)
    (runs / "eval" / ".cam.7.partial").mkdir()
    (runs / "eval" / ".cam.7.partial" / "eval.json").write_text("{}")  # of one that was killed
    for given in (runs, runs / "eval"):
        said: list[str] = []
        index = report([given], tmp_path / "out", say=said.append)
        table = pd.read_csv(index.parent / "results.csv")
        row = table[table.kind == "eval"].iloc[0]
        assert (len(table[table.kind == "eval"]), row.run, row.value, row.threshold) == (1, "eval-cam.v1", 0.625, 0.3)
        assert (row.method, row.low, row.high, row["parameter.maps"]) == ("cam", 0.5, 0.75, "A/cam.v1")
        text = index.read_text()
        assert '<section id="eval-cam.v1">' in text
        assert "&lt;oracle&gt;" in text
        assert sum(line.startswith("eval-odd") for line in said) == 3


def test_a_report_replaces_a_report_and_nothing_else(runs: Path, tmp_path: Path) -> None:
    report([runs], tmp_path / "out")
    report([runs], tmp_path / "out")
    (runs / "results.csv").write_text("a sweep's")
    with pytest.raises(FileExistsError, match="nothing is overwritten, give a new folder"):
        report([runs], runs)
    assert (runs / "results.csv").read_text() == "a sweep's"


def test_command(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # its default is the folder runs
    done = CliRunner().invoke(app, ["report", "-o", "pages"])
    assert done.exit_code == 0, done.output
    assert "pages/index.html" in done.output
    assert (tmp_path / "pages" / "barz2022-default.html").exists()
    failed = CliRunner().invoke(app, ["report", "nowhere"])
    assert failed.exit_code == 2
    assert "no run nowhere" in failed.output


def shown(module: str, **data: str) -> nbformat.NotebookNode:
    """A notebook with one widget, whose text would end a script early."""
    output = v4.new_output("display_data", data={VIEW: {"model_id": "m1"}, "text/plain": "a widget", **data})
    notebook = v4.new_notebook(cells=[v4.new_code_cell("w", outputs=[output])])
    state: dict[str, Any] = {"model_module": module, "state": {"_esm": "</script><b>", "n": 1}, "buffers": []}
    notebook.metadata.widgets = {STATE: {"state": {"m1": state, "unused": state}, "version_major": 2}}
    return notebook


def test_a_widget_gets_a_place_and_its_state() -> None:
    notebook = shown("anywidget", **{"image/png": "iVBORw0KGgo="})
    text = page(notebook, title="<demo>")
    assert "<title>&lt;demo&gt;</title>" in text
    assert 'data-afm="m1"' in text
    assert text.count('type="application/json"') == 1
    assert "\\u003c/script>" in text
    assert "</script><b>" not in text
    assert "widgets" in notebook.metadata  # as it was
    states = take_states(notebook)
    assert list(states) == ["m1"]
    assert "widgets" not in notebook.metadata
    assert 'src="data:image/png;base64,iVBORw0KGgo="' in notebook.cells[0].outputs[0].data["text/html"]


@pytest.mark.parametrize(("data", "said"), [({}, "needs a running kernel"), ({"image/png": "AAAA"}, "base64,AAAA")])
def test_other_widgets_leave_a_picture_or_a_note(data: dict[str, str], said: str) -> None:
    text = page(shown("@jupyter-widgets/controls", **data))
    assert said in text
    assert "data-afm" not in text.replace("[data-afm]", "")
    assert not FETCHES.search(text)


@pytest.mark.parametrize(
    ("latex", "part"),
    [
        (r"W\psi", "<mi>W</mi><mi>&#x003C8;</mi>"),
        (r"\mathcal{L}", "<mi>&#x02112;</mi>"),
        (r"\mathcal L_c", "<mi>&#x02112;</mi>"),
        (r"\mathbb R", "<mi>&#x0211D;</mi>"),
        (r"\left( a < b", r"<code>\left( a &lt; b</code>"),
    ],
)
def test_formulas(latex: str, part: str) -> None:
    assert part in _formula(latex)


def test_formulas_and_links_in_text() -> None:
    source = "Let $a<b$.\n\n$$\nx^2\n$$\n\n\\begin{align}y &= 1\\end{align}\n\n"
    source += "[far](https://example.org) [near](../card.md#x) [here](#a)"
    text = page(v4.new_notebook(cells=[v4.new_markdown_cell(source)]))
    assert text.count("<math") == 3
    assert len(re.findall(r'<math [^>]*display="block"', text)) == 2
    assert 'href="https://example.org"' in text
    assert '<span title="../card.md#x">near</span>' in text
    assert 'href="#a"' in text


@pytest.mark.parametrize(
    ("source", "kept", "lost"),
    [
        ("![cat](https://example.org/a.png)", "[picture left out: cat]", "example.org"),
        ('<img src="//example.org/a.png" alt="cat">', "[picture left out: cat]", "example.org"),
        ("![cat](DATA)", 'src="DATA"', "left out"),
        ("[here](javascript:alert(1))", "here", "javascript:"),
        ('<a href=" java\nscript:alert(1)">here</a>', "here", "script:"),
        ("[here](data:text/html,x)", "here", "data:text"),
        ("<script>alert(1)</script>", "", "<script>alert"),
        ('<b onclick="alert(1)" style="background: url(https://example.org)">bold</b>', "<b>bold</b>", "alert"),
        ('<iframe src="https://example.org"></iframe>', "", "<iframe"),
        ("<style>@import 'https://example.org';</style>", "", "<style>@import"),
        ('<math><mi href="javascript:x">x</mi></math>', "<mi>x</mi>", "javascript:"),
        ('<svg><image href="https://example.org/a.png"/></svg>', "", "example.org"),
        ("[far](https://example.org) <details open><summary>s</summary>x</details>", "<details open", "left out"),
        ("```python\nx = 1\n```", 'class="highlight"', "left out"),
        ("| a | b |\n|---|--:|\n| 1 | $x<y$ |", "<table>", "left out"),
    ],
)
def test_markdown_brings_neither_code_nor_what_is_fetched(source: str, kept: str, lost: str) -> None:
    data = "data:image/png;base64,iVBORw0KGgo="
    whole = page(v4.new_notebook(cells=[v4.new_markdown_cell(source.replace("DATA", data))]))
    text = whole.partition("</nav>")[2]
    assert kept.replace("DATA", data) in text
    assert lost not in text


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_themes(theme: str) -> None:
    text = page(v4.new_notebook(), theme=theme)
    assert f'data-jp-theme-light="{"true" if theme == "light" else "false"}"' in text


def test_every_formula_of_the_suite_can_be_read(repo: Path) -> None:
    texts = [cell.source for path in (repo / "notebooks").glob("*.ipynb")
             for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]  # fmt: skip
    text = page(v4.new_notebook(cells=[v4.new_markdown_cell(source) for source in texts]))
    assert text.count("<math") > 20
    assert re.findall(r"<code>[^<]*\\[a-zA-Z]+[^<]*</code>", text) == []
