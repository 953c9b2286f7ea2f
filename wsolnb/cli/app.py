"""The command line.

A command imports what it needs inside its function, so that help pages load neither torch nor pandas.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from wsolnb import __version__
from wsolnb.cli.data import data_app
from wsolnb.cli.evaluate import eval_command
from wsolnb.cli.fit import fit_command
from wsolnb.cli.localize import localize_command
from wsolnb.cli.options import Source
from wsolnb.cli.study import study_command
from wsolnb.cli.sweep import sweep_command

NOTEBOOKS = {
    "IPython", "anywidget", "bleach", "ipywidgets", "joblib", "jupyter_client", "jupyterlab", "latex2mathml",
    "matplotlib_inline", "nbclient", "nbconvert", "nbformat", "papermill", "traitlets",
}  # fmt: skip
"""What only the extra `notebooks` brings, as it is imported."""

_RUN_OPTIONS = ("-p", "--parameter")


class _Group(TyperGroup):
    """Prints errors that name a value or a file in one line, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, OSError) as error:
            message = str(error)
        except ImportError as error:
            message, missing = str(error), (error.name or "").partition(".")[0]
            if missing in NOTEBOOKS:
                message = f'`wsolnb {ctx.invoked_subcommand}` needs {missing}: pip install "wsolnb[notebooks]"'
            elif "wsolnb[" not in message:
                raise
        typer.secho(f"error: {message}", fg="red", err=True)
        raise typer.Exit(2)


