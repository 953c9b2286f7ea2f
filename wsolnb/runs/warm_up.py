"""Compiles the functions that find and score boxes, once per installation, while a first notebook still trains.

Numba compiles a function when it is first called and caches the result beside its source. Together that takes half a
minute of one core, for which the first notebook of a new installation would wait.
"""

from __future__ import annotations

import gc
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parents[1]
_ROOMS = ("boxes", "metrics")  # folders with compiled functions


def compile_meanwhile(
    command: Sequence[str] = (sys.executable, "-m", "wsolnb.runs.warm_up"),
) -> subprocess.Popen[bytes] | None:
    """Start a process of low priority that calls every compiled function once, unless one was started before.

    A marker file in Numba's cache folder records that, for the sources, processor and versions at hand. If it cannot be
    written, nothing is started, and functions are compiled when they are first called.
    """
    digest = hashlib.sha256(repr((platform.machine(), sys.version, version("numba"))).encode())
    for source in sorted(path for room in _ROOMS for path in (_PACKAGE / room).glob("*.py")):
        digest.update(source.read_bytes())
    folder = _PACKAGE / "__pycache__"
    try:
        folder.mkdir(exist_ok=True)
        (folder / f"kernels-{digest.hexdigest()[:16]}.begun").open("x").close()
    except OSError:  # the marker exists, or cannot be written
        return None
    quiet = subprocess.DEVNULL
    return subprocess.Popen(list(command), stdin=quiet, stdout=quiet, stderr=quiet)


def call_all() -> None:
    """Call every compiled function once, as the metrics and box rules do."""
    import torch

    from wsolnb.boxes import PRESETS, BoxRule
    from wsolnb.metrics import MaxBoxAcc, MaxBoxAccV2, PxAP, TopLocalization

    maps, boxes = torch.rand(2, 8, 9), [torch.tensor([[2.0, 2.0, 6.0, 7.0]])] * 2
    for rule in PRESETS.values():
        rule.all_boxes(maps[:, None], (16, 18))
    for metric in (MaxBoxAcc(thresholds=4), MaxBoxAccV2(thresholds=4), MaxBoxAcc(rule=BoxRule(), thresholds=4)):
        metric.update(maps, boxes)
    TopLocalization(rule=BoxRule(), thresholds=4).update(maps, boxes, torch.rand(2, 3), torch.tensor([0, 1]))
    PxAP(thresholds=4).update(maps, maps > 0.5)


_COMPILING: list[Any] = []  # the process, which is never waited for


def load_ipython_extension(shell: Any) -> None:
    """Import what the notebooks import first and start to compile, while the command line still loads papermill.

    `wsolnb run` gives the kernel this module as an IPython extension. Modules stay, so the garbage collector looks at
    none of their objects, now or later: that saves a fifth of the imports.
    """
    gc.disable()
    import wsolnb.metrics
    import wsolnb.plots  # noqa: F401

    gc.freeze()
    gc.enable()
    _COMPILING.append(compile_meanwhile())


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(10)
    call_all()
