"""Sweeps on a cluster of Dask, of real processes: what is killed, stopped, or not shared."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from dask_processes import Cluster, until, working_in
from tiny_notebook import write_tiny_notebook

from wsolnb.runs import workers
from wsolnb.runs.sweep import Sweep, read_grid

WORK = """\
import json, os, pathlib, time
here = pathlib.Path(out).parents[1]  # the sweep
with (here / "ledger").open("a") as ledger:
    ledger.write(f"{n} {os.getppid()} {os.environ['WSOLNB_CACHE']} {os.environ['OMP_NUM_THREADS']}\\n")
while not (here / "go").exists():
    time.sleep(0.05)
numbers = {"parameters": {"n": n}, "metrics": {"m": {"double": {"value": 2.0 * n}}}}
rest = {"wall_time": 1, "device": "cpu", "revision": None, "finished": "now"}
_ = pathlib.Path(out, "metrics.json").write_text(json.dumps(numbers | rest))
"""
SWEEP = [str(Path(sys.executable).with_name("wsolnb")), "sweep", "tiny.ipynb", "--grid", "grid.yaml", "--cluster"]


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a sweep over four runs, which end once there is a file `go` in it."""
    here = tmp_path / "here"
    folder = here / "runs" / "tiny" / "grid"
    folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("WSOLNB_CACHE", str(here / "cache"))
    write_tiny_notebook(here, WORK)
    (here / "grid.yaml").write_text("n: [1, 2, 3, 4]\n")
    return folder


def start(address: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*SWEEP, address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ledger(sweep: Path) -> list[list[str]]:
    file = sweep / "ledger"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def require_complete(sweep: Path) -> None:
    assert sorted(pd.read_csv(sweep / "results.csv")["parameter.n"]) == [1, 2, 3, 4]
    assert len(list(sweep.glob("n-*/status.json"))) == 4
    assert not list(sweep.glob(".attempts*"))


@pytest.mark.slow
def test_a_stopped_sweep_stops_its_workers_and_goes_on_and_a_killed_worker_costs_nothing(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="install the extra 'cluster'")
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.work(WSOLNB_CACHE="another")
        cluster.work(WSOLNB_CACHE="another")
        with start(cluster.address) as stopped:
            until(lambda: len(ledger(sweep)) == 2)
            assert len(working_in(Path.cwd())) == 4  # this test, the sweep, two kernels
            stopped.send_signal(signal.SIGINT)
            _, errors = stopped.communicate(timeout=60)
        assert stopped.returncode == 130, errors
        assert errors == "stopped; 0 of 4 runs are done: give the same command again to go on\n"
        until(lambda: working_in(Path.cwd()) == [os.getpid()], seconds=10)
        assert not list(sweep.glob("n-*"))

        with start(cluster.address) as run:
            until(lambda: len(ledger(sweep)) == 4)
            struck = ledger(sweep)[-1]
            next(worker for worker in cluster.workers if str(worker.pid) == struck[1]).kill()
            (sweep / "go").touch()
            shown, errors = run.communicate(timeout=120)
        assert run.returncode == 0, shown + errors
    assert "4 of 4 runs done" in shown
    require_complete(sweep)
    assert Counter(line[0] for line in ledger(sweep)[2:]) == {n: 2 if n == struck[0] else 1 for n in "1234"}
    assert {line[2] for line in ledger(sweep)} == {os.environ["WSOLNB_CACHE"]}
    assert {line[3] for line in ledger(sweep)} == {workers.thread_caps(2)["OMP_NUM_THREADS"]}


@pytest.mark.slow
def test_workers_that_cannot_take_part_are_named(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="install the extra 'cluster'")
    monkeypatch.setattr(workers, "_ANSWER", 2)
    cache = Path(os.environ["WSOLNB_CACHE"])
    cache.mkdir()
    hidden = ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs none {cache} && exec "$@"', "sh"]

    def refused(error: type[OSError], message: str, address: str) -> None:
        with pytest.raises(error, match=message):
            Sweep(read_grid("tiny.ipynb", "grid.yaml"), sweep).run(cluster=address)

    refused(ConnectionError, r"no scheduler of Dask answers at tcp://127\.0\.0\.1:9: ", "tcp://127.0.0.1:9")
    with Cluster(tmp_path / "cluster") as cluster:
        refused(ConnectionError, f"no worker at {cluster.address} within 2 seconds: start", cluster.address)
        monkeypatch.setattr(workers, "_ANSWER", 30)
        if shutil.which("unshare") and subprocess.run([*hidden, "true"]).returncode == 0:
            cluster.work(*hidden)
            refused(FileNotFoundError, f"the worker tcp://127.* does not see {cache}: it has to be on", cluster.address)
            cluster.workers[0].kill()
            cluster.workers[0].wait()
        cluster.work(DASK_DISTRIBUTED__WORKER__PRELOAD=json.dumps(["import sys; sys.prefix = '/elsewhere'"]))
        refused(ConnectionError, "the worker tcp://127.* runs in /elsewhere, not in this env", cluster.address)
    assert ledger(sweep) == []


def test_a_cluster_needs_dask(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ModuleNotFoundError, match=r"the extra 'cluster': pip install 'wsolnb\[cluster\]'"):
        Sweep(read_grid("tiny.ipynb", "grid.yaml"), sweep).run(cluster="tcp://127.0.0.1:9")
