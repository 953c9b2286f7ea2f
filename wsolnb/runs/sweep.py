"""Sweeps: one run of a notebook for every combination of parameters, in parallel over joblib, resumable.

A sweep is a folder. A run works in ``.attempts/`` and is moved to its place when it has ended, in one step, so what
stands there is whole and stands there once, whoever was killed and whoever ran it twice.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
import socket
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from filelock import FileLock, Timeout

from wsolnb.runs.parameters import read_recipe
from wsolnb.runs.run import Wanted, resolve
from wsolnb.runs.workers import Backend, one_gpu, pool, thread_caps

if TYPE_CHECKING:
    import pandas as pd


ATTEMPTS, LOG, STATUS = ".attempts", "log.txt", "status.json"
_TRIES = 2


@dataclass(frozen=True)
class Point:
    """One combination of parameters.

    Attributes:
        name: Name of its folder: what varies, and a fingerprint of all parameters.
        varied: The parameters that vary in the sweep.
        wanted: The run.
    """

    name: str
    varied: dict[str, Any]
    wanted: Wanted


@dataclass(frozen=True)
class Outcome:
    """How a point stands.

    Attributes:
        state: ``waiting``, ``running``, ``done`` or ``failed``.
        seconds: How long the run took.
        error: Why it failed.
        progress: The cell that runs, such as ``[3/9] Training``.
        since: When a running one started, seconds since 1970.
    """

    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    seconds: float = 0.0
    error: str = ""
    progress: str = ""
    since: float = 0.0


def read_grid(
    source: str, grid: str | Path, *, recipe: str | None = None, given: Mapping[str, object] | None = None
) -> list[Point]:
    """Read a grid and check every combination against the parameters of the notebook, before anything runs.

    Args:
        source: Key of a paper, or path of a notebook.
        grid: YAML file of parameters. A list varies the parameter; anything else sets it. A parameter that is a list
            itself is varied by a list of lists.
        recipe: Recipe under the grid.
        given: Parameters that are set besides, as on a command line.

    Returns:
        The points, the last parameter of the file varying fastest.

    Raises:
        ValueError: If a name is not known or a value does not fit, a list is empty or holds a value twice, or a
            parameter that varies is also given.
        FileNotFoundError: If there is no such file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     grid = Path(folder, "grid.yaml")
        ...     _ = grid.write_text("{epochs: 2, seed: [0, 1]}")
        ...     points = read_grid("barz2022", grid, recipe="smoke")
        >>> [(point.varied, point.wanted.resolved["epochs"]) for point in points]
        [({'seed': 0}, 2), ({'seed': 1}, 2)]
    """
    values = read_recipe(grid)
    types = resolve(source, recipe=recipe).resolved
    axes: dict[str, list[Any]] = {}
    for name, value in values.items():
        if not isinstance(value, list):
            continue
        if isinstance(types.get(name), list) and not any(isinstance(item, list) for item in value):
            continue
        if not value:
            raise ValueError(f"{grid}: {name} has no values to vary")
        if given and name in given:
            raise ValueError(f"{name} varies in {grid}: take it out of there or do not give it with -p")
        axes[name] = value
    fixed = {name: value for name, value in values.items() if name not in axes} | dict(given or {})
    points = []
    for combination in itertools.product(*axes.values()):
        wanted = resolve(source, fixed | dict(zip(axes, combination, strict=True)), recipe=recipe)
        varied = {name: wanted.resolved[name] for name in axes}
        points.append(Point(_name(varied, wanted), varied, wanted))
    twice = [name for name, times in Counter(point.name for point in points).items() if times > 1]
    if twice:
        raise ValueError(f"{grid}: a value stands twice, so that these runs would be the same: {', '.join(twice)}")
    return points


def _name(varied: Mapping[str, Any], wanted: Wanted) -> str:
    text = json.dumps([wanted.key, wanted.resolved], sort_keys=True, ensure_ascii=False)
    shown = "_".join(f"{name}-{value}" for name, value in varied.items()) or "run"
    slug = re.sub(r"[^\w.+-]+", "-", shown, flags=re.ASCII).lstrip("-.+")[:80]
    return f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


class Sweep:
    """The points of a sweep in their folder; may be asked how they stand while they run.

    Args:
        points: What :func:`read_grid` gave.
        folder: Where its runs are kept; may hold some of them already.

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
        """How every point stands, by its name, read from the folder."""
        running: dict[str, Outcome] = {}
        for folder in self.folder.glob(f"{ATTEMPTS}/*@*"):
            try:
                since = (folder / "parameters.yaml").stat().st_mtime
                name = folder.name.partition("@")[0]
                if name not in running or since > running[name].since:
                    running[name] = Outcome("running", progress=_last_cell(folder / LOG), since=since)
            except FileNotFoundError:  # it has not begun, or has just ended
                continue
        places = self._places()
        return {point.name: running.get(point.name) or _ended(places[point.name]) for point in self.points}

    def _places(self) -> dict[str, Path]:
        """Folders of the points: those with runs of the same parameters, whatever varied then, or new ones."""
        there = {path.name.rpartition("-")[2]: path for path in self.folder.glob("*-*")}
        return {point.name: there.get(point.name.rpartition("-")[2], self.folder / point.name) for point in self.points}

    def run(self, *, jobs: int = 0, backend: Backend = "loky", address: str = "") -> dict[str, Outcome]:
        """Run every point that is not done, failed ones once more at the end, and collect all in ``results.csv``.

        Args:
            jobs: How many at a time; 0: one per GPU, or where there is none one per two cores. On a cluster that is
                there already, its workers decide.
            backend: ``loky`` (processes of this machine), ``dask`` or ``ray``.
            address: ``HOST:PORT`` of a scheduler of Dask or Ray. Its workers must see the same folders.

        Returns:
            The outcome of every point by its name.

        Raises:
            BlockingIOError: If another sweep works in the folder.
            ValueError: If the backend cannot do what is asked.
            ModuleNotFoundError: If the backend is not installed.
            ConnectionError: If no scheduler answers, or workers stop before a run begins.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                shutil.rmtree(self.folder / ATTEMPTS, ignore_errors=True)  # of a sweep that was killed
                self._write_grid()
                try:
                    with pool(backend, address, jobs) as (at_once, share):
                        self._run(at_once, share)
                finally:
                    shutil.rmtree(self.folder / ATTEMPTS, ignore_errors=True)
                    self.collect()
        except Timeout:
            raise BlockingIOError(f"another sweep works in {self.folder}: wait for it, or give another name") from None
        return self.outcomes()

    def _run(self, at_once: int, share: int) -> None:
        import joblib

        places = self._places()
        tries = {name: 0 for name, place in places.items() if _ended(place).state != "done"}
        while left := [point for point in self.points if tries.get(point.name, _TRIES) < _TRIES]:
            jobs = [
                joblib.delayed(attempt)(point, self.folder, places[point.name], share, Path.cwd()) for point in left
            ]
            broken: Exception | None = None
            try:
                joblib.Parallel(n_jobs=at_once, batch_size=1, pre_dispatch="all")(jobs)
            except Exception as error:  # an attempt raises nothing: the workers themselves are gone
                broken = error
            began = {path.name.partition("@")[0] for path in self.folder.glob(f"{ATTEMPTS}/*@*")}
            shutil.rmtree(self.folder / ATTEMPTS, ignore_errors=True)
            before = dict(tries)
            for point in left:
                if _ended(places[point.name]).state == "done":
                    del tries[point.name]
                elif broken is None or point.name in began or _ended(places[point.name]).state == "failed":
                    tries[point.name] += 1
            if broken is not None and tries == before:
                raise ConnectionError(f"the workers stopped before a run began: {broken}") from broken

    def _write_grid(self) -> None:
        text = yaml.safe_dump({point.name: point.varied for point in self.points}, sort_keys=False, allow_unicode=True)
        (self.folder / "points.yaml").write_text(text, encoding="utf-8")

    def collect(self) -> pd.DataFrame:
        """Write the metrics of every run in the folder that is done to ``results.csv``, with its parameters.

        Returns:
            The table, as :func:`wsolnb.runs.record.load_runs` gives it.
        """
        from wsolnb.runs.record import load_runs

        table = load_runs(self.folder)
        done = {path.parent.name for path in self.folder.glob(f"*/{STATUS}") if _ended(path.parent).state == "done"}
        table = table[table.run.isin(done)].reset_index(drop=True)
        partial = self.folder / "results.csv.part"
        table.to_csv(partial, index=False)
        partial.replace(self.folder / "results.csv")
        return table


def attempt(point: Point, sweep: Path, place: Path, share: int, where: Path) -> None:
    """Run a point once, on whatever worker this is, and put what it left to its place. Failures are kept there.

    Args:
        point: The point.
        sweep: Folder of the sweep.
        place: Where its run belongs.
        share: How many runs share this machine's cores.
        where: Working directory of the kernel.

    Example:
        >>> sweep = Path("sweeps/seeds")
        >>> attempt(point, sweep, sweep / point.name, 1, Path.cwd())  # doctest: +SKIP
    """
    from wsolnb.runs.run import execute

    folder = sweep / ATTEMPTS / f"{point.name}@{uuid.uuid4().hex[:8]}"
    started, error = time.time(), ""
    try:
        folder.mkdir(parents=True)
        with one_gpu(point.wanted.resolved) as gpu:
            own, started = thread_caps(share) | gpu, time.time()
            execute(point.wanted, folder, log=folder / LOG, environment=own, where=where if where.is_dir() else None)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except Exception as failure:
        error = str(failure) or repr(failure)
    status = {"state": "failed" if error else "done", "seconds": round(time.time() - started, 1), "error": error}
    try:
        (folder / STATUS).write_text(json.dumps({**status, "host": socket.gethostname()}), encoding="utf-8")
        _publish(folder, place)
    except OSError:  # the sweep was given up and its folder cleared
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, place: Path) -> None:
    """Move a run to its place, unless the same run is done there already; a failed one makes room."""
    if _ended(place).state == "failed":
        old = folder.with_name(f"old-{folder.name}")
        place.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    if _ended(place).state == "done":
        shutil.rmtree(folder)
    else:
        folder.rename(place)  # fails where another was faster


def _ended(place: Path) -> Outcome:
    try:
        said = json.loads((place / STATUS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Outcome()
    return Outcome(said["state"], said["seconds"], said["error"])


def _last_cell(log: Path) -> str:
    cells = re.findall(r"^\[ *\d+/\d+\].*", log.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return cells[-1] if cells else ""
