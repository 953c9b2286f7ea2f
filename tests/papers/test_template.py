"""The templates: made into a new paper as CONTRIBUTING.md says, they run to the end."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from wsolnb.runs.paper import Paper, paper_keys
from wsolnb.runs.parameters import checked, known_parameters

KEY = "doe2000"


@pytest.fixture
def suite(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package with a paper made from the templates by the commands of CONTRIBUTING.md."""
    block = re.search(r"```sh\n(.*?)```", (repo / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    *commands, last = block[1].splitlines()
    assert commands[0] == f"key={KEY}"
    assert last == "wsolnb run $key --recipe smoke"
    shutil.copytree(repo / "wsolnb", tmp_path / "wsolnb", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(repo / "papers" / "_template", tmp_path / "papers" / "_template")
    (tmp_path / "notebooks").mkdir()
    done = subprocess.run(["bash", "-ec", "\n".join(commands)], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_template_is_no_paper() -> None:
    assert "_template" not in paper_keys()
    with pytest.raises(ValueError, match="no paper '_template'"):
        Paper("_template")


def test_a_paper_made_from_the_templates_is_complete(suite: Path) -> None:
    assert paper_keys() == [KEY]
    paper = Paper(KEY)
    assert paper.card.read_text(encoding="utf-8").startswith(f"# {KEY}")
    assert all(claim.metric in paper.metrics for claim in paper.claims())
    assert set(paper.reported().method) <= set(paper.methods)
    known = known_parameters(paper.notebook)
    assert all(parameter.help for parameter in known.values())
    assert checked(known, paper.recipe("smoke"), "smoke")
    for folder in ("wsolnb/papers", "papers", "notebooks"):
        for path in (suite / folder).rglob(f"*{KEY}*"):
            texts = path.iterdir() if path.is_dir() else [path]
            assert not any("_template" in text.read_text(encoding="utf-8") for text in texts if text.is_file())


def test_the_notebook_of_the_template_is_thin(repo: Path) -> None:
    cells = nbformat.read(repo / "papers" / "_template" / "notebook.ipynb", as_version=4).cells
    sources = [c.source for c in cells if c.cell_type == "code" and "parameters" not in c.metadata.get("tags", [])]
    assert statistics.median(len(source.splitlines()) for source in sources) <= 6
    assert not any(re.search(r"^\s*(async def|def|class)\b", source, re.MULTILINE) for source in sources)


@pytest.mark.slow
def test_a_paper_made_from_the_templates_runs_its_smoke_recipe(suite: Path) -> None:
    program = [sys.executable, "-c", "from wsolnb.cli.app import app; app()", "run", KEY, "--recipe", "smoke"]
    environment = os.environ | {"PYTHONPATH": str(suite), "WSOLNB_CACHE": str(suite / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, cwd=suite, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = suite / "runs" / KEY / "smoke"
    record = json.loads((folder / "metrics.json").read_text())
    paper = Paper(KEY)
    assert set(record["metrics"]) == set(paper.methods)
    assert all(set(paper.metrics) == set(row) for row in record["metrics"].values())
    assert [verdict["claim"] for verdict in record["verdicts"]] == [claim.id for claim in paper.claims()]
    assert paper.recipe("smoke").items() <= record["parameters"].items()
    assert list((folder / "figures").glob("*.png"))
