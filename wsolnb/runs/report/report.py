"""A report of runs and evaluations: an interactive page of every notebook, an index, and one table of numbers."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import Environment, FileSystemLoader, TemplateError
from PIL import Image

from wsolnb._utils.files import require_new_folder, write_atomic
from wsolnb.runs.report.pages import TEMPLATES, page, take_states
from wsolnb.runs.run import NOTEBOOK

_THUMBNAIL, _SHEET = (420, 300), (1400, 4000)  # pixels at most
_EVALUATION = "eval.json"
_ODD = (ValueError, TypeError, KeyError, AttributeError, TemplateError)  # what JSON of another shape raises
_TITLE = "<title>wsolnb: "  # by which a report is known
_COLUMNS = ["run", "kind", "method", "metric", "value", "low", "high", "claim"]


@dataclass
class Run:
    """One executed notebook and the results of its run."""

    name: str  # in the report, and of the page
    notebook: Path
    record: Mapping[str, Any] = field(default_factory=dict)  # metrics.json; empty if the run did not reach its end
    figures: list[tuple[str, str]] = field(default_factory=list)  # names and thumbnails (data URIs)
    sheet: str = ""  # a contact sheet of detections (a data URI), or empty
    notes: list[str] = field(default_factory=list)  # why something is missing

    @property
    def metrics(self) -> list[str]:
        """All metrics of the run, in the order of the record."""
        return list(dict.fromkeys(name for row in self.record.get("metrics", {}).values() for name in row))


@dataclass
class Evaluation:
    """What `wsolnb eval` wrote."""

    name: str  # in the report
    result: Mapping[str, Any] = field(default_factory=dict)  # eval.json; empty if it cannot be read
    notes: list[str] = field(default_factory=list)


def report(
    runs: Sequence[str | Path], out: str | Path, *, theme: str = "light", say: Callable[[str], None] = print
) -> Path:
    """Write a report: `index.html`, a page for every run, and `results.csv`.

    The runs are folders of runs or of `wsolnb eval`, folders above them, or executed notebooks. Files of an earlier
    report in `out` are replaced, each at once. What cannot be read is listed in the index, and `say` is called with a
    line that names it; the rest is reported. The theme of the pages is `light` or `dark`.

    Raises:
        FileNotFoundError: If there is no such folder or file, or nothing to report below it.
        FileExistsError: If `out` holds files, but no report.

    Example:
        >>> report(["runs/barz2022/default"], "report")  # doctest: +SKIP
        PosixPath('report/index.html')
    """
    if theme not in ("light", "dark"):
        raise ValueError(f"theme {theme!r} is neither light nor dark")
    executed, evaluations = _find(runs)
    folder = Path(out)
    index = folder / "index.html"
    _claim(index)
    rows = []
    for run in executed:
        _write_page(run, folder, theme)
        rows += _rows_of(run)
    for evaluation in evaluations:
        rows += _evaluation_rows(evaluation)
    table = csv.DictWriter(
        written := io.StringIO(), list(dict.fromkeys([*_COLUMNS, *(name for row in rows for name in row)]))
    )
    table.writeheader()
    table.writerows(rows)
    write_atomic(folder / "results.csv", written.getvalue().encode())
    write_atomic(index, _index(executed, evaluations).encode())
    notes = [(run.name, run.notes) for run in executed] + [(each.name, each.notes) for each in evaluations]
    for name, texts in notes:
        for text in texts:
            say(f"{name}: {text}")
    return index


def _index(runs: Sequence[Run], evaluations: Sequence[Evaluation]) -> str:
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("index.html.j2").render(runs=runs, evaluations=evaluations)


def _claim(index: Path) -> None:
    """Begin a report in a new folder, or in that of an earlier report."""
    earlier = index.read_text(encoding="utf-8", errors="replace") if index.is_file() else ""
    if _TITLE not in earlier:
        require_new_folder(index.parent)
    index.parent.mkdir(parents=True, exist_ok=True)
    if not earlier:
        unfinished = "This report did not reach its end: give the same command again."
        write_atomic(index, f"<!doctype html><meta charset='utf-8'>{_TITLE}</title><p>{unfinished}</p>".encode())


def _find(paths: Sequence[str | Path]) -> tuple[list[Run], list[Evaluation]]:
    """The executed notebooks and the results of `wsolnb eval` at or below the given paths."""
    notebooks: dict[Path, Path] = {}
    results: dict[Path, Path] = {}
    for root in map(Path, paths):
        if not root.exists():
            raise FileNotFoundError(f"no run {root}")
        below = [root] if root.is_file() else sorted(root.rglob(NOTEBOOK))
        found = [path for path in sorted(root.rglob(_EVALUATION)) if not path.parent.name.endswith(".partial")]
        if not below and not found:
            made = "make a run first, such as `wsolnb run barz2022`"
            raise FileNotFoundError(f"no {NOTEBOOK} below {root}, and no {_EVALUATION}: {made}")
        for files, paths_of in ((below, notebooks), (found, results)):
            for path in files:
                paths_of.setdefault(path.resolve(), path)
    runs: dict[str, Run] = {}
    for path, notebook in notebooks.items():
        base = "-".join(path.parts[-3:-1]) if path.name == NOTEBOOK else path.stem
        name = _free_name(base, runs)
        runs[name] = Run(name, notebook)
        if notebook.name == NOTEBOOK:
            _read_record(runs[name])
    evaluations: dict[str, Evaluation] = {}
    for path in results:
        name = _free_name("-".join(path.parts[-3:-1]), {**runs, **evaluations})
        evaluations[name] = Evaluation(name)
        result, note = _read_json(path)
        evaluations[name].result = result
        evaluations[name].notes += [note] if note else []
    return list(runs.values()), list(evaluations.values())


def _free_name(base: str, taken: Collection[str]) -> str:
    base = re.sub(r"[^\w.+-]", "_", base)
    return next(name for name in chain([base], (f"{base}-{k}" for k in count(2))) if name not in taken)


def _read_json(path: Path) -> tuple[dict[str, Any], str]:
    """The content of a JSON file, or an empty dictionary and why it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {}, f"Its {path.name} cannot be read: {error}"
    return (content, "") if isinstance(content, dict) else ({}, f"Its {path.name} holds no dictionary.")


