from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import typer
from nbformat.v4 import new_code_cell, new_notebook
from typer.testing import CliRunner

from wsolnb import __version__
from wsolnb.cli.app import app
from wsolnb.cli.evaluate import eval_command
from wsolnb.runs import run as runs
from wsolnb.runs.run import NOTEBOOK, RunFailed

COLUMNS = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


@pytest.fixture
def wsolnb() -> CliRunner:
    return CliRunner(env=COLUMNS)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What `wsolnb run` asks for, without running it."""
    seen: list[tuple[object, ...]] = []

    def fake(source: str, given: dict[str, str], **options: object) -> Path:
        seen.append((source, given, options))
        for name in (NOTEBOOK, "metrics.json"):
            (tmp_path / name).write_text("{}")
        return tmp_path

    monkeypatch.setattr(runs, "run", fake)
    return seen


def test_version_and_help(wsolnb: CliRunner) -> None:
    assert wsolnb.invoke(app, ["--version"]).output.strip() == __version__
    shown = wsolnb.invoke(app, ["--help"]).output
    assert all(command in shown for command in ("run", "papers", "lab", "eval"))
    assert "NAME VALUE" in wsolnb.invoke(app, ["run", "--help"]).output


def test_eval_is_the_one_of_its_module(wsolnb: CliRunner) -> None:
    result = wsolnb.invoke(app, ["eval", "--help"])
    assert result.exit_code == 0
    assert (eval_command.__doc__ or "").splitlines()[0] in result.output


def test_help_is_markdown_and_holds_no_html() -> None:
    """What stands in angle brackets would not be shown."""
    root = typer.main.get_command(app)
    commands = [*root.commands.values(), *root.commands["data"].commands.values()]  # type: ignore[attr-defined]
    texts = [command.help or "" for command in commands]
    texts += [getattr(parameter, "help", None) or "" for command in commands for parameter in command.params]
    assert [text for text in texts if "<" in text] == []


def test_an_import_error_of_our_own_is_not_hidden(wsolnb: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[str]:
        raise ImportError("cannot import name 'x' from 'wsolnb.y'", name="wsolnb.y")

    monkeypatch.setattr("wsolnb.runs.paper.paper_keys", broken)
    assert isinstance(wsolnb.invoke(app, ["papers"]).exception, ImportError)


HEAVY = {"torch", "numpy", "pandas", "matplotlib", "papermill", "numba"}
PAGES = [
    "",
    "run",
    "study",
    "sweep",
    "papers",
    "lab",
    "eval",
    "report",
    "fit",
    "localize",
    "data",
    "data get",
    "data check",
]


def test_every_command_has_its_help_page_in_the_list() -> None:
    root = typer.main.get_command(app)
    data = root.commands["data"].commands  # type: ignore[attr-defined]
    assert {*root.commands, *(f"data {name}" for name in data)} == {*PAGES} - {""}  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", PAGES)
def test_help_loads_nothing_heavy(page: str) -> None:
    call = f"app({[*page.split(), '--help']!r}, standalone_mode=False)"
    code = f"import sys; from wsolnb.cli.app import app; {call}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: " in done.stdout
    assert done.stdout.splitlines()[-1] == ""


def test_a_kernel_is_started_before_anything_large_is_loaded() -> None:
    """The command line needs neither torch nor pandas, and papermill only once the kernel is on its way."""
    code = "import sys, wsolnb.cli.app, wsolnb.runs.run; print(*{'torch', 'pandas', 'papermill'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_papers_are_listed_with_their_recipes(wsolnb: CliRunner) -> None:
    shown = wsolnb.invoke(app, ["papers"]).output
    assert "barz2022\n  Björn Barz, Joachim Denzler (2022): Weakly-supervised" in shown
    assert "coco-resnet50, drawn-128-resnet18, imagenet-resnet50, smoke" in shown


def test_parameters_come_in_pairs_and_keep_their_text(wsolnb: CliRunner, calls: list, tmp_path: Path) -> None:
    options = ["-p", "seed", "-1", "-p", "widths", "[1, 2]", "--parameter", "root", "a=b", "--recipe", "smoke"]
    result = wsolnb.invoke(app, ["run", *options, "barz2022", "-p", "name", "", "--name", "mine", "--out", "elsewhere"])
    assert result.exit_code == 0, result.output
    given = {"seed": "-1", "widths": "[1, 2]", "root": "a=b", "name": ""}
    assert calls == [("barz2022", given, {"recipe": "smoke", "name": "mine", "root": Path("elsewhere")})]
    assert f"notebook    {tmp_path / NOTEBOOK}" in result.output
    assert f"metrics     {tmp_path / 'metrics.json'}" in result.output
    assert "figures" not in result.output


@pytest.mark.parametrize("given", [["-p"], ["-p", "seed"]])
def test_a_parameter_without_its_value_is_a_usage_error(wsolnb: CliRunner, calls: list, given: list[str]) -> None:
    result = wsolnb.invoke(app, ["run", "barz2022", *given])
    assert result.exit_code == 2
    assert "-p needs a NAME and a VALUE" in result.output
    assert calls == []


def test_known_errors_are_one_line(wsolnb: CliRunner) -> None:
    result = wsolnb.invoke(app, ["run", "barz2020"])
    assert result.exit_code == 2
    assert result.output.startswith("error: no paper 'barz2020'")
    assert result.output.count("\n") == 1
    result = wsolnb.invoke(app, ["run", "gone.ipynb"])
    assert result.exit_code == 2
    assert result.output == "error: no notebook gone.ipynb\n"


def test_a_bug_is_not_hidden(wsolnb: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "run", lambda *_, **__: 1 + "1")  # type: ignore[operator]
    assert isinstance(wsolnb.invoke(app, ["run", "barz2022"]).exception, TypeError)


def test_a_failed_run_exits_with_one_and_names_the_notebook(wsolnb: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Path:
        raise RunFailed("ValueError: no classes left\nin cell 4 (Training)", Path("runs/x/notebook.ipynb"))

    monkeypatch.setattr(runs, "run", fail)
    result = wsolnb.invoke(app, ["run", "barz2022"])
    assert result.exit_code == 1
    assert result.output == (
        "error: ValueError: no classes left\nin cell 4 (Training)\nthe notebook with the error: runs/x/notebook.ipynb\n"
    )


def test_ctrl_c_stops_the_kernel_and_keeps_the_notebook(tmp_path: Path) -> None:
    sources = ["import os\nprint('kernel', os.getpid())", "import time\ntime.sleep(600)"]
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), tmp_path / "sleep.ipynb")
    heed = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", heed, Path(sys.executable).with_name("wsolnb"), "run", "sleep.ipynb"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as running:  # type: ignore[call-overload]
        lines = iter(running.stdout.readline, "")
        kernel = int(next(line for line in lines if line.startswith("kernel")).split()[1])
        assert next(lines) == "[2/2]\n"
        running.send_signal(signal.SIGINT)
        try:
            _, errors = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 130
    first, second, third = errors.splitlines()
    assert first == "SIGINT: stopping; a training saves first. Again to kill it"
    assert second.startswith("SIGINT: stopped in cell 2; run the same again to go on")
    assert third == "the notebook so far: runs/sleep/default/notebook.ipynb"
    with pytest.raises(ProcessLookupError):
        os.kill(kernel, 0)
    kept = nbformat.read(tmp_path / "runs/sleep/default/notebook.ipynb", as_version=4)
    assert next(cell for cell in kept.cells if cell.cell_type == "code").outputs


def test_lab_opens_the_notebooks(wsolnb: CliRunner, monkeypatch: pytest.MonkeyPatch, repo: Path) -> None:
    def fake(command: list[str]) -> subprocess.CompletedProcess[bytes]:
        assert command == [sys.executable, "-m", "jupyterlab", str(repo / "notebooks")]
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", fake)
    assert wsolnb.invoke(app, ["lab"]).exit_code == 3


def test_from_a_shell_a_run_goes_from_end_to_end(tmp_path: Path) -> None:
    cell = new_code_cell("count: int = 1  # how often\n", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell, new_code_cell("print('ha' * count)")]), tmp_path / "laugh.ipynb")
    command = [Path(sys.executable).with_name("wsolnb"), "run", "laugh.ipynb", "-p", "count", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:4] == ["[1/3]", "[2/3]", "[3/3]", "hahaha"]
    assert lines[4].startswith("done in ")
    assert lines[5] == "notebook    runs/laugh/default/notebook.ipynb"
