"""Sweeps: one run of a notebook for every combination of parameters, in parallel, resumable.

A sweep is a folder. A run works in ``.attempts/`` and is renamed to its final folder when it has ended. The renaming is
atomic, so whatever was killed or ran twice, a final folder is complete and exists once. A run whose attempt is removed
is interrupted, wherever it runs.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from filelock import FileLock, Timeout

from wsolnb._utils.files import write_atomic
from wsolnb.runs.parameters import read_recipe
from wsolnb.runs.run import ResolvedRun, execute, resolve
from wsolnb.runs.workers import CallAll, one_gpu, stop_without, thread_caps, worker_pool

ATTEMPTS, LOG, STATUS = ".attempts", "log.txt", "status.json"
_TRIES = 2


@dataclass(frozen=True)
class Point:
    """One combination of parameters."""

    name: str  # of its folder: the values that vary, and a hash of all parameters
    varied: dict[str, Any]  # the parameters that vary in the sweep
    run: ResolvedRun

    @classmethod
    def of(cls, run: ResolvedRun, names: Iterable[str]) -> Point:
        """The point of a run in a sweep over the parameters of the given names."""
        varied = {name: run.parameters[name] for name in names}
        text = json.dumps([run.key, run.parameters], sort_keys=True, ensure_ascii=False)
        shown = "_".join(f"{name}-{value}" for name, value in varied.items()) or "run"
        slug = re.sub(r"[^\w.+-]+", "-", shown, flags=re.ASCII).lstrip("-.+")[:80]
        return cls(f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:10]}", varied, run)


@dataclass(frozen=True)
class Outcome:
    """The state of a point."""

    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    seconds: float = 0.0  # duration of a run that ended
    error: str = ""  # why it failed
    progress: str = ""  # the running cell, such as "[3/9] Training"
    since: float = 0.0  # when a running one started, in seconds since 1970


def read_grid(
    source: str, grid: str | Path, *, recipe: str | None = None, given: Mapping[str, object] | None = None
) -> list[Point]:
    """Read a grid and check every combination against the parameters of the notebook, before anything runs.

    The grid is a YAML file of parameters, which overrides the recipe. A list varies the parameter (the last one
    fastest), anything else sets it; a parameter that is itself a list is varied by a list of lists. Parameters that are
    ``given``, as on a command line, are those of all runs.

    Raises:
        ValueError: If a name is unknown or a value does not fit, a list is empty or repeats a value, or a parameter
            that varies is also given.
        FileNotFoundError: If there is no such file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     grid = Path(folder, "grid.yaml")
        ...     _ = grid.write_text("{epochs: 2, seed: [0, 1]}")
        ...     points = read_grid("barz2022", grid, recipe="smoke")
        >>> [(point.varied, point.run.parameters["epochs"]) for point in points]
        [({'seed': 0}, 2), ({'seed': 1}, 2)]
    """
    values = read_recipe(grid)
    defaults = resolve(source, recipe=recipe).parameters
    axes: dict[str, list[Any]] = {}
    for name, value in values.items():
        of_lists = isinstance(defaults.get(name), list)
        if not isinstance(value, list) or (of_lists and not any(isinstance(item, list) for item in value)):
            continue
        if not value:
            raise ValueError(f"{grid}: {name} has no values to vary")
        if given and name in given:
            raise ValueError(f"{name} varies in {grid}: take it out of there or do not give it with -p")
        axes[name] = value
    fixed = {name: value for name, value in values.items() if name not in axes} | dict(given or {})
    points = []
    for combination in itertools.product(*axes.values()):
        points.append(Point.of(resolve(source, fixed | dict(zip(axes, combination, strict=True)), recipe=recipe), axes))
    if repeated := [name for name, count in Counter(point.name for point in points).items() if count > 1]:
        raise ValueError(f"{grid}: a value is repeated, so these runs would be the same: {', '.join(repeated)}")
    return points


class Sweep:
    """The points of a sweep and the folder of their runs, which may hold some of them already.

    Example:
        >>> point = Point("seed-1-0a1b2c3d4e", {"seed": 1}, resolve("barz2022", {"seed": 1}, recipe="smoke"))
        >>> Sweep([point], "no/such/folder").outcomes()["seed-1-0a1b2c3d4e"].state
        'waiting'
        >>> Sweep([point], "sweeps/seeds").run(jobs=2)  # doctest: +SKIP
        {'seed-1-0a1b2c3d4e': Outcome(state='done', seconds=41.5, error='', progress='', since=0.0)}
    """

    def __init__(self, points: Sequence[Point], folder: str | Path) -> None:
        self.points = list(points)
        self.folder = Path(folder).resolve()

    def outcomes(self) -> dict[str, Outcome]:
        """The states of all points by name, read from the folder."""
        running: dict[str, Outcome] = {}
        for folder in self.folder.glob(f"{ATTEMPTS}/*@*"):
            try:
                since = (folder / "parameters.yaml").stat().st_mtime
                name = folder.name.partition("@")[0]
                if name not in running or since > running[name].since:
                    running[name] = Outcome("running", progress=_last_cell(folder / LOG), since=since)
            except FileNotFoundError:  # it has not started, or has just ended
                continue
        folders = self.run_folders()
        return {point.name: running.get(point.name) or _ended(folders[point.name]) for point in self.points}

    def run_folders(self) -> dict[str, Path]:
        """The final folder of every point; one of the same hash, if there is one, whatever varied in that sweep."""
        hashed = {path.name.rpartition("-")[2]: path for path in self.folder.glob("*-*")}
        names = [point.name for point in self.points]
        return {name: hashed.get(name.rpartition("-")[2], self.folder / name) for name in names}

    def run(self, *, jobs: int = 0, cluster: str = "") -> dict[str, Outcome]:
        """Run every point that is not done, retry failed ones once, and collect all metrics in ``results.csv``.

        Args:
            jobs: How many at a time on this machine; 0 for one per GPU or, without GPUs, one per two cores.
            cluster: Or the address of a Dask scheduler, such as ``tcp://node1:8786``. A worker takes a run per thread,
                and shares environment, cache and folder with this process.

        Raises:
            BlockingIOError: If another process runs a sweep in the folder.
            ModuleNotFoundError: If Dask is not installed.
            ConnectionError: If no scheduler answers or it has no worker, a worker runs in another environment, or
                workers stop before a run begins.
            FileNotFoundError: If a worker does not see the sweep's folder, or the cache.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                self._clear_attempts()  # of a sweep that was killed
                varied = {point.name: point.varied for point in self.points}
                text = yaml.safe_dump(varied, sort_keys=False, allow_unicode=True)
                write_atomic(self.folder / "points.yaml", text.encode())
                try:
                    with worker_pool(jobs, cluster, self.folder) as (call_all, sharing, variables):
                        self._run(call_all, (sharing, Path.cwd(), variables, 0 if cluster else os.getpid()))
                finally:
                    self._clear_attempts()
                    self._collect()
        except Timeout:
            raise BlockingIOError(f"another sweep works in {self.folder}: wait for it, or give another name") from None
        return self.outcomes()

    def _clear_attempts(self) -> None:
        """Remove all attempts at once, so that runs which go on elsewhere notice, and then their files."""
        with suppress(OSError):  # there are none, or a system does not rename what is open
            (self.folder / ATTEMPTS).rename(self.folder / f"{ATTEMPTS}.{uuid.uuid4().hex[:8]}")
        for removed in self.folder.glob(f"{ATTEMPTS}*"):
            shutil.rmtree(removed, ignore_errors=True)

    def _run(self, call_all: CallAll, where: tuple[Any, ...]) -> None:
        folders = self.run_folders()
        tries = {name: 0 for name, folder in folders.items() if _ended(folder).state != "done"}
        while remaining := [point for point in self.points if tries.get(point.name, _TRIES) < _TRIES]:
            (self.folder / ATTEMPTS).mkdir(exist_ok=True)
            broken: Exception | None = None
            try:
                call_all(_attempt, [(point, self.folder, folders[point.name], *where) for point in remaining])
            except Exception as error:  # _attempt() raises nothing: the workers themselves died
                broken = error
            started = {path.name.partition("@")[0] for path in self.folder.glob(f"{ATTEMPTS}/*@*")}
            self._clear_attempts()
            # When a worker died, a point that had not started does not lose one of its tries.
            before = dict(tries)
            for point in remaining:
                state = _ended(folders[point.name]).state
                if state == "done":
                    del tries[point.name]
                elif point.name in started or state == "failed":
                    tries[point.name] += 1
            if tries == before:
                why = broken or f"see that they can write to {self.folder}"
                raise ConnectionError(f"the workers stopped before a run began: {why}") from broken

    def _collect(self) -> None:
        """Write the metrics and parameters of all runs in the folder that are done to ``results.csv``."""
        from wsolnb.runs.record import load_runs

        table = load_runs(self.folder)
        done = {path.parent.name for path in self.folder.glob(f"*/{STATUS}") if _ended(path.parent).state == "done"}
        table = table[table.run.isin(done)].reset_index(drop=True)
        write_atomic(self.folder / "results.csv", table.to_csv(index=False).encode())


