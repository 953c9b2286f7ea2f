"""Score maps that any framework saved, against the field's metadata files: ``wsolnb eval``."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Protocol(StrEnum):
    """What to compute from the maps: `wsolnb.localization.saved_maps.PROTOCOLS`."""

    MAXBOXACC = "maxboxacc"
    MAXBOXACCV2 = "maxboxaccv2"
    PXAP = "pxap"


def eval_command(
    maps: Annotated[Path, typer.Argument(help="Folder of .npy maps, or a .safetensors file; keys are image ids.")],
    metadata: Annotated[Path, typer.Option(help="Folder of one split: image_ids.txt, localization.txt, ...")],
    protocol: Annotated[Protocol, typer.Option(help="What to compute.")] = Protocol.MAXBOXACCV2,
    masks: Annotated[Path | None, typer.Option(help="Folder below which mask files lie (pxap).")] = None,
    thresholds: Annotated[int, typer.Option(help="Number of thresholds.")] = 1000,
    threshold: Annotated[float | None, typer.Option(help="A threshold chosen on another split.")] = None,
    enlarge: Annotated[int | None, typer.Option(help="Enlarge maps to squares of so many pixels a side first.")] = None,
    out: Annotated[Path | None, typer.Option(help="New folder; runs/eval/MAPS, numbered, if not given.")] = None,
) -> None:
    """Score maps saved by any framework against the field's metadata; write eval.json and eval.csv to a new folder."""
    import json
    from itertools import count

    from rich.console import Console
    from rich.table import Table

    from wsolnb._utils.files import require_new_folder
    from wsolnb.localization.saved_maps import evaluate_maps

    if out:
        require_new_folder(out)
    result, curve = evaluate_maps(
        maps, metadata, protocol.value, masks=masks, thresholds=thresholds, threshold=threshold, enlarge=enlarge
    )
    files = {"eval.csv": _csv(curve), "eval.json": json.dumps(result, indent=2, allow_nan=False) + "\n"}
    if out and not _write(out, files):
        raise FileExistsError(f"{out} was filled by another process meanwhile: give a new folder")
    if not out:
        name = maps.resolve().name.removesuffix(".safetensors")
        folders = (Path("runs", "eval", name if number == 1 else f"{name}-{number}") for number in count(1))
        out = next(folder for folder in folders if _write(folder, files))
    title = f"{result['protocol']} of {result['images']} images"
    table = Table("number", "value", "threshold", "how the threshold was chosen", title=title, title_justify="left")
    for row in result["numbers"]:
        at = "" if row["threshold"] is None else f"{row['threshold']:.4g}"
        value = "undefined" if row["value"] is None else f"{100 * row['value']:.2f} %"
        table.add_row(row["name"], value, at, row["chosen"])
    console = Console()
    console.print(table)
    console.print(f"written to {out / 'eval.json'} and eval.csv", soft_wrap=True)


def _csv(curve: Mapping[str, Any]) -> str:
    """The columns of a curve as CSV, where it is not a number as nothing."""
    import csv
    import io
    import math

    rows = csv.writer(text := io.StringIO(), lineterminator="\n")
    rows.writerow(curve)
    for row in zip(*(column.tolist() for column in curve.values()), strict=True):
        rows.writerow("" if math.isnan(value) else value for value in row)
    return text.getvalue()


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
