"""``wsolnb sweep``: a run for every combination of parameters, with a table of their states."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsolnb.cli.options import Cluster, Jobs, Out, Parameters, Source

if TYPE_CHECKING:
    from rich.table import Table

    from wsolnb.runs.sweep import Outcome, Sweep


def sweep_command(
    source: Source,
    grid: Annotated[Path, typer.Option(metavar="FILE.yaml", help="Parameters; those with a list of values vary.")],
    jobs: Jobs = 0,
    cluster: Cluster = "",
    recipe: Annotated[str | None, typer.Option(help="A recipe of the paper, or a YAML file, under the grid.")] = None,
    parameters: Parameters = None,
    name: Annotated[str | None, typer.Option(help="Name of the sweep. Default: that of the grid's file.")] = None,
    out: Out = Path("runs"),
) -> None:
    """Run a notebook for every combination of parameters, in runs/KEY/NAME/. Given again, it goes on."""
    from wsolnb.runs.folder import require_name
    from wsolnb.runs.sweep import Sweep, read_grid

    if name is not None:
        require_name(name)
    points = read_grid(source, grid, recipe=recipe, given=dict(pair.split("=", 1) for pair in parameters or []))
    sweep = Sweep(points, out / points[0].run.key / (name or grid.stem))
    run_and_show(sweep, lambda: sweep.run(jobs=jobs, cluster=cluster))
    typer.echo(f"results     {sweep.folder / 'results.csv'}")


def run_and_show(sweep: Sweep, run: Callable[[], dict[str, Outcome]]) -> None:
    """Run a sweep with its states on the screen, and leave with an exit code if it is stopped or a run fails."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    total = len(sweep.points)
    try:
        with _shown(sweep):
            outcomes = run()
    except KeyboardInterrupt:
        done = sum(outcome.state == "done" for outcome in sweep.outcomes().values())
        message = f"stopped; {done} of {total} runs are done: give the same command again to go on"
        typer.secho(message, fg="red", err=True)
        raise typer.Exit(130) from None
    except ImportError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(2) from None
    failed = {label: outcome for label, outcome in outcomes.items() if outcome.state != "done"}
    typer.secho(f"{total - len(failed)} of {total} runs done", fg=None if failed else "green")
    for label, outcome in failed.items():
        why = outcome.error or "its worker died, twice"
        typer.secho(f"failed: {label}: {why}", fg="red", err=True)
    if failed:
        raise typer.Exit(1)


@contextmanager
def _shown(sweep: Sweep) -> Iterator[None]:
    """Show the states of a sweep, read twice a second: a table on a terminal, elsewhere a line for every change."""
    from rich.live import Live

    states = {name: outcome.state for name, outcome in sweep.outcomes().items()}
    before = frozenset(name for name, state in states.items() if state == "done")
    started = time.time()
    if already := list(states.values()).count("done"):
        typer.echo(f"{already} of {len(states)} runs are done already")
    live = Live(auto_refresh=False) if sys.stdout.isatty() else None

    def show() -> None:
        outcomes = sweep.outcomes()
        if live:
            live.update(table(sweep, outcomes, live.console.height - 6, _left(outcomes, before, started)), refresh=True)
            return
        done = sum(outcome.state == "done" for outcome in outcomes.values())
        for name, outcome in outcomes.items():
            if outcome.state not in (states[name], "waiting"):
                left = _left(outcomes, before, started) if outcome.state == "done" else ""
                typer.echo(f"[{done}/{len(outcomes)}] {outcome.state:<8} {name} {_duration(outcome)}{left}".rstrip())
            states[name] = outcome.state

    def show_regularly() -> None:
        while not stop.wait(0.5):
            show()

    stop, thread = threading.Event(), threading.Thread(target=show_regularly, daemon=True)
    with live or nullcontext():
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            show()


_COLOURS = {"running": "yellow", "failed": "red", "waiting": "dim", "done": "green"}


def table(sweep: Sweep, outcomes: Mapping[str, Outcome], rows: int, left: str = "") -> Table:
    """A table of the runs; if there are more than ``rows``, those that run or failed. The caption counts all."""
    from rich.table import Table

    order = list(_COLOURS)
    first = sorted(sweep.points, key=lambda point: order.index(outcomes[point.name].state))[: max(1, rows)]
    counts: Counter[str] = Counter(outcome.state for outcome in outcomes.values())
    caption = ", ".join(f"{counts[state]} {state}" for state in reversed(order) if counts[state])
    result = Table(title=sweep.folder.name, caption=caption + left)
    for heading in (*sweep.points[0].varied, "state", "cell", "time"):
        result.add_column(heading, no_wrap=True)
    for point in sweep.points:
        if point in first:
            outcome = outcomes[point.name]
            note = outcome.progress or outcome.error.partition("\n")[0]
            values = map(str, point.varied.values())
            result.add_row(*values, outcome.state, note, _duration(outcome), style=_COLOURS[outcome.state])
    return result


def _left(outcomes: Mapping[str, Outcome], before: frozenset[str], started: float) -> str:
    """About how long the runs that are missing will take, at the rate of those that ended since ``started``."""
    ended = sum(outcome.state in ("done", "failed") for name, outcome in outcomes.items() if name not in before)
    missing = len(outcomes) - len(before) - ended
    if not ended or not missing:
        return ""
    minutes = (time.time() - started) / ended * missing / 60
    return f", about {minutes:.0f} min left" if minutes >= 1.5 else f", about {60 * minutes:.0f} s left"


def _duration(outcome: Outcome) -> str:
    seconds = time.time() - outcome.since if outcome.state == "running" else outcome.seconds
    return f"{seconds:.0f} s" if outcome.state != "waiting" else ""
