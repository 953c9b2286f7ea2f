"""Where the runs of a sweep are computed: processes here, or Dask; one GPU per run, and a share of the cores."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

_LOOK_EVERY, _GRACE = 0.5, 30.0  # seconds between two looks for the parent; from SIGTERM to the end
_ANSWER = 10  # seconds for the scheduler of a cluster, and for its first worker
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

    None is reserved if the run's parameter ``device`` is ``cpu``, or the machine has none. A job of SLURM has its own.

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
    job = os.environ.get("SLURM_JOB_ID", "")
    locks = {name: FileLock(Path(tempfile.gettempdir()) / f"wsolnb-{user}-gpu-{job}-{name}.lock") for name in names}
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


Calls = Sequence[tuple[Any, ...]]
CallAll = Callable[[Callable[..., None], Calls], None]

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
def worker_pool(jobs: int, cluster: str, folder: Path) -> Iterator[tuple[CallAll, int, dict[str, str]]]:
    """A function that has workers call another one with each of several arguments, and waits for all of them.

    It raises if a worker dies. With it come how many runs share cores, and variables that runs need there. Arguments
    and errors as for :meth:`wsolnb.runs.sweep.Sweep.run`; ``folder`` is the sweep's.

    Example:
        >>> with worker_pool(1, "", Path("sweep")) as (call_all, sharing, variables):
        ...     call_all(print, [("one", 1), ("two", 2)])
        one 1
        two 2
    """
    import joblib

    if not cluster:
        jobs = jobs or len(gpus()) or max(1, joblib.cpu_count() // 2)

        def here(work: Callable[..., None], calls: Calls) -> None:
            parallel = joblib.Parallel(jobs, backend="loky", batch_size=1, pre_dispatch="all")
            parallel([joblib.delayed(work)(*call) for call in calls])

        yield here, jobs, {}
        return
    from wsolnb._utils.cache import cache_folder

    cache = cache_folder().resolve()
    with _client(cluster) as client:

        def there(work: Callable[..., None], calls: Calls) -> None:
            from distributed import wait

            try:
                futures = [client.submit(work, *call, pure=False) for call in calls]
                wait(futures)
                for future in futures:
                    future.result()
            except Exception as error:
                if client.status == "closed":
                    raise ConnectionError(f"the scheduler at {cluster} is gone") from error
                raise

        yield there, _sharing_cores(client, [folder, cache]), {"WSOLNB_CACHE": str(cache)}


@contextmanager
def _client(cluster: str) -> Iterator[Any]:
    """A client of a cluster that has a worker."""
    try:
        from distributed import Client
    except ImportError:
        raise ModuleNotFoundError("--cluster needs the extra 'cluster': pip install 'wsolnb[cluster]'") from None
    try:
        client = Client(cluster, timeout=_ANSWER)
    except (OSError, ValueError) as error:
        raise ConnectionError(f"no scheduler of Dask answers at {cluster}: {error}") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_ANSWER)
        except TimeoutError:
            message = f"no worker at {cluster} within {_ANSWER} seconds: start some with `dask worker {cluster}`"
            raise ConnectionError(message) from None
        yield client


def _sharing_cores(client: Any, folders: Sequence[Path]) -> int:
    """How many runs share cores; an error if a worker is of another environment, or sees no new file in a folder."""
    with ExitStack() as stack:
        marks = []
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            marks.append(stack.enter_context(tempfile.NamedTemporaryFile(dir=folder, prefix=".seen-")).name)
        answers = client.run(_seen, marks, on_error="return")
    threads, runs = client.nthreads(), Counter[str]()
    for worker, answer in answers.items():
        if isinstance(answer, Exception):
            raise ConnectionError(f"the worker {worker} cannot take part: {answer}") from answer
        environment, cores, seen = answer
        if environment != _environment():
            here = f"start it with {_environment()}/bin/dask"
            raise ConnectionError(f"the worker {worker} runs in {environment}, not in this environment: {here}")
        for folder, visible in zip(folders, seen, strict=True):
            if not visible:
                remedy = "it has to be on a file system that all machines share"
                raise FileNotFoundError(f"the worker {worker} does not see {folder}: {remedy}")
        runs[cores] += threads.get(worker, 1)
    return max(runs.values(), default=1)


def _environment() -> str:
    return str(Path(sys.prefix).resolve())


def _seen(files: Sequence[str]) -> tuple[str, str, list[bool]]:
    """The environment of this process, the cores that it may use, and whether it sees each file."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ""
    return _environment(), f"{socket.gethostname()} {allowed}", [os.path.exists(file) for file in files]