def _attempt(
    point: Point,
    sweep: Path,
    run_folder: Path,
    per_machine: int,
    cwd: Path,
    variables: Mapping[str, str],
    parent: int = 0,
) -> None:
    """Run a point once and move the result or the failure to its final folder; this is what a worker executes.

    The cores of the worker's machine are shared by ``per_machine`` runs; the kernel works in ``cwd`` if it exists, with
    these environment variables. The worker stops when the process ``parent`` is gone.
    """
    if parent:
        stop_without(parent)
    if _ended(run_folder).state == "done":  # Dask calls again what a worker that is lost had done
        return
    folder = sweep / ATTEMPTS / f"{point.name}@{uuid.uuid4().hex[:8]}"
    started, error = time.time(), ""
    try:
        folder.mkdir()
        with one_gpu(point.run.parameters) as gpu:
            variables, started = {**variables, **thread_caps(per_machine), **gpu}, time.time()
            execute(point.run, folder, log=folder / LOG, environment=variables, cwd=cwd if cwd.is_dir() else None)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        if parent:
            stop_without(parent)
        raise
    except Exception as failure:
        error = str(failure) or repr(failure)
    status = {"state": "failed" if error else "done", "seconds": round(time.time() - started, 1), "error": error}
    try:
        write_atomic(folder / STATUS, json.dumps({**status, "host": socket.gethostname()}).encode())
        _publish(folder, run_folder)
    except OSError:  # the sweep was stopped and its attempts were removed, or are not seen from here
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, run_folder: Path) -> None:
    """Rename an attempt to its final folder, replacing a failed one, unless the run is done already."""
    if _ended(run_folder).state == "failed":
        old = folder.with_name(f"old-{folder.name}")
        run_folder.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    if _ended(run_folder).state == "done":
        shutil.rmtree(folder)
    else:
        folder.rename(run_folder)  # raises if another worker was faster


def _ended(run_folder: Path) -> Outcome:
    """How a run ended; if its status is damaged, it is done if it recorded its results, which it does at its end."""
    path = run_folder / STATUS
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
        state, seconds, error = status["state"], float(status["seconds"]), str(status["error"])
        if state not in ("done", "failed"):
            raise ValueError(f"its state is {state!r}")
    except FileNotFoundError:
        return Outcome()
    except (ValueError, KeyError, TypeError) as damage:
        if (run_folder / "metrics.json").is_file():
            return Outcome("done")
        return Outcome("failed", error=f"{path} is damaged ({damage}), and there are no results: it runs again")
    return Outcome(state, seconds, error)


def _last_cell(log: Path) -> str:
    cells = re.findall(r"^\[ *\d+/\d+\].*", log.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return cells[-1] if cells else ""