class _PairsCommand(TyperCommand):
    """Joins ``-p NAME VALUE`` to ``-p NAME=VALUE``, because typer takes no repeated option with two values."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        joined: list[str] = []
        rest = iter(args)
        for arg in rest:
            joined.append(arg)
            if arg in _RUN_OPTIONS:
                name, value = next(rest, None), next(rest, None)
                if name is None or value is None:
                    raise typer.BadParameter(f"{arg} needs a NAME and a VALUE, not {name!r} alone", ctx)
                joined.append(f"{name}={value}")
        return super().parse_args(ctx, joined)


app = typer.Typer(
    cls=_Group,
    help="Weakly supervised object localization: five papers as notebooks that run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",  # joins the lines of a paragraph
)
app.add_typer(data_app, name="data")


def _version(requested: bool) -> None:
    if requested:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and stop.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command("run", cls=_PairsCommand)
def run_command(
    source: Source,
    parameters: Annotated[
        list[str] | None,
        typer.Option(*_RUN_OPTIONS, metavar="NAME VALUE", help="Set a parameter of the notebook. Repeatable."),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe of the paper, or a YAML file of parameters.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run's folder. Default: the recipe's, or 'default'.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    processes: Annotated[
        int,
        typer.Option(min=1, help="Processes that train together on this machine, each on a GPU of its own."),
    ] = 1,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only print what it would train: steps, memory, disk, and time by a few steps."),
    ] = False,
) -> None:
    """Run a paper's notebook; keep notebook, figures and metrics in runs/KEY/NAME/.

    There are then notebook.ipynb, executed; figures/, every figure as PNG; metrics.json and metrics.csv, the numbers
    with intervals over test images, the claims, parameters and package versions; and parameters.yaml, to repeat the run
    (papermill -f reads it too). A second run gets a folder of its own (default-2); nothing is overwritten.

    Each notebook has one cell of parameters. A name that it does not know is refused, and a value takes the type
    written there. A recipe is a file of parameters in papers/KEY/, at the scale of the paper.

    On Ctrl-C or SIGTERM a training saves within its epoch, and the same command goes on there, in the same folder; a
    second signal kills. A training that was killed goes on from its last checkpoint. -p skip_broken True trains on
    another photo in place of one that does not decode, and counts it; -p cache_gb 50 keeps decoded photos on disk.
    WSOLNB_CACHE is the folder of trained weights, searches, labels of drawn scenes and those photos.

    Several GPUs of a machine: --processes N. Several machines: torchrun --no-python wsolnb run ..., and all need the
    same WSOLNB_CACHE (docs/many_machines.md). The processes share each batch, whose size is that of all together, and
    one folder is written.
    """
    from wsolnb.runs.processes import ProcessFailed, launch, this_process
    from wsolnb.runs.run import NOTEBOOK, RunFailed, Stopped, resolve, run

    started = time.monotonic()
    settings = dict(pair.split("=", 1) for pair in parameters or [])
    if dry_run:
        from wsolnb.runs.dry_run import describe
        from wsolnb.runs.trainings import budget

        for line in describe(budget(source, settings, recipe=recipe), processes=processes):
            typer.echo(line)
        return
    if processes > 1:
        resolve(source, settings, recipe=recipe)  # what is wrong is said once
        options = [part for pair in settings.items() for part in ("-p", *pair)]
        options += [part for key, value in (("--recipe", recipe), ("--name", name)) if value for part in (key, value)]
        try:
            stopped = launch(["run", source, *options, "--out", str(out)], processes)
        except ProcessFailed as failed:
            typer.secho(f"error: {failed}", fg="red", err=True)
            raise typer.Exit(1) from None
        raise typer.Exit(128 + stopped if stopped else 0)
    rank, world = this_process()
    who = f"process {rank} of {world}: " if world > 1 else ""
    try:
        folder = run(source, settings, recipe=recipe, name=name, root=out)
    except RunFailed as failure:
        typer.secho(f"error: {who}{failure}", fg="red", err=True)
        typer.secho(f"the notebook with the error: {failure.notebook}", err=True)
        raise typer.Exit(1) from None
    except Stopped as stop:
        if not rank:
            typer.secho(str(stop), fg="red", err=True)
            typer.secho(f"the notebook so far: {stop.notebook}", err=True)
        raise typer.Exit(128 + stop.number) from None
    except KeyboardInterrupt:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # or it reports the killed kernel
        typer.secho("killed; run the same again to go on from the last checkpoint", fg="red", err=True)
        raise typer.Exit(130) from None
    if rank:
        return
    typer.secho(f"done in {time.monotonic() - started:.0f} s", fg="green")
    for file in (NOTEBOOK, "figures", "metrics.json", "models", "parameters.yaml"):
        if (folder / file).exists():
            typer.echo(f"{Path(file).stem:<10}  {folder / file}")


app.command("study", cls=_PairsCommand)(study_command)
app.command("sweep", cls=_PairsCommand)(sweep_command)


@app.command("papers")
def papers_command() -> None:
    """List the papers of the suite with their recipes."""
    from wsolnb.runs.paper import Paper, paper_keys

    for key in paper_keys():
        paper = Paper(key)
        typer.secho(key, bold=True)
        typer.echo(f"  {', '.join(paper.authors)} ({paper.year}): {paper.title}")
        typer.echo(f"  notebook  {paper.notebook}\n  recipes   {', '.join(paper.recipes())}")


@app.command("lab")
def lab_command() -> None:
    """Open the notebooks in JupyterLab."""
    from importlib.util import find_spec

    from wsolnb.runs.paper import suite_folder

    if find_spec("jupyterlab") is None:
        raise ModuleNotFoundError("no JupyterLab", name="jupyterlab")
    notebooks = suite_folder() / "notebooks"
    raise typer.Exit(subprocess.run([sys.executable, "-m", "jupyterlab", str(notebooks)]).returncode)


@app.command("report")
def report_command(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUNS...]", help="Folders of runs, or above them. Default: runs.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write to.")] = Path("report"),
    theme: Annotated[str, typer.Option(help="light or dark.")] = "light",
    board: Annotated[
        Path | None,
        typer.Option(metavar="FILE.md", help="Only write the board of verdicts from the committed studies."),
    ] = None,
) -> None:
    """Turn runs into pages that stay interactive without a kernel or a network, with an index and one table."""
    if board:
        from wsolnb.runs.board import write_board

        write_board(board)
        typer.echo(f"verdicts  {board}")
        return
    from wsolnb.runs.report.report import report

    def say(line: str) -> None:
        typer.secho(line, fg="red", err=True)

    index = report(runs or [Path("runs")], out, theme=theme, say=say)
    for label, name in (("index", index.name), ("results", "results.csv")):
        typer.echo(f"{label:<8}  {index.parent / name}")


app.command("eval")(eval_command)
app.command("fit")(fit_command)
app.command("localize")(localize_command)
