"""Where the runs of a sweep are computed: local processes, Dask or Ray; a GPU for each run and a share of the cores."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

Backend = Literal["loky", "dask", "ray"]
_CAPS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def thread_caps(share: int) -> dict[str, str]:
    """Variables that leave each of ``share`` runs on this machine as many threads as its part of the cores.

    Example:
        >>> thread_caps(10_000)["OMP_NUM_THREADS"]
        '1'
    """
    import joblib

    return dict.fromkeys(_CAPS, str(max(1, joblib.cpu_count() // share)))


def gpus() -> list[str]:
    """The CUDA devices of this machine, as ``CUDA_VISIBLE_DEVICES`` names them; only those, if that is set.

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
    """Take a GPU of this machine for one run, or wait for one; the lock goes with the process that holds it.

    Args:
        parameters: Of the run; with ``device`` at ``cpu`` it takes none.
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


@contextmanager
def pool(backend: Backend, address: str, jobs: int) -> Iterator[tuple[int, int]]:
    """Set joblib's backend.

    Args:
        backend: Its name.
        address: Of a scheduler of Dask or Ray; empty: processes of this machine.
        jobs: How many runs at a time; 0: one per GPU, or where there is none one per two cores.

    Returns:
        For ``joblib.Parallel(n_jobs=...)``, and how many runs share a machine.

    Raises:
        ValueError: If there is no such backend, or loky is to work elsewhere.
        ModuleNotFoundError: If the backend is not installed.
        ConnectionError: If no scheduler answers.
    """
    import joblib

    jobs = jobs or len(gpus()) or max(1, joblib.cpu_count() // 2)
    enter: Callable[..., Any] = joblib.parallel_config
    if backend == "loky":
        if address:
            raise ValueError(f"backend loky works on this machine: --address {address} goes with dask or ray")
        with enter("loky"):
            yield jobs, jobs
    elif backend == "dask":
        with _dask(address, jobs) as client, enter("dask", client=client):
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
            hosts = [worker["host"] for worker in workers for _ in range(worker["nthreads"])]
            yield -1, max((hosts.count(host) for host in hosts), default=1)
    elif backend == "ray":
        try:
            from ray.util.joblib import register_ray
        except ImportError:
            raise ModuleNotFoundError("backend ray needs the package: pip install ray") from None
        register_ray()
        if address:
            os.environ["RAY_ADDRESS"] = address  # read by ray when joblib starts it
        here = gpus()
        jobs = min(jobs, len(here) or jobs)
        with enter("ray", ray_remote_args={"num_gpus": 1} if here else {}):  # without, Ray hides the GPUs
            yield (-1 if address else jobs), jobs
    else:
        raise ValueError(f"backend is {backend!r}, not loky, dask or ray")


@contextmanager
def _dask(address: str, jobs: int) -> Iterator[Any]:
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise ModuleNotFoundError("backend dask needs the extra 'cluster': pip install 'wsolnb[cluster]'") from None
    if not address:
        with (
            LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise ConnectionError(f"no scheduler of Dask answers at {address}: {error}") from None
    with client:
        yield client
