"""Rules that every committed notebook keeps, so that it opens, runs and can be read."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import nbformat
import papermill
import pytest

from wsolnb.runs.paper import Paper, paper_keys
from wsolnb.runs.parameters import checked, known_parameters

REPO = Path(__file__).resolve().parents[2]
NOTEBOOKS = [*sorted((REPO / "notebooks").glob("*.ipynb")), REPO / "papers" / "_template" / "notebook.ipynb"]
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [
        cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code" and cell.source.strip()
    ]


@every_notebook
def test_is_valid_and_small(path: Path) -> None:
    nbformat.validate(nbformat.read(path, as_version=4))
    assert path.stat().st_size < 500_000


@every_notebook
def test_kernel_is_python3_and_no_widget_state_is_stored(path: Path) -> None:
    metadata = nbformat.read(path, as_version=4).metadata
    assert metadata["kernelspec"]["name"] == "python3"
    assert "widgets" not in metadata
    assert "papermill" not in metadata


@every_notebook
def test_parameters_are_typed_explained_and_seen_by_papermill(path: Path) -> None:
    known = known_parameters(path)
    assert known, "no cell is tagged 'parameters'"
    assert [name for name, parameter in known.items() if not parameter.help] == []
    seen = papermill.inspect_notebook(path)
    assert {name: entry["inferred_type_name"] for name, entry in seen.items()} == {
        name: parameter.type for name, parameter in known.items()
    }


@every_notebook
def test_defines_nothing_and_keeps_cells_short(path: Path) -> None:
    sources = [cell.source for cell in code_cells(path) if "parameters" not in cell.metadata.get("tags", [])]
    assert [source for source in sources if re.search(r"^\s*(async def|def|class)\b", source, re.MULTILINE)] == []
    lines = [sum(bool(line.strip()) for line in source.splitlines()) for source in sources]
    assert statistics.median(lines) <= 6


@every_notebook
def test_is_executed_in_order_without_errors(path: Path) -> None:
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []


@every_notebook
def test_checked_cells_exist_and_have_output_to_compare_with(path: Path) -> None:
    marked = [cell for cell in code_cells(path) if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert marked, "no cell is tagged 'nbval-check-output': the comparison would compare nothing"
    texts = [
        [o for o in cell.outputs if o.output_type == "stream" or "text/plain" in o.get("data", {})] for cell in marked
    ]
    assert all(texts), "a cell tagged 'nbval-check-output' has no text to compare"


@every_notebook
def test_names_no_folder_of_a_machine(path: Path) -> None:
    assert not re.search(r"(?<![\w.:/])/(home|root|work|Users|tmp)/", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("key", paper_keys())
def test_recipes_fit_the_parameters_of_the_notebook(key: str) -> None:
    paper = Paper(key)
    if not paper.notebook.exists():
        pytest.skip(f"{paper.notebook.name} is not written yet")
    known = known_parameters(paper.notebook)
    for name in paper.recipes():
        assert checked(known, paper.recipe(name), name)
