"""Runs as a report: a page that stays interactive for each, an index, one table of numbers, one board of verdicts."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from wsolnb.runs.report.pages import TEMPLATES, page, take_states
from wsolnb.runs.run import NOTEBOOK
from wsolnb.runs.verdicts import board

_THUMBNAIL = (420, 300)
_COLUMNS = ["run", "kind", "method", "metric", "value", "low", "high", "verdict", "claim"]


@dataclass
class Run:
    """One executed notebook and what its run left behind.

    Attributes:
        name: Of the run in the report, and of its page.
        notebook: The file.
        record: What stands in its `metrics.json`; empty if the run did not reach its end.
        figures: Name and thumbnail (a data URI) of every figure.
        sheet: A contact sheet of detections (a data URI), or empty.
        note: What is wrong with it.
    """

    name: str
    notebook: Path
    record: Mapping[str, Any] = field(default_factory=dict)
    figures: list[tuple[str, str]] = field(default_factory=list)
    sheet: str = ""
    note: str = ""

    @property
    def metrics(self) -> list[str]:
        """All metrics of the run, in the order of the record."""
        return list(dict.fromkeys(name for row in self.record.get("metrics", {}).values() for name in row))


def report(runs: Sequence[str | Path], out: str | Path, *, theme: str = "light") -> Path:
    """Write a report: `index.html`, a page for every run, `results.csv`, and the verdict board as `verdicts.md`.

    Args:
        runs: Folders of runs, folders above them, or executed notebooks.
        out: Folder to write to; files of an earlier report there are replaced.
        theme: `light` or `dark`, for the pages.

    Returns:
        The index page.

    Raises:
        FileNotFoundError: If there is no such folder or file, or no executed notebook below it.

    Example:
        >>> report(["runs/barz2022/default"], "report")  # doctest: +SKIP
        PosixPath('report/index.html')
    """
    if theme not in ("light", "dark"):
        raise ValueError(f"theme {theme!r} is neither light nor dark")
    found = find_runs(runs)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for run in found:
        _write_page(run, folder, theme)
    rows = [row for run in found for row in _rows(run)]
    columns = [*_COLUMNS, *dict.fromkeys(name for row in rows for name in row if name not in _COLUMNS)]
    with (folder / "results.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(rows)
    judged = {run.name: run.record.get("verdicts", []) for run in found}
    (folder / "verdicts.md").write_text(board(judged), encoding="utf-8")
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    index = folder / "index.html"
    index.write_text(environment.get_template("index.html.j2").render(runs=found), encoding="utf-8")
    return index


def find_runs(given: Sequence[str | Path]) -> list[Run]:
    """The executed notebooks in the given folders, each with its record.

    Raises:
        FileNotFoundError: If one does not exist or has no executed notebook below it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = Path(folder, "barz2022", "default")
        ...     run.mkdir(parents=True)
        ...     _ = (run / NOTEBOOK).write_text("{}")
        ...     _ = (run / "metrics.json").write_text('{"metrics": {"cam": {"ap50": {"value": 0.5}}}}')
        ...     [(found.name, found.metrics) for found in find_runs([folder])]
        [('barz2022-default', ['ap50'])]
    """
    runs: dict[Path, Run] = {}
    for root in map(Path, given):
        if not root.exists():
            raise FileNotFoundError(f"no run {root}")
        notebooks = [root] if root.is_file() else sorted(root.rglob(NOTEBOOK))
        if not notebooks:
            raise FileNotFoundError(f"no {NOTEBOOK} below {root}: make a run first, such as `wsolnb run barz2022`")
        for notebook in notebooks:
            runs.setdefault(notebook.resolve(), Run("", notebook))
    names: set[str] = set()
    for path, run in runs.items():
        parts = path.parts[-3:-1] if path.name == NOTEBOOK else (path.stem,)
        base = re.sub(r"[^\w.+-]", "_", "-".join(parts))
        run.name = next(name for name in _numbered(base) if name not in names)
        names.add(run.name)
        _read_record(run)
    return list(runs.values())


def _numbered(base: str) -> Iterator[str]:
    yield base
    number = 2
    while True:
        yield f"{base}-{number}"
        number += 1


def _read_record(run: Run) -> None:
    path = run.notebook.parent / "metrics.json"
    if run.notebook.name != NOTEBOOK:
        return
    if not path.exists():
        run.note = "This run did not reach its end."
        return
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        run.record = record if isinstance(record, dict) else {}
    except ValueError as error:
        run.note = f"Its {path.name} cannot be read: {error}"


def _write_page(run: Run, folder: Path, theme: str) -> None:
    try:
        notebook = nbformat.read(run.notebook, as_version=4)
    except Exception as error:  # whatever is wrong with one file, the others are worth a report
        run.note = f"{run.notebook.name} cannot be read: {error}"
        head = f"<!doctype html><meta charset='utf-8'><title>{run.name}</title>"
        text = f"{head}<p role='alert'>{html.escape(run.note)}</p>"
        (folder / f"{run.name}.html").write_text(text, encoding="utf-8")
        return
    text = page(notebook, title=run.name, folder=run.notebook.parent, theme=theme)
    (folder / f"{run.name}.html").write_text(text, encoding="utf-8")
    figures = sorted((run.notebook.parent / "figures").glob("*.png"), key=lambda path: path.stat().st_mtime)
    run.figures = [(path.stem, _thumbnail(path)) for path in figures]
    run.sheet = _sheet(take_states(notebook)) or next(
        (_thumbnail(path, (1400, 4000)) for path in figures if path.stem.startswith("detections")), ""
    )


def _thumbnail(path: Path, size: tuple[int, int] = _THUMBNAIL) -> str:
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail(size)
    return _data_uri(small)


def _data_uri(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _sheet(states: Mapping[str, Mapping[str, Any]]) -> str:
    """The first explorer of a notebook as a contact sheet of what it shows on every image."""
    for stored in states.values():
        state = json.loads(json.dumps(stored["state"]))
        if state.get("_wsolnb") != "explorer":
            continue
        from wsolnb.explorer import Explorer
        from wsolnb.explorer.picture import sheet

        for buffer in stored.get("buffers", []):
            *way, last = buffer["path"]
            part = state
            for key in way:
                part = part[key]
            part[last] = base64.b64decode(buffer["data"])
        return _data_uri(sheet(Explorer.restored(state)))
    return ""


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    """A run as rows of the table: a row per measured number, one per verdict, each with all parameters."""
    record = run.record
    about = {name: record.get(name) for name in ("wall_time", "device", "revision", "finished")}
    about |= {f"parameter.{name}": value for name, value in record.get("parameters", {}).items()}
    for method, row in record.get("metrics", {}).items():
        for metric, number in row.items():
            yield {"run": run.name, "kind": "metric", "method": method, "metric": metric, **number, **about}
    for verdict in record.get("verdicts", []):
        compared = {"method": f"{verdict['first']} - {verdict['second']}", "metric": verdict["metric"]}
        gap = {"value": verdict["difference"], "low": verdict["low"], "high": verdict["high"]}
        said = {"verdict": verdict["verdict"], "claim": verdict["claim"]}
        yield {"run": run.name, "kind": "verdict", **compared, **gap, **said, **about}
