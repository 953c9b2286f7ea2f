"""`wsolnb run --processes 2`: one run in one folder, and what happens when a part of it fails."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_notebook import write_tiny_notebook
from typer.testing import CliRunner

from wsolnb.cli.app import app
from wsolnb.runs.processes import this_process

GIVEN = {"train_images": 960, "held_images": 16, "test_images": 16, "image_size": 48, "epochs": 3, "draws": 20}
HEED = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
OPTIONS = [text for name, value in GIVEN.items() for text in ("-p", name, str(value))]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """`wsolnb run` in a session of its own, as from a terminal."""
    program = str(Path(sys.executable).with_name("wsolnb"))
    environment = {**os.environ, "WSOLNB_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", HEED, program, "run", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes)  # type: ignore[call-overload]


def together(folder: Path) -> subprocess.Popen[str]:
    return start(folder, "primer", *OPTIONS, "--name", "mine", "--processes", "2")


def below(root: Path, name: str) -> dict[str, int]:
    """Processes of a test's cache by their rank: those whose command line has the name."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environ, command = ((process / file).read_text() for file in ("environ", "cmdline"))
        except OSError:
            continue
        variables = dict(pair.split("=", 1) for pair in environ.split("\0") if "=" in pair)
        if variables.get("WSOLNB_CACHE") == str(root / "cache") and "RANK" in variables and name in command:
            found[variables["RANK"]] = int(process.name)
    return found


def after(line: str, running: subprocess.Popen[str]) -> None:
    assert running.stdout is not None
    next(shown for shown in running.stdout if shown.startswith(line))


@pytest.mark.slow
def test_two_processes_leave_what_one_leaves(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with start(tmp_path / "one", "primer", *OPTIONS, "--name", "mine") as running:
        shown, errors = running.communicate(timeout=240)
    assert running.returncode == 0, errors
    with together(tmp_path / "two") as running:
        both, errors = running.communicate(timeout=240)
    assert running.returncode == 0, errors
    one, two = (
        {
            str(path.relative_to(folder / "runs")): path
            for path in sorted((folder / "runs").rglob("*"))
            if path.is_file()
        }
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert one.keys() == two.keys()
    losses = [[float(loss) for loss in re.findall(r"loss ([\d.]+)", text)] for text in (shown, both)]
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=0.02)  # bfloat16, where the processor has it
    assert len(re.findall(r"^\[ *1/", both, re.MULTILINE)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("key", "numbers"), [("barz2022", 130), ("bency2016", 40), ("side_by_side", 734)])
def test_two_processes_leave_and_measure_what_one_does(tmp_path: Path, key: str, numbers: int) -> None:
    """In double precision: else weights differ by rounding, and so may the best of two thresholds nearly as good."""
    files, values, losses = [], [], []
    for number in ("1", "2"):
        folder = tmp_path / number
        folder.mkdir()
        recipe = (key, "--recipe", "smoke", "-p", "precision", "64-true", "--name", "mine", "--processes", number)
        with start(folder, *recipe) as running:
            shown, errors = running.communicate(timeout=240)
        assert running.returncode == 0, errors
        assert len(re.findall(r"^\[ *1/", shown, re.MULTILINE)) == 1
        losses.append([float(loss) for loss in re.findall(r"loss ([\d.]+)", shown)])
        files.append({str(path.relative_to(folder)) for path in (folder / "runs").rglob("*") if path.is_file()})
        metrics = json.loads((folder / "runs" / key / "mine" / "metrics.json").read_text())["metrics"]
        values.append({(name, kind): each["value"] for name, row in metrics.items() for kind, each in row.items()})
    assert files[0] == files[1]
    assert losses[0]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert len(values[0]) == numbers
    assert values[1] == pytest.approx(values[0], rel=1e-6, nan_ok=True)


@pytest.mark.slow
def test_whatever_is_stopped_or_killed_the_same_command_goes_on(tmp_path: Path) -> None:
    with together(tmp_path) as running:
        after("epoch   1/3", running)
        os.killpg(running.pid, signal.SIGINT)
        _, errors = running.communicate(timeout=120)
    assert running.returncode == 130, errors
    assert "run the same again to go on" in errors
    with together(tmp_path) as running:
        after("epoch   2/3", running)  # it goes on in the second epoch
        os.kill(below(tmp_path, "\0wsolnb\0run")["1"], signal.SIGKILL)
        begun = time.monotonic()
        _, errors = running.communicate(timeout=120)
    assert running.returncode == 1, errors
    assert "process 1 of 2 failed first (killed by SIGKILL): the others were stopped" in errors
    assert time.monotonic() - begun < 40
    with together(tmp_path) as running:
        after("epoch   1/3", running)  # of the second training
        running.kill()
    begun = time.monotonic()
    while below(tmp_path, ""):
        assert time.monotonic() - begun < 60, "processes outlive the one that started them"
        time.sleep(0.5)
    with together(tmp_path) as running:
        _, errors = running.communicate(timeout=240)
    assert running.returncode == 0, errors
    assert [path.name for path in (tmp_path / "runs" / "primer").iterdir()] == ["mine"]
    assert json.loads((tmp_path / "runs" / "primer" / "mine" / "metrics.json").read_text())["metrics"]["cam"]


@pytest.mark.slow
def test_an_error_of_one_process_is_told_with_its_number(tmp_path: Path) -> None:
    work = "import os, time\nif os.environ['RANK'] == '1':\n    raise ValueError('only here')\ntime.sleep(60)"
    write_tiny_notebook(tmp_path, work)
    with start(tmp_path, "tiny.ipynb", "--processes", "2", "--name", "mine") as running:
        begun = time.monotonic()
        _, errors = running.communicate(timeout=120)
    assert running.returncode == 1
    assert "error: process 1 of 2: ValueError: only here" in errors
    assert "process 1 of 2 failed first (exit code 1): the others were stopped" in errors
    assert time.monotonic() - begun < 50
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    write_tiny_notebook(tmp_path, "import time\nprint('here', flush=True)\ntime.sleep(25)")
    with start(tmp_path, "tiny.ipynb", "--processes", "2", "--name", "mine") as first:
        after("here", first)
        with start(tmp_path, "tiny.ipynb", "--processes", "2", "--name", "mine") as second:
            _, errors = second.communicate(timeout=120)
        assert second.returncode == 1
        assert "belongs to a run that works in it now" in errors
        _, errors = first.communicate(timeout=120)
    assert first.returncode == 0, errors


def test_what_is_wrong_is_said_once_before_anything_starts() -> None:
    done = CliRunner().invoke(app, ["run", "primer", "-p", "epochs", "-3", "--processes", "2"])
    assert done.exit_code == 2
    assert done.output.count("epochs") == 1


def test_a_process_alone_is_the_first_of_one() -> None:
    assert this_process() == (0, 1)
