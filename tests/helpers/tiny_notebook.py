"""A notebook of a second, with a number, a seed and a folder as parameters, for tests of the commands that run many."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

PARAMETERS = """\
n: int = 1  # a number
seed: int = 0  # of everything
out: str = ""
"""


def write_tiny_notebook(folder: Path, work: str) -> Path:
    """Write `tiny.ipynb`: the parameters, and a cell that does the work."""
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), new_code_cell(work)]
    nbformat.write(new_notebook(cells=cells), folder / "tiny.ipynb")
    return folder / "tiny.ipynb"
