"""Score maps that any framework saved, against the field's metadata files: ``wsolnb eval``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

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
    out: Annotated[Path | None, typer.Option(help="Folder for the results; runs/eval/MAPS if not given.")] = None,
) -> None:
    """Score maps saved by any framework against the field's metadata; write eval.json and eval.csv."""
    import csv
    import json
    import math

    from rich.console import Console
    from rich.table import Table

    from wsolnb.localization.saved_maps import evaluate_maps

    result, curve = evaluate_maps(
        maps, metadata, protocol.value, masks=masks, thresholds=thresholds, threshold=threshold, enlarge=enlarge
    )
    folder = out or Path("runs", "eval", maps.stem)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "eval.json").write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    with (folder / "eval.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(curve)
        for row in zip(*(column.tolist() for column in curve.values()), strict=True):
            rows.writerow("" if math.isnan(value) else value for value in row)
    title = f"{result['protocol']} of {result['images']} images"
    table = Table("number", "value", "threshold", "how the threshold was chosen", title=title, title_justify="left")
    for row in result["numbers"]:
        at = "" if row["threshold"] is None else f"{row['threshold']:.4g}"
        value = "undefined" if row["value"] is None else f"{100 * row['value']:.2f} %"
        table.add_row(row["name"], value, at, row["chosen"])
    console = Console()
    console.print(table)
    console.print(f"written to {folder / 'eval.json'} and eval.csv", soft_wrap=True)
