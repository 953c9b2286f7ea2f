"""Sweeps over a notebook of a second, really executed, here or in processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from dask_processes import alive, until, working_in
from filelock import FileLock
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from rich.console import Console
from typer.testing import CliRunner

from wsolnb.cli.app import app
from wsolnb.cli.sweep import table
from wsolnb.runs import sweep as sweeps
from wsolnb.runs.sweep import Outcome, Sweep, _attempt, read_grid
from wsolnb.runs.workers import gpus, one_gpu, thread_caps

PARAMETERS = """\
n: int = 1  # a number
word: str = "fine"  # fine; bad: fails; once: fails the first time; kill: its worker, then; wait: until a file is there
sides: list[int] = [1, 2]
out: str = ""
"""
WORK = """\
import json, os, pathlib, signal, time
here = pathlib.Path(out).parents[1]  # the sweep
with (here / "ledger").open("a") as ledger:
    ledger.write(f"{n} {os.getppid()} {os.environ['OMP_NUM_THREADS']}\\n")
before = (here / "ledger").read_text().split("\\n")
first = sum(line.startswith(f"{n} ") for line in before) < 2
assert word != "bad" and not (word == "once" and first), word
if word == "kill" and first:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
while word == "wait" and not (here / "go").exists():
    time.sleep(0.05)
