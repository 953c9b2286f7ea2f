"""What the parts of tests/gpu/everything.py share: the device, tiny shapes where there is none, and rows of results."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TINY = os.environ.get("WSOLNB_TINY", "0" if DEVICE == "cuda" else "1") != "0"
"""Shapes that only show that everything runs: without a CUDA device, or as WSOLNB_TINY says (1 or 0)."""

NETWORKS = {"tiny": 64, "mobilenet_v2": 224, "resnet50": 224, "vgg16": 224}
"""Sides of images by network."""
if TINY:
    NETWORKS = dict.fromkeys(NETWORKS, 64)


@contextmanager
def row(name: str) -> Iterator[dict[str, object]]:
    """Print a row of results as a line of JSON; an error becomes the row's result, and the next row is tried.

    With tiny shapes nothing is compiled where `torch.compile` is asked for: a processor takes minutes for that.

    Example:
        >>> with row("resnet50") as cells:
        ...     cells["images/s"] = 7.25
        {"row": "resnet50", "images/s": 7.25}
    """
    cells: dict[str, object] = {}
    try:
        with torch.compiler.set_stance("force_eager" if TINY else "default"):
            yield cells
    except Exception as error:
        lines = f"{type(error).__name__}: {error}".strip().splitlines()
        cells = {"failed": lines[0][:200]}
    print(json.dumps({"row": name, **cells}), flush=True)
