"""Runs the parts one after the other, each in a process of its own with a time limit; writes results after each.

A part prints a line of JSON per row (`gpu_parts.row`), so what it had printed counts when it fails or runs out of time.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_parts import TINY

HERE = Path(__file__).parent
LIMITS = {"parity": 60.0, "peers": 30.0, "sweeping": 30.0, "localizing": 70.0, "training": 110.0, "recipe": 170.0}
"""Seconds that every part may take: with what it takes to stop them, at most eight minutes."""
PATIENCE = 5 if TINY else 1  # a busy core may take longer


@dataclass(frozen=True)
class Outcome:
    """What a part showed: rows by name, and how it ended."""

    state: str  # finished, failed: ..., or stopped after ...
    seconds: float
    rows: dict[str, dict[str, Any]]


def run_part(command: list[str], limit: float) -> Outcome:
    """Run a part and all that it starts, and end them after `limit` seconds.

    Example:
        >>> run_part(["echo", '{"row": "tiny", "images/s": 2}'], 20.0).rows
        {'tiny': {'images/s': 2}}
    """
    started = time.monotonic()
    part = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    )
    try:
        shown, errors = part.communicate(timeout=limit)
        said = errors.strip().splitlines() or ["no word"]
        state = "finished" if part.returncode == 0 else f"failed: {said[-1][:200]}"
    except subprocess.TimeoutExpired:
        _end(part)
        shown, errors = part.communicate()
        state = f"stopped after {limit:.0f} s"
    finally:  # after Ctrl-C, too
        _end(part)
    sys.stderr.write(errors)
    found = [json.loads(line) for line in shown.splitlines() if line.startswith('{"row": ')]
    rows = {each.pop("row"): each for each in found}
    return Outcome(state, round(time.monotonic() - started, 1), rows)


def _end(part: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(part.pid, signal.SIGKILL)


def machine() -> dict[str, Any]:
    """What it runs on."""
    cuda = torch.cuda.is_available()
    about = {"device": torch.cuda.get_device_name() if cuda else "cpu", "cores": os.cpu_count()}
    return about | {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}


def main(results: Path) -> None:
    """Run all parts; `results` is written anew after each."""
    found: dict[str, Any] = {"machine": machine(), "day": time.strftime("%Y-%m-%d"), "tiny": TINY, "parts": {}}
    results.parent.mkdir(parents=True, exist_ok=True)
    for name, limit in LIMITS.items():
        outcome = run_part([sys.executable, str(HERE / "parts" / f"{name}.py")], PATIENCE * limit)
        found["parts"][name] = asdict(outcome)
        results.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{name:12} {outcome.seconds:6.1f} s  {outcome.state}", flush=True)
        for row, cells in outcome.rows.items():
            print(f"  {row}: {', '.join(f'{key} {value}' for key, value in cells.items())}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
