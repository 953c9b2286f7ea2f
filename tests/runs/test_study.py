"""Studies of a notebook of a second, really executed and really killed, by the command that a person types."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from tiny_notebook import write_tiny_notebook
from typer.testing import CliRunner

from wsolnb.cli.app import app
from wsolnb.runs.study import Study, read_study

RECORD = """\
import pathlib, random, time
from wsolnb.runs.record import record
time.sleep(0.3)
assert n > 0 or seed != 101 or pathlib.Path(out).parents[1].joinpath("mended").exists(), "seed 101 fails"
metrics = {"a": {"m": random.Random(seed).random()}, "b": {"m": float("nan") if n == 7 else 0.5}}
_ = record(out, {"n": n, "seed": seed}, metrics)
"""


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return write_tiny_notebook(tmp_path, RECORD)


def command(*options: str) -> list[str]:
    return [sys.executable, "-c", "from wsolnb.cli.app import app; app()", "study", "tiny.ipynb", *options]


def test_a_study_is_one_table_over_its_seeds_and_says_where_it_ran(notebook: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["study", "tiny.ipynb", "--seeds", "3", "-p", "n", "7"])
    assert done.exit_code == 0, done.output
    folder = tmp_path / "runs" / "tiny" / "study"
    assert f"study       {folder.relative_to(tmp_path) / 'study.csv'}" in done.output
    table = read_study(folder / "study.csv")
    assert table[["seed", "method"]].to_numpy().tolist() == [[s, m] for s in (100, 101, 102) for m in "ab"]
    assert table.value[::2].tolist() == [random.Random(seed).random() for seed in (100, 101, 102)]
    assert table.value[1::2].isna().all()
    about = json.loads((folder / "study.json").read_text())
    assert (about["seeds"], about["missing"]) == ([100, 101, 102], [])
    assert about["parameters"] == {"n": 7}
    assert [run["seeds"] for run in about["runs_on"]] == [[100, 101, 102]]
    assert about["runs_on"][0]["versions"]["python"]


def test_more_seeds_go_on_and_other_parameters_are_refused(notebook: Path, tmp_path: Path) -> None:
    study = Study("tiny.ipynb", [100], tmp_path / "study")
    study.run(jobs=1)
    first = (tmp_path / "study" / "study.csv").read_text()
    finished = study.sweep.run_folders()[study.sweep.points[0].name] / "metrics.json"
    before = finished.stat().st_mtime_ns
    Study("tiny.ipynb", [100, 101], tmp_path / "study").run(jobs=1)
    assert (tmp_path / "study" / "study.csv").read_text().startswith(first)
    assert finished.stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="a study with other parameters"):
        Study("tiny.ipynb", [100], tmp_path / "study", given={"n": 2}).run(jobs=1)


def test_a_seed_that_fails_is_named_and_missing(notebook: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["study", "tiny.ipynb", "--seeds", "2", "-p", "n", "0"])
    assert done.exit_code == 1
    assert "seed 101 fails" in done.output
    folder = tmp_path / "runs" / "tiny" / "study"
    assert json.loads((folder / "study.json").read_text())["missing"] == [101]
    assert read_study(folder / "study.csv").seed.unique().tolist() == [100]
    (folder / "mended").touch()
    assert CliRunner().invoke(app, ["study", "tiny.ipynb", "--seeds", "2", "-p", "n", "0"]).exit_code == 0
    assert json.loads((folder / "study.json").read_text())["missing"] == []


def test_a_seed_with_an_odd_record_is_named_and_missing(notebook: Path, tmp_path: Path) -> None:
    study = Study("tiny.ipynb", [100, 101], tmp_path / "study")
    study.run(jobs=1)
    folder = study.sweep.run_folders()[study.sweep.points[0].name]
    (folder / "metrics.json").write_text('{"metrics": {}}')
    with pytest.warns(UserWarning, match=r"metrics\.json is no record of a run, (so seed 100 is missing|and left out)"):
        study.run(jobs=1)
    assert json.loads((tmp_path / "study" / "study.json").read_text())["missing"] == [100]
    assert read_study(tmp_path / "study" / "study.csv").seed.unique().tolist() == [101]


@pytest.mark.slow
def test_a_study_killed_twice_ends_with_the_same_table(notebook: Path, tmp_path: Path) -> None:
    subprocess.run(command("--seeds", "4", "--out", "whole"), check=True, capture_output=True)
    wanted = (tmp_path / "whole" / "tiny" / "study" / "study.csv").read_bytes()
    wait = random.Random(0)
    for kind in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(
            command("--seeds", "4", "--jobs", "1"), start_new_session=True, stdout=subprocess.DEVNULL
        )
        time.sleep(wait.uniform(6, 12))
        os.killpg(process.pid, kind) if kind == signal.SIGKILL else process.send_signal(kind)
        assert process.wait(60) != 0
    subprocess.run(command("--seeds", "4", "--jobs", "1"), check=True, capture_output=True)
    assert (tmp_path / "runs" / "tiny" / "study" / "study.csv").read_bytes() == wanted


@pytest.mark.parametrize(
    ("seeds", "given", "said"),
    [
        ([99], {}, "different seeds from 100 on"),
        ([100, 100], {}, "different seeds from 100 on"),
        ([], {}, "different seeds from 100 on"),
        ([100], {"seed": 3}, "seed is what a study varies"),
        ([100], {"m": 3}, "no parameter 'm'"),
    ],
)
def test_what_is_no_study_is_refused(
    notebook: Path, tmp_path: Path, seeds: list[int], given: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Study("tiny.ipynb", seeds, tmp_path, given=given)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed,method,value\n100,a,1\n", "its columns are seed, method, value"),
        ("seed,method,metric,value\n100,a,m,1\n100,a,m,2\n", "two values for m of a with seed 100"),
        ("seed,method,metric,value\n100,a,m,one\n", "is no study"),
    ],
)
def test_a_table_that_is_no_study_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "study.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_study(tmp_path / "study.csv")


def test_a_study_of_no_trainings_reads_empty(tmp_path: Path) -> None:
    pd.DataFrame(columns=["seed", "method", "metric", "value"]).to_csv(tmp_path / "study.csv", index=False)
    assert read_study(tmp_path / "study.csv").empty