"""
RECORD = """\
numbers = {"parameters": {"n": n, "word": word}, "metrics": {"m": {"double": {"value": 2.0 * n}}}}
rest = {"wall_time": 1, "device": "cpu", "revision": None, "finished": "now"}
_ = pathlib.Path(out, "metrics.json").write_text(json.dumps(numbers | rest))
"""


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), new_markdown_cell("## Work")]
    nbformat.write(new_notebook(cells=[*cells, new_code_cell(WORK), new_code_cell(RECORD)]), tmp_path / "tiny.ipynb")
    return tmp_path / "tiny.ipynb"


def grid(folder: Path, text: str) -> Path:
    (folder / "grid.yaml").write_text(text)
    return folder / "grid.yaml"


def ledger(sweep: Path) -> list[list[str]]:
    return [line.split() for line in (sweep / "ledger").read_text().splitlines()]


def test_a_grid_is_the_product_of_its_lists(notebook: Path, tmp_path: Path) -> None:
    points = read_grid(str(notebook), grid(tmp_path, "n: [1, 2]\nword: [a/b, c]\nsides: [8, 9]\n"))
    assert [point.varied for point in points] == [{"n": n, "word": w} for n in (1, 2) for w in ("a/b", "c")]
    assert all(point.run.parameters["sides"] == [8, 9] for point in points)
    assert points[0].name.startswith("n-1_word-a-b-")
    assert len({point.name for point in points}) == 4
    points = read_grid(str(notebook), grid(tmp_path, "sides: [[], [3]]\n"), given={"n": "7"})
    assert [point.run.parameters["sides"] for point in points] == [[], [3]]
    assert {point.run.parameters["n"] for point in points} == {7}


def test_the_name_of_a_point_follows_from_all_its_parameters(notebook: Path, tmp_path: Path) -> None:
    def digest(text: str) -> str:
        (point,) = read_grid(str(notebook), grid(tmp_path, text))
        return point.name.rpartition("-")[2]

    assert digest("n: [1]\n") == digest("word: [fine]\n")  # the notebook's own values, said or not
    assert digest("n: [2]\n") != digest("n: [1]\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wrd: [1, 2]\n", r"no parameter 'wrd' \(did you mean 'word'"),
        ("n: [1, many]\n", "parameter n wants int, which 'many' is not"),
        ("n: []\n", "n has no values to vary"),
        ("n: [1, 1]\n", "a value is repeated"),
        ("word: [a, b]\nn: [1, '1']\n", "a value is repeated"),
        ("out: [a]\n", "out is set by the run itself"),
        ("n 1\n", "holds no parameters"),
    ],
)
def test_a_grid_is_checked_before_anything_runs(notebook: Path, tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_grid(str(notebook), grid(tmp_path, text))


def test_what_varies_is_not_given_besides(notebook: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"n varies in .*grid\.yaml"):
        read_grid(str(notebook), grid(tmp_path, "n: [1, 2]\n"), given={"n": "3"})


def test_failed_runs_are_tried_again_and_finished_ones_never(notebook: Path, tmp_path: Path) -> None:
    points = read_grid(str(notebook), grid(tmp_path, "n: [1]\nword: [fine]\n"))
    points += read_grid(str(notebook), grid(tmp_path, "n: [2]\nword: [once]\n"))
    points += read_grid(str(notebook), grid(tmp_path, "n: [3]\nword: [bad]\n"))
    sweep = Sweep(points, tmp_path / "sweep")
    outcomes = sweep.run(jobs=2)
    assert [outcomes[point.name].state for point in points] == ["done", "done", "failed"]
    assert "AssertionError: bad" in outcomes[points[2].name].error
    assert Counter(line[0] for line in ledger(sweep.folder)) == {"1": 1, "2": 2, "3": 2}
    assert {line[2] for line in ledger(sweep.folder)} == {thread_caps(2)["OMP_NUM_THREADS"]}
    results = pd.read_csv(sweep.folder / "results.csv")
    assert sorted(zip(results["parameter.n"], results.value, strict=True)) == [(1, 2.0), (2, 4.0)]
    assert (sweep.folder / points[2].name / "notebook.ipynb").exists()
    assert not (sweep.folder / sweeps.ATTEMPTS).exists()

    again = Sweep(points[:2] + read_grid(str(notebook), grid(tmp_path, "n: [4]\n")), sweep.folder)
    assert {outcome.state for outcome in again.run(jobs=1).values()} == {"done"}
    assert Counter(line[0] for line in ledger(sweep.folder)) == {"1": 1, "2": 2, "3": 2, "4": 1}
    assert sorted(pd.read_csv(sweep.folder / "results.csv")["parameter.n"]) == [1, 2, 4]


def test_a_worker_that_dies_costs_its_run_one_try(notebook: Path, tmp_path: Path) -> None:
    points = read_grid(str(notebook), grid(tmp_path, "n: [1]\nword: [kill]\n"))
    points += read_grid(str(notebook), grid(tmp_path, "n: [2]\nword: [fine]\n"))
    sweep = Sweep(points, tmp_path / "sweep")
    assert {outcome.state for outcome in sweep.run(jobs=2).values()} == {"done"}
    begun = Counter(line[0] for line in ledger(sweep.folder))
    assert begun["1"] == 2
    assert begun["2"] <= 2
    assert sorted(pd.read_csv(sweep.folder / "results.csv")["parameter.n"]) == [1, 2]


def test_a_run_done_twice_is_kept_once(notebook: Path, tmp_path: Path) -> None:
    (point,) = read_grid(str(notebook), grid(tmp_path, "n: [1]\n"))
    sweep = Sweep([point], tmp_path / "sweep")
    place = sweep.folder / point.name
    place.mkdir(parents=True)
    (sweep.folder / sweeps.ATTEMPTS).mkdir()
    (place / sweeps.STATUS).write_text('{"state": "failed", "seconds": 1, "error": "before"}')
    _attempt(point, sweep.folder, place, 1, tmp_path, {})  # makes room for itself
    kept = (place / sweeps.STATUS).stat().st_ino
    assert sweep.outcomes()[point.name].state == "done"
    _attempt(point, sweep.folder, place, 1, tmp_path, {})
    assert (place / sweeps.STATUS).stat().st_ino == kept
    assert list((sweep.folder / sweeps.ATTEMPTS).iterdir()) == []
    assert "[3/4] Work" in (place / sweeps.LOG).read_text()


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "", ".."])
@pytest.mark.parametrize("command", [["sweep", "--grid", "grid.yaml"], ["study"]])
def test_a_name_stays_below_the_folder_of_runs(notebook: Path, tmp_path: Path, command: list[str], name: str) -> None:
    grid(tmp_path, "n: [1]\n")
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(app, [command[0], "tiny.ipynb", *command[1:], "--name", name])
    assert done.exit_code == 2
    assert f"{name!r} is no name for a run: use letters, digits and . + - _" in done.output
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"state": "well", "seconds": 1, "error": ""}'])
def test_a_damaged_status_costs_no_result_and_is_named(notebook: Path, tmp_path: Path, content: str) -> None:
    sweep = Sweep(read_grid(str(notebook), grid(tmp_path, "n: [1, 2]\n")), tmp_path / "sweep")
    done, failed = (sweep.folder / point.name for point in sweep.points)
    for folder in (done, failed):
        folder.mkdir(parents=True)
        (folder / sweeps.STATUS).write_text(content)
    (done / "metrics.json").write_text("{}")  # a run writes it at its end
    outcomes = sweep.outcomes()
    assert outcomes[done.name].state == "done"
    assert outcomes[failed.name].state == "failed"
    assert f"{failed / sweeps.STATUS} is damaged (" in outcomes[failed.name].error


def test_an_odd_record_does_not_cost_the_table_of_the_others(notebook: Path, tmp_path: Path) -> None:
    sweep = Sweep(read_grid(str(notebook), grid(tmp_path, "n: [1, 2]\n")), tmp_path / "sweep")
    sweep.run(jobs=1)
    odd = sweep.folder / sweep.points[0].name / "metrics.json"
    odd.write_text('{"metrics": 3}')
    with pytest.warns(UserWarning, match=f"{odd} is no record of a run, and left out"):
        sweep.run(jobs=1)
    assert pd.read_csv(sweep.folder / "results.csv")["parameter.n"].tolist() == [2]


def test_two_sweeps_do_not_share_a_folder(notebook: Path, tmp_path: Path) -> None:
    sweep = Sweep(read_grid(str(notebook), grid(tmp_path, "n: [1]\n")), tmp_path / "sweep")
    sweep.folder.mkdir()
    with FileLock(sweep.folder / ".lock"), pytest.raises(BlockingIOError, match="another sweep works in"):
        sweep.run()
    assert not (sweep.folder / "points.yaml").exists()


def test_the_table_shows_what_runs_first(notebook: Path, tmp_path: Path) -> None:
    sweep = Sweep(read_grid(str(notebook), grid(tmp_path, "n: [1, 2, 3]\n")), tmp_path / "sweep")
    first, second, third = (point.name for point in sweep.points)
    (sweep.folder / first).mkdir(parents=True)
    (sweep.folder / first / sweeps.STATUS).write_text('{"state": "done", "seconds": 61.0, "error": ""}')
    running = sweep.folder / sweeps.ATTEMPTS / f"{third}@1"
    running.mkdir(parents=True)
    (running / "parameters.yaml").write_text("")
    (running / sweeps.LOG).write_text("[1/4]\n[2/4] Data\nloss 3\n")
    outcomes = sweep.outcomes()
    assert outcomes[first] == Outcome("done", 61.0)
    assert outcomes[second] == Outcome()
    assert (outcomes[third].state, outcomes[third].progress) == ("running", "[2/4] Data")
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(table(sweep, outcomes, rows=2))
        shown = console.export_text()
    assert "running │ [2/4] Data" in shown
    assert "waiting" in shown
    assert "61 s" not in shown  # what is done gives way
    assert "1 done, 1 waiting, 1 running" in shown


def test_every_run_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-7")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert gpus() == ["4", "GPU-7"]
    got: list[str] = []

    def third() -> None:
        with one_gpu({}) as variables:
            got.append(variables["CUDA_VISIBLE_DEVICES"])

    with one_gpu({"device": "auto"}) as one:
        with one_gpu({"device": "cuda"}) as two, one_gpu({"device": "cpu"}) as none:
            assert (one, two, none) == ({"CUDA_VISIBLE_DEVICES": "4"}, {"CUDA_VISIBLE_DEVICES": "GPU-7"}, {})
            waits = threading.Thread(target=third)
            waits.start()
            time.sleep(0.2)
            assert got == []
        waits.join(timeout=20)
        assert got == ["GPU-7"]
    with one_gpu({}) as here:
        monkeypatch.setenv("SLURM_JOB_ID", "12")  # where another GPU may have the same number
        with one_gpu({}) as there:
            assert here == there == {"CUDA_VISIBLE_DEVICES": "4"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert gpus() == []


def test_gpus_are_counted_without_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho '  MIG 1g Device 0:'\necho 'GPU 1: A'")
    program.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == ["0", "1"]
    program.unlink()
    assert gpus() == []


def test_the_command_line_brings_no_engine_with_it() -> None:
    heavy = "{'torch', 'joblib', 'dask', 'distributed', 'pandas'}"
    code = f"import sys, wsolnb.cli.app, wsolnb.cli.sweep; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
    shown = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}).invoke(app, ["sweep", "--help"]).output
    assert all(option in shown for option in ("--grid", "--jobs", "--cluster"))


def sweeping(*options: str) -> list[str]:
    return [str(Path(sys.executable).with_name("wsolnb")), "sweep", "tiny.ipynb", "--grid", "grid.yaml", *options]


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_stopped(notebook: Path, tmp_path: Path) -> None:
    grid(tmp_path, "n: [1, 2]\nword: wait\n")
    sweep = tmp_path / "runs" / "tiny" / "grid"
    sweep.mkdir(parents=True)
    (sweep / "go").touch()
    first = subprocess.Popen(sweeping("--jobs", "1"), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    with first:
        until(lambda: list(sweep.glob("n-1*/status.json")))
        (sweep / "go").unlink()
        until(lambda: [line[0] for line in ledger(sweep)] == ["1", "2"])
        first.send_signal(signal.SIGKILL)
    (sweep / "go").touch()
    done = subprocess.run(sweeping("--jobs", "1"), cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 of 2 runs are done already" in done.stdout
    assert "2 of 2 runs done" in done.stdout
    assert sorted(pd.read_csv(sweep / "results.csv")["parameter.n"]) == [1, 2]
    assert [line[0] for line in ledger(sweep)].count("1") == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
@pytest.mark.parametrize("jobs", [1, 2])
def test_after_a_sweep_is_killed_its_workers_stop(notebook: Path, tmp_path: Path, jobs: int) -> None:
    grid(tmp_path, "n: [1, 2]\nword: wait\n")
    (tmp_path / "started").mkdir()
    sweep = tmp_path / "started" / "runs" / "tiny" / "grid"
    command = [*sweeping("--jobs", str(jobs))]
    command[command.index("tiny.ipynb")], command[command.index("grid.yaml")] = "../tiny.ipynb", "../grid.yaml"
    here = {"cwd": tmp_path / "started", "text": True}
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **here)  # type: ignore[call-overload]
    until(lambda: (sweep / "ledger").exists() and len(ledger(sweep)) == jobs)
    family = working_in(tmp_path / "started")
    assert {int(line[1]) for line in ledger(sweep)} | {first.pid} <= set(family)
    assert len(family) >= 1 + (2 * jobs if jobs > 1 else 1)  # the sweep, its workers, their kernels
    first.send_signal(signal.SIGKILL)
    first.wait()
    until(lambda: not any(alive(pid) for pid in family), seconds=20)
    assert not list(sweep.glob("n-*/status.json"))
    (sweep / "go").touch()
    done = subprocess.run([*command, "--jobs", "1"], capture_output=True, **here)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(pd.read_csv(sweep / "results.csv")["parameter.n"]) == [1, 2]
