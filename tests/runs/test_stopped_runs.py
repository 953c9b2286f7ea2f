"""`wsolnb run` stopped in the middle of an epoch, in all the ways there are, goes on there and ends the same."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from wsolnb.runs.folder import claimed_folder

GIVEN = {"train_images": 1500, "held_images": 16, "test_images": 16, "image_size": 48, "epochs": 3, "draws": 20}
HEED = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """`wsolnb run primer` in a session of its own, as from a terminal."""
    folder.mkdir(exist_ok=True)
    program = str(Path(sys.executable).with_name("wsolnb"))
    given = [text for name, value in GIVEN.items() for text in ("-p", name, str(value))]
    command = [sys.executable, "-c", HEED, program, "run", "primer", *given, "--name", "mine", *options]
    environment = {**os.environ, "WSOLNB_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes)  # type: ignore[call-overload]


def metrics(folder: Path) -> dict:
    return json.loads((folder / "runs" / "primer" / "mine" / "metrics.json").read_text())["metrics"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("whole")
    with start(folder) as running:
        shown, errors = running.communicate(timeout=120)
    assert running.returncode == 0, shown + errors
    return metrics(folder)


def place(folder: Path) -> tuple[int, int]:
    """Whole epochs and further batches of the checkpoint."""
    (manifest,) = (folder / "cache").rglob("manifest.json")
    values = json.loads(manifest.read_text())["values"]
    return len(values["history"]), values["done"]


@pytest.mark.slow
def test_stopped_in_an_epoch_it_goes_on_from_the_step(whole: dict, tmp_path: Path) -> None:
    """Three times: in epochs 2 and 3 of the first training, and in epoch 2 of the second."""
    ways: list[tuple[signal.Signals, Callable[[int, int], None], int]] = [
        (signal.SIGINT, os.killpg, 1),  # as a terminal does
        (signal.SIGTERM, os.kill, 2),  # as the scheduler of a cluster does
        (signal.SIGINT, os.kill, 1),
    ]
    for number, send, epoch in ways:
        with start(tmp_path) as running:
            assert running.stdout is not None
            next(line for line in running.stdout if line.startswith(f"epoch   {epoch}/3"))
            time.sleep(0.15)  # the epoch that just ended is saved by then
            send(running.pid, number)
            try:
                shown, errors = running.communicate(timeout=120)
            finally:
                running.kill()
        assert running.returncode == 128 + number, errors
        said = re.search(
            r"SIGINT: training stopped; epoch (\d) up to batch (\d+) is saved in (\S+): run the same", shown
        )
        assert said is not None, shown
        assert place(tmp_path) == (epoch, int(said[2])) == (int(said[1]) - 1, int(said[2]))
        assert str(tmp_path / "cache") in said[3]
        assert f"{number.name}: stopped in cell " in errors
        assert "run the same again to go on" in errors
        assert not (tmp_path / "runs" / "primer" / "mine" / "metrics.json").exists()
    with start(tmp_path) as running:
        shown, errors = running.communicate(timeout=120)
    assert (running.returncode, errors) == (0, "")
    assert re.findall(r"^epoch +(\d)/3", shown, re.MULTILINE) == ["2", "3"]
    assert metrics(tmp_path) == whole


FULL = """\
import resource, signal, sys
from wsolnb.cli.app import app
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
app(sys.argv[1:])
"""


def test_a_full_disk_leaves_a_notebook_that_opens_and_names_it(tmp_path: Path) -> None:
    sources = ["print('small')", "print('x' * 300_000)", "print('after')"]
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), tmp_path / "large.ipynb")
    command = [sys.executable, "-c", FULL, "run", "large.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    target = Path("runs", "large", "default", "notebook.ipynb")
    assert done.returncode == 2, done.stderr
    assert f"no room for {target}: it takes 0.3 MB" in done.stderr
    assert "Traceback" not in done.stderr
    kept = nbformat.read(tmp_path / target, as_version=4)
    assert kept.cells[0].outputs[0].text == "small\n"
    assert not list(tmp_path.rglob("*.partial"))


def test_what_holds_a_run_is_not_taken_from_it(tmp_path: Path) -> None:
    with claimed_folder(tmp_path, "mine", "default", "epochs: 3\n") as folder:
        with (
            pytest.raises(FileExistsError, match="mine belongs to a run that works in it now: wait for it or choose"),
            claimed_folder(tmp_path, "mine", "default", "epochs: 3\n"),
        ):
            pass
        (folder / "metrics.json").touch()
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.json", "parameters.yaml"]
    with (
        pytest.raises(FileExistsError, match="mine exists already: choose another name or delete it"),
        claimed_folder(tmp_path, "mine", "default", "epochs: 3\n"),
    ):
        pass


def test_what_was_stopped_is_taken_by_the_same_run_only(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), claimed_folder(tmp_path, None, "default", "epochs: 3\n") as folder:
            raise KeyboardInterrupt
        assert folder == tmp_path / "default"
    with claimed_folder(tmp_path, None, "default", "epochs: 4\n") as other:
        assert other == tmp_path / "default-2"
    with (
        pytest.raises(FileExistsError, match=r"a run that was stopped, of other parameters \(see .*parameters.yaml\)"),
        claimed_folder(tmp_path, "default", "", "epochs: 4\n"),
    ):
        pass
    assert (folder / "parameters.yaml").read_text() == "epochs: 3\n"
    with pytest.raises(ValueError, match="failed"), claimed_folder(tmp_path, None, "default", "epochs: 3\n"):
        raise ValueError("failed")
    with claimed_folder(tmp_path, None, "default", "epochs: 3\n") as third:  # a failed run keeps its folder
        assert third == tmp_path / "default-3"
