"""Score maps that any framework saved, against the field's metadata files: ``wsolnb eval``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Protocol(StrEnum):
    """What to compute from the maps: `wsolnb.localization.evaluate.PROTOCOLS`."""

    MAXBOXACC = "maxboxacc"
    MAXBOXACCV2 = "maxboxaccv2"
    PXAP = "pxap"


class Format(StrEnum):
    """How the table is written."""

    MD = "md"
    TEX = "tex"
    CSV = "csv"


def eval_command(
    maps: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]MAPS...", help="Methods: folders of .npy maps, or .safetensors with image ids as keys."
        ),
    ],
    metadata: Annotated[Path, typer.Option(help="Folder of one split: image_ids.txt, localization.txt, ...")],
    protocol: Annotated[
        list[Protocol] | None,
        typer.Option(help="What to compute: all that the split permits, if not given. Repeatable."),
    ] = None,
    scores: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FILE",
            help="Class scores for Top-1 and Top-5: .npy (images, classes), rows as in image_ids.txt, or .safetensors "
            "by image id. One per method, in their order or by name.",
        ),
    ] = None,
    tune: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]VAL:MAPS",
            help="Another split's metadata and maps, to choose fixed thresholds on. One per method, as --scores.",
        ),
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder below which mask files lie (pxap).")] = None,
    thresholds: Annotated[int, typer.Option(help="Number of thresholds.")] = 1000,
    threshold: Annotated[float | None, typer.Option(help="A threshold chosen elsewhere, for all methods.")] = None,
    enlarge: Annotated[int | None, typer.Option(help="Enlarge maps to squares of so many pixels a side first.")] = None,
    format: Annotated[Format, typer.Option(help="Of the table.")] = Format.MD,
    out: Annotated[Path | None, typer.Option(help="New folder; runs/eval/METHODS, numbered, if not given.")] = None,
) -> None:
    """Score maps saved by any framework against the field's metadata: one table of several methods, with intervals.

    `wsolnb eval cam=A has=B --metadata TEST --scores cam=A.npy --scores has=B.npy --tune cam=VAL:VA --tune has=VAL:VB`

    Written to a new folder: the table (table.md, .tex or .csv), eval.json with all numbers and thresholds, and eval.csv
    with the curves over all thresholds.
    """
    import json

    from rich.console import Console
    from rich.table import Table

    from wsolnb._utils.files import require_new_folder
    from wsolnb.cli.result_table import result_table, to_csv, to_latex, to_markdown
    from wsolnb.localization.evaluate import SavedMethod, evaluate_maps

    if out:
        require_new_folder(out)
    named = _named(maps)
    scores_of, tune_of = by_method(scores or [], named, "--scores"), by_method(tune or [], named, "--tune")
    methods = {
        name: SavedMethod(path, scores_of.get(name), _split_and_maps(tune_of[name]) if name in tune_of else None)
        for name, path in named.items()
    }
    options: dict[str, Any] = {"masks": masks, "thresholds": thresholds, "threshold": threshold, "enlarge": enlarge}
    result, curves = evaluate_maps(methods, metadata, [each.value for each in protocol or []] or None, **options)
    shown = result_table(result)
    write = to_latex if format is Format.TEX else to_markdown
    files = {
        "eval.csv": _curves(curves),
        "eval.json": json.dumps(result, indent=2, allow_nan=False) + "\n",
        f"table.{format}": to_csv(result) if format is Format.CSV else write(shown),
    }
    out = _write_new(files, out, "+".join(named))
    names = dict.fromkeys(row[0] for row in shown.rows)
    table = Table("number", "threshold", *names)  # narrower than the other way round
    for kind in dict.fromkeys(row[1] for row in shown.rows):
        cells = {row[0]: row[2:] for row in shown.rows if row[1] == kind}
        for index, heading in enumerate(shown.columns[2:]):
            line = [cells[name][index].replace(" [", "\n[") if name in cells else "" for name in names]
            if any(line):
                table.add_row(heading, kind, *line)
    Console().print(table)
    for note in shown.notes:
        typer.echo(note)
    typer.echo(f"written to {out}: {', '.join(sorted(files, reverse=True))}")


def _named(maps: Sequence[str]) -> dict[str, str]:
    """Paths by name; one without a name is called as its file or folder."""
    named: dict[str, str] = {}
    for text in maps:
        name, path = _split_name(text)
        name = name or Path(path).resolve().name.removesuffix(".safetensors")
        if name in named:
            raise ValueError(f"two methods are named {name!r}: give NAME=MAPS")
        named[name] = path
    return named


def _split_name(text: str) -> tuple[str, str]:
    """Name and rest of ``NAME=REST``; the name is empty if there is none, or what stands before `=` is a path."""
    name, separator, rest = text.partition("=")
    return (name.strip(), rest) if separator and "/" not in name else ("", text)


def by_method(given: Sequence[str], methods: Sequence[str] | Mapping[str, Any], option: str) -> dict[str, str]:
    """What an option gives for each method: by name, or one for each in their order.

    Raises:
        ValueError: For a name that no method has or that is given twice, or if their number differs without names.

    Example:
        >>> by_method(["b.npy"], ["cam"], "--scores"), by_method(["has=b.npy"], ["cam", "has"], "--scores")
        ({'cam': 'b.npy'}, {'has': 'b.npy'})
    """
    pairs = [_split_name(text) for text in given]
    if pairs and not any(name for name, _ in pairs):
        if len(pairs) != len(methods):
            example = f"{option} {next(iter(methods))}=..."
            raise ValueError(f"{len(methods)} methods but {len(pairs)} {option}: say whose each is ({example})")
        return dict(zip(methods, given, strict=True))
    for number, (name, path) in enumerate(pairs):
        if name not in methods:
            raise ValueError(f"{option} {given[number]}: no method {name!r} among {', '.join(methods)}")
        if name in [other for other, _ in pairs[:number]]:
            raise ValueError(f"{option} {name}={path}: {name!r} is given twice")
    return dict(pairs)


def _split_and_maps(text: str) -> tuple[str, str]:
    val, separator, maps = text.partition(":")
    if not (val and separator and maps):
        raise ValueError(f"--tune {text}: give the metadata of another split and its maps, as VAL:MAPS")
    return val, maps


def _curves(curves: Mapping[str, Mapping[str, Any]]) -> str:
    """The curves of all methods as CSV, where one is not a number as nothing."""
    import csv
    import io
    import math

    columns = list(dict.fromkeys(column for curve in curves.values() for column in curve))
    rows = csv.writer(text := io.StringIO(), lineterminator="\n")
    rows.writerow(["method", *columns])
    for method, curve in curves.items():
        lists = [curve[column].tolist() if column in curve else None for column in columns]
        for row in range(len(curve["threshold"])):
            values = [math.nan if values is None else values[row] for values in lists]
            rows.writerow([method, *("" if math.isnan(value) else value for value in values)])
    return text.getvalue()


def _write_new(files: Mapping[str, str], out: Path | None, name: str) -> Path:
    """Write files to a new folder: the given one, or runs/eval/NAME, numbered; which one it was."""
    import re
    from itertools import count

    if out:
        if not _write(out, files):
            raise FileExistsError(f"{out} was filled by another process meanwhile: give a new folder")
        return out
    name = re.sub(r"[^\w.+-]", "_", name)[:100]
    folders = (Path("runs", "eval", name if number == 1 else f"{name}-{number}") for number in count(1))
    return next(folder for folder in folders if _write(folder, files))


def _write(folder: Path, files: Mapping[str, str]) -> bool:
    """Write a new folder with all files at once; whether it did, for it may hold something already."""
    import os
    import shutil

    from wsolnb._utils.files import write_atomic

    folder = folder.resolve()
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        for name, text in files.items():
            write_atomic(partial / name, text.encode())
        try:
            os.rename(partial, folder)
        except OSError:
            if folder.exists():  # and is not empty: systems answer that with different errors
                return False
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True
