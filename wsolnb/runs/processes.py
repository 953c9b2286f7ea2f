"""One run by several processes, each on a device of its own, started here or by `torchrun` on any number of machines.

Every process executes the whole notebook; trainings share their batches, and the first process alone writes.
"""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Sequence
from typing import Any

from wsolnb.runs.workers import thread_caps


class ProcessFailed(RuntimeError):
    """A process of a run failed, or was killed; the others were ended."""


def this_process() -> tuple[int, int]:
    """Number of this process, and how many `torchrun` started; 0 of 1 without it.

    Example:
        >>> this_process()
        (0, 1)
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def launch(arguments: Sequence[str], processes: int) -> int:
    """Start processes of the command line on this machine, and wait for them; return the signal that ended them, or 0.

    Args:
        arguments: Of `wsolnb`, such as `["run", "primer"]`.
        processes: Number of processes; each gets its share of the cores, unless `OMP_NUM_THREADS` is set.

    Raises:
        ProcessFailed: If one ends with an error, which it has printed; the others are stopped, after 30 seconds killed.

    Example:
        >>> launch(["run", "primer"], 2)  # doctest: +SKIP
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name, value in thread_caps(processes).items():
        os.environ.setdefault(name, value)
    meeting: dict[str, Any] = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": uuid.uuid4().hex}
    config = LaunchConfig(1, 1, processes, max_restarts=0, **meeting)
    try:
        elastic_launch(config, sys.executable)("-m", "wsolnb", *arguments)
    except SignalException as stop:
        return int(stop.sigval)
    except ChildFailedError as failed:
        first, failure = failed.get_first_failure()
        how = f"exit code {failure.exitcode}"
        if failure.exitcode < 0:
            how = f"killed by {signal.Signals(-failure.exitcode).name}"
        raise ProcessFailed(f"process {first} of {processes} failed first ({how}): the others were stopped") from None
    return 0


def load_ipython_extension(shell: Any) -> None:
    """Let Fabric see a kernel as what it is here, a process that nobody types into.

    Fabric takes a process whose prompt is set (`sys.ps1`) for one that a person types into, and starts no strategy of
    several processes there. IPython sets the prompt in every kernel.

    Example:
        >>> sys.ps1 = "In : "
        >>> load_ipython_extension(None)
        >>> hasattr(sys, "ps1")
        False
    """
    del sys.ps1
