"""Every paper's notebook with its defaults: its numbers are such as the paper's study makes likely, on any processor.

Rounding differs between processors, and where a training ends hangs on rounding. So what is learned is held against the
range of the study's trainings; what is not learned (`untrained.csv`) is compared exactly.

Every run starts with an empty cache, so all its trainings are made anew. Cells tagged `nbval-check-output` are compared
with the committed ones in the same run, and once more in what somebody sees who then opens the notebook in Jupyter: a
plain kernel, progress bars, nothing written, and trained weights in the cache. At last one method's readout is replaced
by another's (`swapped.yaml`), which has to be noticed.
"""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from nbclient import NotebookClient
from study_ranges import outside
from tagged_cells import differences

from wsolnb.runs.paper import Paper, paper_keys
from wsolnb.runs.run import NOTEBOOK, run
from wsolnb.runs.study import ABOUT, committed, read_study

HERE = Path(__file__).parent
UNTRAINED = pd.read_csv(HERE / "untrained.csv").set_index(["method", "metric"])
SWAPPED = yaml.safe_load((HERE / "swapped.yaml").read_text(encoding="utf-8"))


def open_in_jupyter(notebook: Path, target: Path) -> Path:
    """Execute a notebook as it is, in its folder."""
    cells = nbformat.read(notebook, as_version=4)
    NotebookClient(cells, kernel_name="python3", resources={"metadata": {"path": str(notebook.parent)}}).execute()
    nbformat.write(cells, target)
    return target


def swapped(notebook: Path, replaced: dict[str, str], target: Path) -> Path:
    """The notebook with one line of a cell replaced by another."""
    cells = nbformat.read(notebook, as_version=4)
    found = [cell for cell in cells.cells if cell.cell_type == "code" and replaced["line"] in cell.source]
    assert len(found) == 1, f"{len(found)} cells have {replaced['line']!r}"
    found[0].source = found[0].source.replace(replaced["line"], replaced["by"])
    nbformat.write(cells, target)
    return target


@pytest.mark.slow
@pytest.mark.parametrize("key", paper_keys())
def test_default_run_measures_what_the_study_makes_likely(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path / "cache"))
    notebook = Paper(key).notebook
    folder = run(key, root=tmp_path / "runs")
    assert differences(request.session, notebook, folder / NOTEBOOK) == []
    monkeypatch.delenv("WSOLNB_HEADLESS", raising=False)
    assert differences(request.session, notebook, open_in_jupyter(notebook, tmp_path / "opened.ipynb")) == []

    file = committed(Paper(key))["default"]
    found, study = pd.read_csv(folder / "metrics.csv"), read_study(file)
    assert outside(found, study).to_dict("index") == {}
    if json.loads(file.with_name(ABOUT).read_text())["recipe"] is None:  # else the study measures more than this run
        numbers = ["method", "metric"]
        assert set(found.set_index(numbers).index) == set(study.set_index(numbers).index)
    exact = UNTRAINED[UNTRAINED.key == key].value
    measured = found.set_index(["method", "metric"]).value.reindex(exact.index)
    assert measured.to_dict() == exact.to_dict()

    other = run(swapped(notebook, SWAPPED[key], tmp_path / "swapped.ipynb"), root=tmp_path / "runs")
    caught = outside(pd.read_csv(other / "metrics.csv"), study)
    assert SWAPPED[key]["method"] in caught.index.get_level_values("method")
