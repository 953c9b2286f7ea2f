"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[str, typer.Argument(metavar="KEY", help="A paper (see `wsolnb papers`) or an .ipynb file.")]
Jobs = Annotated[int, typer.Option(min=0, help="Runs at a time. 0: one per GPU, or without one, one per two cores.")]
Cluster = Annotated[
    str,
    typer.Option(
        metavar="tcp://HOST:PORT",
        help="Scheduler of a Dask cluster: its workers do the runs, one per thread, whatever --jobs says. All share "
        "the environment, WSOLNB_CACHE and the folder.",
    ),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("-p", "--parameter", metavar="NAME VALUE", help="Set a parameter of all runs. Repeatable."),
]
Out = Annotated[Path, typer.Option(help="Where runs are kept.")]
