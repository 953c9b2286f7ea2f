"""``wsolnb report``: runs as pages that stay interactive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report_command(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUNS...]", help="Folders of runs, or above them. Default: runs.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write to.")] = Path("report"),
    theme: Annotated[str, typer.Option(help="light or dark.")] = "light",
) -> None:
    """Turn runs into pages that stay interactive without a kernel or a network, with an index and one table."""
    from wsolnb.runs.report.report import report

    index = report(runs or [Path("runs")], out, theme=theme)
    for label, name in (("index", index.name), ("results", "results.csv"), ("verdicts", "verdicts.md")):
        typer.echo(f"{label:<8}  {index.parent / name}")
