"""The comparison of tagged cells: it finds what differs, and only that."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat import v4
from tagged_cells import INJECTED, differences


def written(path: Path, value: str, printed: str, untagged: str = "3", injected: bool = False) -> Path:
    """A notebook of three cells that were run; the last is not tagged."""
    tagged, result = {"tags": ["nbval-check-output"]}, {"execution_count": 1}
    cells = [
        v4.new_code_cell(
            "a", metadata=tagged, outputs=[v4.new_output("execute_result", {"text/plain": value}, **result)]
        ),
        v4.new_code_cell("b", metadata=tagged, outputs=[v4.new_output("stream", text=printed)]),
        v4.new_code_cell("c", outputs=[v4.new_output("execute_result", {"text/plain": untagged}, **result)]),
    ]
    if injected:
        cells.insert(0, v4.new_code_cell("a = 1", metadata={"tags": [INJECTED]}))
    nbformat.write(v4.new_notebook(cells=cells), path)
    return path


@pytest.mark.parametrize(
    ("run", "texts", "cells"),
    [
        (("1", "took 2.5 s\n"), None, []),
        (("1", "took 31 s\n", "4", True), None, []),
        (("2", "took 2.5 s\n"), None, ["cell 0: a"]),
        (("2", "took 2.5 m\n"), None, ["cell 0: a", "cell 1: b"]),
        (("2", "went 2.5 s\n"), ["2", None], ["cell 1: b"]),
        (("2", "went 2.5 s\n"), ["2", "went 7 s"], []),
        (("1", "took 2.5 s\n"), ["2", "went 7 s"], ["cell 0: a", "cell 1: b"]),
    ],
)
def test_only_tagged_cells_that_differ_are_reported(
    run: tuple[str, str],
    texts: list[str | None] | None,
    cells: list[str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    committed = written(tmp_path / "committed.ipynb", "1", "took 9 s\n")
    reports = differences(request.session, committed, written(tmp_path / "run.ipynb", *run), texts)
    assert [report.splitlines()[0] for report in reports] == cells


def test_a_report_shows_both_texts(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    committed = written(tmp_path / "committed.ipynb", "{'train': 100}", "")
    (report,) = differences(request.session, committed, written(tmp_path / "run.ipynb", "{'train': 99}", ""))
    assert "{'train': 100}" in report
    assert "{'train': 99}" in report
