"""Compiles what finds and judges boxes, once for an installation, while a first notebook still trains.

Numba compiles a function when it is first called and keeps the result beside its source. Together that is half a minute
of one core, in which the first notebook of a new installation would only wait. So `wsolnb run` has it done meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

_FOLDER = Path(__file__).parent
_SOURCES = ("components.py", "contours.py", "merge_tree.py", "overlap.py", "sweep.py", "metrics/masks.py")


def compile_meanwhile(
    command: Sequence[str] = (sys.executable, "-m", "wsolnb.kernels"),
) -> subprocess.Popen[bytes] | None:
    """Start a process of low priority that calls every compiled function once, unless one was started before.

    That one was, says a file where Numba keeps its results; there is another for other sources, processors or versions.
    Where that folder cannot be written, nothing is started, and functions are compiled when they are first called.

    Args:
        command: What to start.
    """
    told = hashlib.sha256(repr((platform.machine(), sys.version, version("numba"))).encode())
    for source in _SOURCES:
        told.update((_FOLDER / source).read_bytes())
    folder = _FOLDER / "__pycache__"
    try:
        folder.mkdir(exist_ok=True)
        (folder / f"kernels-{told.hexdigest()[:16]}.begun").open("x").close()
    except OSError:  # it is there, or it cannot be
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
        rule.every(maps[:, None], (16, 18))
    for metric in (MaxBoxAcc(thresholds=4), MaxBoxAccV2(thresholds=4), MaxBoxAcc(rule=BoxRule(), thresholds=4)):
        metric.update(maps, boxes)
    TopLocalization(rule=BoxRule(), thresholds=4).update(maps, boxes, torch.rand(2, 3), torch.tensor([0, 1]))
    PxAP(thresholds=4).update(maps, maps > 0.5)


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(10)
    call_all()
