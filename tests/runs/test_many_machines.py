"""The commands of docs/many_machines.md, as they stand there, with fewer processes and this machine for all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dask_processes import alive, until
from tiny_notebook import write_tiny_notebook

from wsolnb.runs.paper import Paper

CUB = "bae2020 --recipe cub-vgg16 -p data_root /shared/cub"
TRAIN = """\
import os, pathlib, torch
from torch.utils.data import TensorDataset
from wsolnb.losses import CrossEntropy
from wsolnb.models.cam import classifier
from wsolnb.train import Plan, train
torch.manual_seed(0)
data = TensorDataset(torch.rand(24, 3, 32, 32), torch.arange(24) % 3)
done = train(classifier("tiny", 3), data, CrossEntropy(), Plan(3, 8, lr=0.1), device="cpu", precision="32-true")
world = int(os.environ.get("WORLD_SIZE", 1))
if out:  # the first process has a folder
    pathlib.Path(out, "losses").write_text(" ".join([str(world), *(str(line["loss"]) for line in done.history)]))
"""
SHARED = {"/shared/cache": "$PWD/cache", "cd /shared/wsolnb\n": "", "/shared/wsolnb/.venv": sys.prefix}
"""Where the paths of the docs are in a test, whose folder is the working folder."""


@pytest.fixture(scope="module")
def blocks(repo: Path) -> dict[str, list[str]]:
    """The commands of every section."""
    text = (repo / "docs" / "many_machines.md").read_text(encoding="utf-8")
    sections = [section.partition("\n") for section in text.split("\n## ")[1:]]
    return {title: re.findall(r"^```\w+\n(.*?)^```$", body, re.MULTILINE | re.DOTALL) for title, _, body in sections}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a notebook that trains and keeps its losses, and a `bin` first in `PATH`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    write_tiny_notebook(tmp_path, TRAIN)
    (tmp_path / "bin").mkdir()
    return tmp_path


def stand_in(place: Path, name: str, script: str) -> None:
    (place / "bin" / name).write_text(f"#!/bin/bash\n{script}")
    (place / "bin" / name).chmod(0o755)


def changed(command: str, changes: dict[str, str]) -> str:
    """A command with other counts, hosts and paths, each of which it must have."""
    for old, new in changes.items():
        assert old in command, f"the docs have no {old!r}: {command}"
        command = command.replace(old, new)
    return command


def start(blocks: dict[str, list[str]], command: str) -> subprocess.Popen[str]:
    """A command in a shell that did what the docs say to do first."""
    shell = f"set -e\n{changed(blocks['What all machines need'][1], SHARED)}\n{command}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(["bash", "-c", shell], **pipes)  # type: ignore[call-overload]


def require_success(*running: subprocess.Popen[str]) -> str:
    shown = [process.communicate(timeout=400)[0] for process in running]
    assert [process.returncode for process in running] == [0] * len(running), "\n".join(shown)
    return "".join(shown)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of one process."""
    namespace = {"out": str(tmp_path_factory.mktemp("alone"))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSOLNB_CACHE", namespace["out"])
        exec(TRAIN, namespace)
    return losses(Path(namespace["out"]), 1)


def losses(folder: Path, processes: int) -> list[float]:
    world, *values = (folder / "losses").read_text().split()
    assert int(world) == processes
    assert len(values) == 3
    return [float(value) for value in values]


def test_every_block_is_tried(blocks: dict[str, list[str]], repo: Path) -> None:
    counts = [len(found) for found in blocks.values()]
    assert list(blocks) == [
        "What all machines need",
        "One machine with 8 GPUs",
        "Two machines",
        "SLURM",
        "A sweep or a study on a Dask cluster",
        "Dask on SLURM",
    ]
    assert counts == [2, 2, 1, 1, 3, 1]
    install, before = blocks["What all machines need"]
    extras = tomllib.loads((repo / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"\[([\w,]+)\]", install)[0].split(",")) <= set(extras)
    assert before in blocks["SLURM"][0]
    assert "cub-vgg16" in Paper("bae2020").recipes()


@pytest.mark.slow
def test_one_machine(blocks: dict[str, list[str]], place: Path, alone: list[float]) -> None:
    processes, torchrun = blocks["One machine with 8 GPUs"]
    command = changed(processes, {CUB: "tiny.ipynb --name mine", "--processes 8": "--processes 4"})
    assert require_success(start(blocks, command)).count("done in") == 1
    assert losses(Path("runs/tiny/mine"), 4) == pytest.approx(alone, rel=1e-4)
    few = {CUB: "primer --recipe smoke --name mine", "nproc-per-node 8": "nproc-per-node 2", "THREADS=8": "THREADS=1"}
    assert require_success(start(blocks, changed(torchrun, few))).count("done in") == 1
    assert json.loads(Path("runs/primer/mine/metrics.json").read_text())["metrics"]["cam"]


@pytest.mark.slow
def test_two_machines(blocks: dict[str, list[str]], place: Path, alone: list[float]) -> None:
    (command,) = blocks["Two machines"]
    few = {CUB: "tiny.ipynb --name mine", "nproc-per-node 8": "nproc-per-node 2", "THREADS=8": "THREADS=1"}
    command = changed(command, {**few, "node1:29400": "localhost:29417"})
    require_success(start(blocks, command), start(blocks, command))
    assert losses(Path("runs/tiny/mine"), 4) == pytest.approx(alone, rel=1e-4)


SRUN = """\
[[ $1 == --cpus-per-task ]] || exit 9
export SRUN_CPUS_PER_TASK=$2
shift 2
for node in 0 1; do
  SLURM_NODEID=$node SLURM_PROCID=$node SLURM_LOCALID=0 SLURM_NTASKS=2 "$@" &
  tasks+=($!)
done
for task in "${tasks[@]}"; do wait "$task" || exit; done
"""


@pytest.mark.slow
def test_slurm(blocks: dict[str, list[str]], place: Path, alone: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = blocks["SLURM"]
    Path("job.sh").write_text(changed(script, {**SHARED, CUB: "tiny.ipynb", "29400": "29418"}))
    stand_in(place, "scontrol", '[[ $* == "show hostnames node[1-2]" ]] && printf "localhost\\nlocalhost\\n"')
    stand_in(place, "srun", SRUN)
    given = {"JOB_ID": "7", "JOB_NODELIST": "node[1-2]", "NNODES": "2", "CPUS_PER_TASK": "2", "GPUS_ON_NODE": "1"}
    for name, value in given.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    subprocess.run(["bash", "-n", "job.sh"], check=True)
    require_success(start(blocks, "bash job.sh"))
    assert losses(Path("runs/tiny/cub"), 2) == pytest.approx(alone, rel=1e-4)


SBATCH = """\
cp "$1" job.sh
SLURM_JOB_ID=$$ setsid bash job.sh > log 2>&1 &
echo $! > job
echo "Submitted batch job $!"
"""


@pytest.mark.slow
def test_dask(blocks: dict[str, list[str]], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="install the extra 'cluster'")
    scheduler, worker, both = blocks["A sweep or a study on a Dask cluster"]
    few = {"node1:8786": "127.0.0.1:8797"}
    Path("values.yaml").write_text("n: [1, 2]\n")
    running = [
        start(blocks, "exec " + changed(scheduler, {"--port 8786": "--host 127.0.0.1 --port 8797 --no-dashboard"})),
        start(blocks, "exec " + changed(worker, {**few, "--nworkers 8": "--nworkers 2 --no-dashboard"})),
    ]
    try:
        changes = {"bae2020": "tiny.ipynb", "--seeds 8": "--recipe smoke --seeds 1", **few}
        shown = require_success(start(blocks, changed(both, changes)))
    finally:
        for process in reversed(running):
            process.terminate()
            process.communicate(timeout=30)
    assert "2 of 2 runs done" in shown
    assert "1 of 1 runs done" in shown
    assert len(list(Path("runs/tiny/values").glob("n-*/losses"))) == 2
    about = json.loads(Path("runs/primer/study-smoke/study.json").read_text())
    assert (about["seeds"], about["missing"]) == ([100], [])

    pytest.importorskip("dask_jobqueue", reason="install dask-jobqueue")
    stand_in(place, "sbatch", SBATCH)
    stand_in(place, "scancel", 'kill -- "-$1"')
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__ENABLED", "False")
    (code,) = blocks["Dask on SLURM"]
    small = {"jobs=8": "jobs=1", "32GB": "1GB", '"--seeds", "8"': '"--recipe", "smoke", "--seeds", "2"'}
    Path("jobs.py").write_text(changed(code, small))
    shown = require_success(start(blocks, "python jobs.py"))
    assert "1 of 2 runs are done already" in shown
    assert "2 of 2 runs done" in shown
    header = re.findall(r"^#SBATCH (.*)", Path("job.sh").read_text(), re.MULTILINE)
    assert {"-n 1", "--cpus-per-task=8", "-t 08:00:00", "--gpus=1"} <= set(header)
    until(lambda: not alive(int(Path("job").read_text())), seconds=20)