def _read_record(run: Run) -> None:
    path = run.notebook.parent / "metrics.json"
    if not path.is_file():
        run.notes.append("This run did not reach its end.")
        return
    run.record, note = _read_json(path)
    run.notes += [note] if note else []


def _rows_of(run: Run) -> list[dict[str, Any]]:
    """The rows of a run; none, and no record in the index, if its record has another shape."""
    try:
        _index([run], [])
        return list(_rows(run))
    except _ODD as error:
        run.record = {}
        run.notes.append(f"Its metrics.json is no record of a run: {error!r}")
        return []


def _evaluation_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The rows of an evaluation; none, and no result in the index, if that has another shape."""
    result = evaluation.result
    if not result:
        return []
    try:
        _index([], [evaluation])
        about = {f"parameter.{name}": result[name] for name in ("metadata", "images")}
        return [
            {"run": evaluation.name, "kind": "eval", "method": number["method"], "metric": number["name"]}
            | {name: float(number[name]) for name in ("value", "low", "high")}
            | {"threshold": number["threshold"], "chosen": number["chosen"], **about}
            | {"parameter.maps": result["methods"][number["method"]]["maps"]}
            for number in result["numbers"]
        ]
    except _ODD as error:
        evaluation.result = {}
        evaluation.notes.append(f"Its {_EVALUATION} is none of `wsolnb eval`: {error!r}")
        return []


def _write_page(run: Run, folder: Path, theme: str) -> None:
    """Write a notebook's page, or why there is none: whatever is wrong with one file, the others are worth a report."""
    try:
        notebook = nbformat.read(run.notebook, as_version=4)
        text = page(notebook, title=run.name, folder=run.notebook.parent, theme=theme)
        states = take_states(notebook)
    except Exception as error:
        run.notes.append(note := f"{run.notebook.name} cannot be read: {error}")
        head = f"<!doctype html><meta charset='utf-8'><title>{run.name}</title>"
        text, states = f"{head}<p role='alert'>{html.escape(note)}</p>", {}
    write_atomic(folder / f"{run.name}.html", text.encode())
    figures = sorted((run.notebook.parent / "figures").glob("*.png"), key=lambda path: path.stat().st_mtime)
    detections = [path for path in figures if path.stem.startswith("detections")]
    for path in figures:
        if small := _thumbnail(run, path, _THUMBNAIL):
            run.figures.append((path.stem, small))
    try:
        run.sheet = _sheet(states)
    except Exception as error:  # the state is as a person's notebook holds it
        run.notes.append(f"The explorer in {run.notebook.name} cannot be drawn: {error!r}")
    if not run.sheet and detections and detections[0].stem in dict(run.figures):
        run.sheet = _thumbnail(run, detections[0], _SHEET)


def _thumbnail(run: Run, path: Path, size: tuple[int, int]) -> str:
    """A figure, smaller; nothing, and a note, if it cannot be read."""
    try:
        with Image.open(path) as picture:
            small = picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        run.notes.append(f"figures/{path.name} cannot be read: {error}")
        return ""
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
        compared = {
            "method": f"{claim['first']} - {claim['second']}",
            "metric": claim["metric"],
            "claim": claim["claim"],
        }
        gap = {"value": claim["run"], "low": claim["run_low"], "high": claim["run_high"]}
        yield {"run": run.name, "kind": "claim", **compared, **gap, **about}
