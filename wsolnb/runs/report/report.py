"""A report of runs: an interactive page of every notebook, an index, and one table of numbers."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from wsolnb.runs.report.pages import TEMPLATES, page, take_states
from wsolnb.runs.run import NOTEBOOK

_THUMBNAIL, _SHEET = (420, 300), (1400, 4000)  # pixels at most
_COLUMNS = ["run", "kind", "method", "metric", "value", "low", "high", "claim"]


@dataclass
class Run:
    """One executed notebook and the results of its run."""

    name: str  # in the report, and of the page
    notebook: Path
    record: Mapping[str, Any] = field(default_factory=dict)  # metrics.json; empty if the run did not reach its end
    figures: list[tuple[str, str]] = field(default_factory=list)  # names and thumbnails (data URIs)
    sheet: str = ""  # a contact sheet of detections (a data URI), or empty
    note: str = ""  # why something is missing

    @property
    def metrics(self) -> list[str]:
        """All metrics of the run, in the order of the record."""
        return list(dict.fromkeys(name for row in self.record.get("metrics", {}).values() for name in row))


def report(runs: Sequence[str | Path], out: str | Path, *, theme: str = "light") -> Path:
    """Write a report: `index.html`, a page for every run, and `results.csv`.

    The runs are folders of runs, folders above them, or executed notebooks. Files of an earlier report in `out` are
    replaced. The theme of the pages is `light` or `dark`.

    Raises:
        FileNotFoundError: If there is no such folder or file, or no executed notebook below it.

    Example:
        >>> report(["runs/barz2022/default"], "report")  # doctest: +SKIP
        PosixPath('report/index.html')
    """
    if theme not in ("light", "dark"):
        raise ValueError(f"theme {theme!r} is neither light nor dark")
    executed = _find_runs(runs)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for run in executed:
        _write_page(run, folder, theme)
    rows = [row for run in executed for row in _rows(run)]
    with (folder / "results.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(dict.fromkeys([*_COLUMNS, *(name for row in rows for name in row)])))
        table.writeheader()
        table.writerows(rows)
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    index = folder / "index.html"
    index.write_text(environment.get_template("index.html.j2").render(runs=executed), encoding="utf-8")
    return index


def _find_runs(paths: Sequence[str | Path]) -> list[Run]:
    """The executed notebooks at or below the given paths, with their records."""
    notebooks: dict[Path, Path] = {}
    for root in map(Path, paths):
        if not root.exists():
            raise FileNotFoundError(f"no run {root}")
        below = [root] if root.is_file() else sorted(root.rglob(NOTEBOOK))
        if not below:
            raise FileNotFoundError(f"no {NOTEBOOK} below {root}: make a run first, such as `wsolnb run barz2022`")
        for notebook in below:
            notebooks.setdefault(notebook.resolve(), notebook)
    runs: dict[str, Run] = {}
    for path, notebook in notebooks.items():
        base = "-".join(path.parts[-3:-1]) if path.name == NOTEBOOK else path.stem
        base = re.sub(r"[^\w.+-]", "_", base)
        name = next(name for name in chain([base], (f"{base}-{k}" for k in count(2))) if name not in runs)
        runs[name] = Run(name, notebook)
        if notebook.name == NOTEBOOK:
            _read_record(runs[name])
    return list(runs.values())


def _read_record(run: Run) -> None:
    try:
        record = json.loads((run.notebook.parent / "metrics.json").read_text(encoding="utf-8"))
        run.record = record if isinstance(record, dict) else {}
    except FileNotFoundError:
        run.note = "This run did not reach its end."
    except ValueError as error:
        run.note = f"Its metrics.json cannot be read: {error}"


def _write_page(run: Run, folder: Path, theme: str) -> None:
    target = folder / f"{run.name}.html"
    try:
        notebook = nbformat.read(run.notebook, as_version=4)
    except Exception as error:  # whatever is wrong with one file, the others are worth a report
        run.note = f"{run.notebook.name} cannot be read: {error}"
        head = f"<!doctype html><meta charset='utf-8'><title>{run.name}</title>"
        target.write_text(f"{head}<p role='alert'>{html.escape(run.note)}</p>", encoding="utf-8")
        return
    target.write_text(page(notebook, title=run.name, folder=run.notebook.parent, theme=theme), encoding="utf-8")
    figures = sorted((run.notebook.parent / "figures").glob("*.png"), key=lambda path: path.stat().st_mtime)
    run.figures = [(path.stem, _thumbnail(path, _THUMBNAIL)) for path in figures]
    detections = [path for path in figures if path.stem.startswith("detections")]
    run.sheet = _sheet(take_states(notebook)) or (_thumbnail(detections[0], _SHEET) if detections else "")


def _thumbnail(path: Path, size: tuple[int, int]) -> str:
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail(size)
    return _data_uri(small)


def _data_uri(picture: Image.Image) -> str:
    picture.save(stream := io.BytesIO(), "JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _sheet(states: Mapping[str, Mapping[str, Any]]) -> str:
    """A contact sheet of what the first explorer of a notebook shows on all its images, or empty text."""
    for stored in states.values():
        state = json.loads(json.dumps(stored["state"]))
        if state.get("_wsolnb") != "explorer":
            continue
        from wsolnb.explorer import Explorer
        from wsolnb.explorer.picture import sheet

        for buffer in stored.get("buffers", []):
            *path, last = buffer["path"]
            part = state
            for key in path:
                part = part[key]
            part[last] = base64.b64decode(buffer["data"])
        return _data_uri(sheet(Explorer.restored(state)))
    return ""


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    """The rows of a run in the table: one per number and one per claim, with all parameters."""
    record = run.record
    about = {name: record.get(name) for name in ("wall_time", "device", "revision", "finished")}
    about |= {f"parameter.{name}": value for name, value in record.get("parameters", {}).items()}
    for method, row in record.get("metrics", {}).items():
        for metric, number in row.items():
            yield {"run": run.name, "kind": "metric", "method": method, "metric": metric, **number, **about}
    for claim in record.get("verdicts", []):
        compared = {"method": f"{claim['first']} - {claim['second']}", "metric": claim["metric"], "claim": claim["claim"]}
        gap = {"value": claim["run"], "low": claim["run_low"], "high": claim["run_high"]}
        yield {"run": run.name, "kind": "claim", **compared, **gap, **about}
