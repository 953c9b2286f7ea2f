"""Score maps that any framework saved, against the field's metadata files: ``wsolnb eval``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from wsolnb.localization.saved_maps import Protocol, evaluate_maps


def eval_command(
    maps: Annotated[Path, typer.Argument(help="Folder of .npy maps, or a .safetensors file; keys are image ids.")],
    metadata: Annotated[Path, typer.Option(help="Folder of one split: image_ids.txt, localization.txt, ...")],
    protocol: Annotated[Protocol, typer.Option(help="What to compute.")] = Protocol.MAXBOXACCV2,
    masks: Annotated[Path | None, typer.Option(help="Folder below which mask files lie (pxap).")] = None,
    thresholds: Annotated[int, typer.Option(help="Number of thresholds.")] = 1000,
    threshold: Annotated[float | None, typer.Option(help="A threshold chosen on another split.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; runs/eval/MAPS if not given.")] = None,
) -> None:
    """Score maps saved by any framework against the field's metadata; write eval.json and eval.csv."""
    result, curve = evaluate_maps(maps, metadata, protocol, masks=masks, thresholds=thresholds, threshold=threshold)
    folder = out or Path("runs", "eval", maps.stem)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "eval.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    curve.to_csv(folder / "eval.csv", index=False)
    table = Table(title=f"{result['protocol']} of {result['images']} images", title_justify="left")
    for column in ("number", "value", "threshold", "how the threshold was chosen"):
        table.add_column(column)
    for row in result["numbers"]:
        cut = "" if row["threshold"] is None else f"{row['threshold']:.4g}"
        table.add_row(row["name"], f"{100 * row['value']:.2f} %", cut, row["chosen"])
    console = Console()
    console.print(table)
    console.print(f"written to {folder / 'eval.json'} and eval.csv", soft_wrap=True)
