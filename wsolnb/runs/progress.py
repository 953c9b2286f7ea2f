"""Progress of a notebook that runs without a browser: its cells and what they print."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Self, TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


def count_cells(notebook: Path) -> int:
    """Number of code cells of a notebook that are not empty.

    Example:
        >>> from wsolnb.runs.paper import Paper
        >>> count_cells(Paper("barz2022").notebook) > 10
        True
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]  # nbformat takes over a second to import
    return sum(cell["cell_type"] == "code" and bool("".join(cell["source"]).strip()) for cell in cells)


class CellProgress:
    r"""A progress bar over the cells on a terminal, elsewhere a plain line per cell; with what cells print in between.

    It has the methods that nbclient calls (``on_cell_start``, ``on_cell_execute``), and stands in for the file that
    papermill writes the cells' output to. Of ``total`` code cells, the plain lines go to the file ``log``, by default
    standard output.

    Example:
        >>> with CellProgress(12) as progress:
        ...     progress.write("loss 0.31\rloss 0.27")
        loss 0.27
    """

    def __init__(self, total: int, log: TextIO | None = None) -> None:
        self.cell = ""  # the running cell, such as "cell 3 (Training)"
        self._log = log
        self._total = total
        self._done = 0
        self._section = ""
        self._line = ""
        self._bar: Progress | None = None
        if log is None and sys.stdout.isatty():
            columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, TextColumn("{task.description}"), transient=True)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
            self._bar.add_task("starting the kernel", total=self._total)
        return self

    def __exit__(self, *error: object) -> None:
        if self._line:
            self.write("\n")
        if self._bar:
            self._bar.stop()

    def on_cell_start(self, cell: Any, cell_index: int) -> None:
        """Note the section that a cell of any kind belongs to."""
        if cell.cell_type == "markdown" and (heading := re.match(r"#+ +(.*)", cell.source.lstrip())):
            self._section = heading[1].strip()

    def on_cell_execute(self, cell: Any, cell_index: int) -> None:
        """Show that a code cell starts."""
        if self._line:
            self.write("\n")
        self._done += 1
        self.cell = f"cell {self._done}" + (f" ({self._section})" if self._section else "")
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=self._done - 1, description=self._section)
        else:
            line = f"[{self._done:>{len(str(self._total))}}/{self._total}] {self._section}"
            print(line.rstrip(), file=self._log, flush=True)

    def write(self, text: str) -> None:
        """Show whole lines of what a cell prints; of a line that is rewritten in place, its last state."""
        *lines, self._line = (self._line + text).split("\n")
        for line in (line.rstrip("\r").rpartition("\r")[2] for line in lines):
            if self._bar:
                self._bar.console.print(line, markup=False, highlight=False)
            else:
                print(line, file=self._log, flush=True)

    def flush(self) -> None:
        """Do nothing: a line is shown when it ends."""
