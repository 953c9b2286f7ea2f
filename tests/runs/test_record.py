from __future__ import annotations

import json
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from wsolnb.metrics.bootstrap import Interval
from wsolnb.runs import record as records
from wsolnb.runs.paper import Paper
from wsolnb.runs.record import load_runs, record, save_figure
from wsolnb.runs.verdicts import verdicts

METRICS = {
    "cam": {"ap25": Interval(0.17, 0.1, 0.2), "ap50": 0.05},
    "dcm": {"ap25": float("nan"), "ap50": np.float32(0.5)},
}


def test_record_holds_what_a_reader_needs(tmp_path: Path) -> None:
    rows = [[100, "cam", "m", 0.5]]
    tested = verdicts(Paper("barz2022"), study=pd.DataFrame(rows, columns=["seed", "method", "metric", "value"]))
    about = {
        "test images": np.int64(7),
        "thresholds": torch.tensor([0.25, 0.5]),
        "root": Path("data"),
        "pair": (1, None),
    }
    returned = record(
        tmp_path / "new", {"seed": 3, "lr": 0.1}, METRICS, tested, device=torch.device("cpu"), about=about
    )
    content = json.loads((tmp_path / "new" / "metrics.json").read_text())
    assert content == returned
    assert content["parameters"] == {"seed": 3, "lr": 0.1}
    assert content["seed"] == 3
    assert content["device"] == "cpu"
    assert content["metrics"]["cam"]["ap25"] == {"value": 0.17, "low": 0.1, "high": 0.2}
    assert content["metrics"]["dcm"] == {"ap25": {"value": None}, "ap50": {"value": 0.5}}
    assert content["about"] == {"test images": 7, "thresholds": [0.25, 0.5], "root": "data", "pair": [1, None]}
    assert {verdict["verdict"] for verdict in content["verdicts"]} == {"not tested"}
    assert [verdict["claim"] for verdict in content["verdicts"]] == [claim.id for claim in Paper("barz2022").claims()]
    assert content["verdicts"][0]["mean"] is None
    assert content["verdicts"][0]["run"] is None
    assert content["versions"]["torch"] == torch.__version__.split("+")[0]
    assert content["wall_time"] >= 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["metrics.csv", "metrics.json"]


def test_csv_has_one_row_per_number(tmp_path: Path) -> None:
    record(tmp_path, {}, METRICS)
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert list(table) == ["method", "metric", "value", "low", "high"]
    assert table.method.tolist() == ["cam", "cam", "dcm", "dcm"]
    assert table.high.notna().tolist() == [True, False, False, False]


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record("", {}, METRICS)
    save_figure(Figure(), "", "curves")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_recorded_is_named_and_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot record <object"):
        record(tmp_path, {}, METRICS, about={"thing": object()})
    assert not (tmp_path / "metrics.json").exists()


def test_revision_names_the_commit_and_marks_changed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    (tmp_path / "wsolnb").mkdir()
    monkeypatch.setattr(records, "__file__", str(tmp_path / "wsolnb" / "runs" / "record.py"))
    assert record("", {}, {})["revision"] is None
    (tmp_path / "file").write_text("a")
    for arguments in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True)
    clean = record("", {}, {})["revision"]
    assert len(clean) == 40
    (tmp_path / "file").write_text("b")
    assert record("", {}, {})["revision"] == clean + "+"


def test_figures_are_kept_by_name(tmp_path: Path) -> None:
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([1, 3, 2])
    save_figure(figure, tmp_path, "curves")
    assert (tmp_path / "figures" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_notebook_shows_the_saved_picture_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    figure, axes = plt.subplots(figsize=(6, 2), layout="constrained")
    axes.plot([1, 3, 2])
    draws: list[object] = []
    figure.canvas.mpl_connect("draw_event", draws.append)
    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", shown.append)
    save_figure(figure, tmp_path, "learning_curves")
    assert len(draws) == 1
    assert plt.get_fignums() == []  # closed, or the notebook would draw it again
    with Image.open(tmp_path / "figures" / "learning_curves.png") as saved:
        width = saved.width
    (picture,) = shown
    assert picture.alt == "learning curves"
    assert Image.open(BytesIO(picture.data)).width == width  # lines stay as large as they are


def test_load_runs_gives_one_tidy_table(tmp_path: Path) -> None:
    for seed in (0, 1):
        record(tmp_path / "demo" / f"seed-{seed}", {"seed": seed, "backbone": "tiny"}, METRICS)
    (tmp_path / "demo" / "failed").mkdir()
    table = load_runs(tmp_path)
    assert table.run.unique().tolist() == ["demo/seed-0", "demo/seed-1"]
    assert len(table) == 8
    wide = table[table.metric == "ap50"].pivot(index="parameter.seed", columns="method", values="value")
    assert wide.to_dict() == {"cam": {0: 0.05, 1: 0.05}, "dcm": {0: 0.5, 1: 0.5}}


def test_load_runs_of_nothing_and_of_something_else(tmp_path: Path) -> None:
    assert load_runs(tmp_path).empty
    with pytest.raises(FileNotFoundError, match="to read runs from"):
        load_runs(tmp_path / "gone")
    (tmp_path / "metrics.json").write_text("[1]")
    record(tmp_path / "whole", {"seed": 3}, METRICS)
    with pytest.warns(UserWarning, match=r"metrics\.json is no record of a run, and left out"):
        assert load_runs(tmp_path).run.unique().tolist() == ["whole"]
