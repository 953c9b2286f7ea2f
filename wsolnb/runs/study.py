"""Studies: one notebook on many fresh seeds, and what it measured with each, as the table that verdicts are taken from.

Chance decides where a training ends: its data, first weights and order follow from the seed. So a conclusion needs many
trainings. Seeds below 100 are for choosing settings, those from 100 on for studies, and nothing is chosen on them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from wsolnb._utils.files import write_atomic
from wsolnb.runs.folder import PARAMETERS
from wsolnb.runs.paper import Paper
from wsolnb.runs.run import resolve
from wsolnb.runs.sweep import Outcome, Point, Sweep

if TYPE_CHECKING:
    import pandas as pd

FIRST_SEED = 100
COLUMNS = ["seed", "method", "metric", "value"]
STUDY, ABOUT = "study.csv", "study.json"


class Study:
    """A notebook on given seeds, in a folder that may hold some of its runs already.

    Raises:
        ValueError: If a seed is below 100 or repeated, the notebook has no parameter ``seed`` or it is also given, or
            as in :func:`wsolnb.runs.run.resolve`.

    Example:
        >>> study = Study("primer", range(100, 108), "runs/primer/study", recipe="smoke")
        >>> [point.varied["seed"] for point in study.sweep.points][:3]
        [100, 101, 102]
        >>> study.run(jobs=2)  # doctest: +SKIP
        {'seed-100-9f0c62bd1a': Outcome(state='done', seconds=51.5, error='', progress='', since=0.0), ...}
    """

    def __init__(
        self,
        source: str,
        seeds: Sequence[int],
        folder: str | Path,
        *,
        recipe: str | None = None,
        given: Mapping[str, object] | None = None,
    ) -> None:
        if not seeds or min(seeds) < FIRST_SEED or len(set(seeds)) < len(seeds):
            raise ValueError(f"a study needs different seeds from {FIRST_SEED} on, not {list(seeds)}")
        if "seed" in (given or {}):
            raise ValueError("seed is what a study varies: say how many seeds, and the first one, not which")
        runs = [resolve(source, {**(given or {}), "seed": seed}, recipe=recipe) for seed in seeds]
        self.recipe = recipe
        self.parameters = {name: value for name, value in runs[0].parameters.items() if name != "seed"}
        self.sweep = Sweep([Point.of(run, ["seed"]) for run in runs], folder)

    def run(self, *, jobs: int = 0, cluster: str = "") -> dict[str, Outcome]:
        """Run the seeds that are not done, and write ``study.csv`` and ``study.json``; arguments and errors as a sweep.

        Raises:
            FileExistsError: If the folder holds a study with other parameters.
        """
        folder = self.sweep.folder
        folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(self.parameters, sort_keys=False, allow_unicode=True)
        before = folder / PARAMETERS
        if before.exists() and before.read_text(encoding="utf-8") != text:
            raise FileExistsError(f"{folder} holds a study with other parameters (see {before}): give another name")
        write_atomic(before, text.encode())
        try:
            return self.sweep.run(jobs=jobs, cluster=cluster)
        finally:
            self._write()

    def _write(self) -> None:
        """Write the results of all seeds that are done, each file at once."""
        import pandas as pd

        outcomes, folders = self.sweep.outcomes(), self.sweep.run_folders()
        rows: list[list[object]] = []
        runs: dict[int, dict[str, Any]] = {}
        intervals: dict[str, list[float]] = {}
        for point in self.sweep.points:
            seed = point.varied["seed"]
            if outcomes[point.name].state != "done":
                continue
            path = folders[point.name] / "metrics.json"
            try:
                measured, noise, run = _read(path)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                message = f"{path} is no record of a run, so seed {seed} is missing: {error!r}"
                warnings.warn(f"{message}; delete {path.parent} and give the command again", stacklevel=2)
                continue
            rows += [[seed, *row] for row in measured]
            for claim, width in noise:
                intervals.setdefault(claim, []).append(width)
            runs[seed] = run
        about = {
            "key": self.sweep.points[0].run.key,
            "recipe": self.recipe,
            "parameters": self.parameters,
            "seeds": sorted(runs),
            "missing": sorted({point.varied["seed"] for point in self.sweep.points} - set(runs)),
            # of each claim's difference, in its unit: the standard deviation behind the 95 % intervals over images
            "image_noise": {claim: sum(widths) / len(widths) / 3.92 for claim, widths in intervals.items()},
            "runs_on": _distinct(runs),
        }
        table = pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False)
        for name, text in ((STUDY, table), (ABOUT, json.dumps(about, indent=1, ensure_ascii=False) + "\n")):
            write_atomic(self.sweep.folder / name, text.encode())


def _read(path: Path) -> tuple[list[list[object]], list[tuple[str, float]], dict[str, Any]]:
    """What a run measured, the width of its interval for each claim, and under what it ran."""
    record = json.loads(path.read_text(encoding="utf-8"))
    measured = [[method, m, number["value"]] for method, row in record["metrics"].items() for m, number in row.items()]
    claims = [claim for claim in record["verdicts"] if claim["run_low"] is not None]
    run = {name: record[name] for name in ("revision", "device", "machine", "versions")}
    del run["machine"]["system"]  # the name of a kernel: neither rounding nor result hangs on it
    return measured, [(claim["claim"], claim["run_high"] - claim["run_low"]) for claim in claims], run


def _distinct(runs: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The different revisions, machines and versions under which the seeds ran, each with its seeds."""
    groups: dict[str, dict[str, Any]] = {}
    for seed, run in runs.items():
        groups.setdefault(json.dumps(run, sort_keys=True), {"seeds": [], **run})["seeds"].append(seed)
    return list(groups.values())


def read_study(path: Path) -> pd.DataFrame:
    """Read a ``study.csv``: a row per seed, method and metric, with the ``value`` as measured (a fraction, mostly).

    Raises:
        ValueError: If the file is no study, or has two values for the same seed, method and metric.

    Example:
        >>> study = read_study(Paper("primer").folder / "study.csv")
        >>> list(study), bool(study.seed.min() >= 100)
        (['seed', 'method', 'metric', 'value'], True)
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype={"seed": int, "method": str, "metric": str, "value": float})
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is no study: {error}") from error
    if list(table) != COLUMNS:
        raise ValueError(f"{path} is no study: its columns are {', '.join(table.columns)}, not {', '.join(COLUMNS)}")
    if len(twice := table[table.duplicated(COLUMNS[:3])]):
        seed, method, metric = twice.iloc[0][COLUMNS[:3]]
        raise ValueError(f"{path}: two values for {metric} of {method} with seed {seed}")
    return table


def committed(paper: Paper) -> dict[str, Path]:
    """The committed studies of a paper: ``default`` is ``study.csv``, any other is ``study-<recipe>.csv``.

    Example:
        >>> sorted(committed(Paper("primer")))[0]
        'default'
    """
    return {path.stem.partition("-")[2] or "default": path for path in sorted(paper.folder.glob("study*.csv"))}
