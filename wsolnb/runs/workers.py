"""Where the runs of a sweep are computed: local processes or Dask; one GPU per run, and a share of the cores."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

_LOOK_EVERY, _GRACE = 0.5, 30.0  # seconds between two looks for the parent; from SIGTERM to the end
_CAPS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def thread_caps(runs: int) -> dict[str, str]:
    """Environment variables that give each of ``runs`` concurrent runs an equal number of this machine's cores.

    Example:
        >>> thread_caps(10_000)["OMP_NUM_THREADS"]
        '1'
    """
    import joblib

    return dict.fromkeys(_CAPS, str(max(1, joblib.cpu_count() // runs)))


def gpus() -> list[str]:
    """The CUDA devices of this machine as ``CUDA_VISIBLE_DEVICES`` names them; only the visible ones, if that is set.

    Example:
        >>> isinstance(gpus(), list)
        True
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    if not (program := shutil.which("nvidia-smi")):
        return []
    listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=60)
    return re.findall(r"^GPU (\d+):", listed.stdout, re.MULTILINE)


@contextmanager
def one_gpu(parameters: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Reserve a GPU of this machine for one run, or wait for one; give the variables that make only it visible.

    None is reserved if the run's parameter ``device`` is ``cpu``, or the machine has none.

    Example:
        >>> with one_gpu({"device": "cpu"}) as variables:
        ...     print(variables)
        {}
    """
    names = [] if parameters.get("device") == "cpu" else gpus()
    if not names:
        yield {}
        return
    user = os.getuid() if hasattr(os, "getuid") else 0
    locks = {name: FileLock(Path(tempfile.gettempdir()) / f"wsolnb-{user}-gpu-{name}.lock") for name in names}
    while True:
        for name, lock in locks.items():
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                yield {"CUDA_VISIBLE_DEVICES": name}
            finally:
                lock.release()
            return
        time.sleep(0.5)


_WATCHED: set[int] = set()  # processes on which this one hangs


def stop_without(parent: int) -> None:
    """Stop this process soon after the process that started it is gone, even if that was killed.

    It stops as by SIGTERM, so that a training is saved first; half a minute later it is killed. Nothing is watched in
    the process ``parent`` itself, nor on systems without process groups.

    Example:
        >>> stop_without(os.getpid())
    """
    if parent == os.getpid() or os.name != "posix":
        return
    if os.getppid() != parent:  # a worker that has been told to stop, and waits for its next run
        os._exit(1)
    if parent not in _WATCHED:
        _WATCHED.add(parent)
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)


@contextmanager
def worker_pool(backend: str, address: str, jobs: int) -> Iterator[tuple[int, int]]:
    """Set joblib's backend; give ``n_jobs`` for ``joblib.Parallel``, and how many runs share a machine.

    Arguments and errors as for :meth:`wsolnb.runs.sweep.Sweep.run`.

    Example:
        >>> with worker_pool("loky", "", jobs=2) as pool:
        ...     print(pool)
        (2, 2)
    """
    import joblib

    jobs = jobs or len(gpus()) or max(1, joblib.cpu_count() // 2)
    if backend == "loky":
        if address:
            raise ValueError(f"backend loky works on this machine: --address {address} goes with dask")
        with joblib.parallel_config("loky"):
            yield jobs, jobs
    elif backend == "dask":
        with _dask(address, jobs) as client, joblib.parallel_config("dask", client=client):
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
            hosts = [worker["host"] for worker in workers for _ in range(worker["nthreads"])]
            yield -1, max((hosts.count(host) for host in hosts), default=1)
    else:
        raise ValueError(f"backend is {backend!r}, not loky or dask")


@contextmanager
def _dask(address: str, jobs: int) -> Iterator[Any]:
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise ModuleNotFoundError("backend dask needs the extra 'cluster': pip install 'wsolnb[cluster]'") from None
    local: dict[str, Any] = {"n_workers": jobs, "threads_per_worker": 1, "dashboard_address": None}
    with nullcontext(address) if address else LocalCluster(**local) as scheduler:
        try:
            client = Client(scheduler, timeout=10)
        except (OSError, ValueError) as error:
            raise ConnectionError(f"no scheduler of Dask answers at {address}: {error}") from None
        with client:
            yield client
