"""Cells of a notebook that are tagged `nbval-check-output`, compared by nbval after any execution of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import IPyNbFile, coalesce_streams

INJECTED = "injected-parameters"  # papermill's tag for the cell that it adds


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    """Code cells of a notebook, without the one that a run adds."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code" and INJECTED not in cell.metadata.get("tags", [])]


def differences(
    session: pytest.Session, committed: Path, executed: Path, texts: Sequence[str | None] | None = None
) -> list[str]:
    """Compare tagged cells, sanitized, as ``pytest --nbval-lax`` does, but without executing the notebook once more.

    Args:
        session: Whose option ``--nbval-sanitize-with`` counts.
        committed: The notebook with the outputs to compare with.
        executed: The same notebook after a run.
        texts: For each tagged cell the text to expect in place of the committed one; None: the committed one.

    Returns:
        nbval's report on every cell that differs.
    """
    reference = IPyNbFile.from_parent(session, path=committed)
    reference.compare_outputs = False  # only of tagged cells, as --nbval-lax sets it
    reference.setup_sanitize_files()
    pairs = list(zip(reference.collect(), code_cells(executed), strict=True))
    assert [cell.cell.source for cell, _ in pairs] == [run.source for _, run in pairs]
    tagged = [(cell, run) for cell, run in pairs if cell.options["check"]]
    reports = []
    for (cell, run), text in zip(tagged, texts or [None] * len(tagged), strict=True):
        expected = coalesce_streams(cell.cell.outputs)
        if text is not None:
            (output,) = expected
            if output.output_type == "stream":
                output.text = text + "\n"
            else:
                output.data = nbformat.NotebookNode({"text/plain": text})
        if not cell.compare_outputs(coalesce_streams(run.outputs), expected):
            reports.append("\n".join([f"cell {cell.cell_num}: {cell.cell.source}", *cell.comparison_traceback]))
    return reports
