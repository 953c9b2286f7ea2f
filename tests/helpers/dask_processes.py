"""A cluster of Dask on this machine, of processes as people start them, and what of it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

DASK = [sys.executable, "-m", "dask"]


class Cluster:
    """A scheduler, and the workers that were started; all are killed at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.address = folder, ""
        self.workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.folder.mkdir()
        file = self.folder / "scheduler.json"
        options = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        self.scheduler = self._start([*DASK, "scheduler", *options], {})
        until(file.exists)
        self.address = json.loads(file.read_text())["address"]
        return self

    def __exit__(self, *error: object) -> None:
        for process in [*self.workers, self.scheduler]:
            process.kill()
            process.wait()

    def work(self, *before: str, **environment: str) -> None:
        """Start a worker of one thread, as an argument of the command `before`."""
        name = f"worker-{len(self.workers)}"
        options = ("--no-nanny", "--no-dashboard", "--nthreads", "1", "--name", name, "--local-directory", name)
        self.workers.append(self._start([*before, *DASK, "worker", self.address, *options], environment))

    def _start(self, command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            variables = {**os.environ, **environment}
            return subprocess.Popen(command, cwd=self.folder, env=variables, stdout=log, stderr=log)


def until(found: Callable[[], object], seconds: float = 60) -> None:
    """Wait for what has to happen."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def working_in(folder: Path) -> list[int]:
    """The processes whose working directory is the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if os.readlink(process / "cwd") == str(folder):
                found.append(int(process.name))
    return found
