"""Every paper's notebook runs from end to end, with few images and steps, and its tagged cells are checked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nbformat
import pytest
import torch
import yaml
from tagged_cells import differences

from wsolnb.inference.model import load
from wsolnb.runs.paper import Paper, paper_keys
from wsolnb.runs.run import NOTEBOOK, run

BUDGET = 15.0  # seconds on two cores
BUSY = 4.0  # how much slower a machine may be that does other things too
TEXTS = yaml.safe_load((Path(__file__).parent / "smoke.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("key", paper_keys())
def test_smoke_run(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    paper = Paper(key)
    if not paper.notebook.exists():
        pytest.skip(f"{paper.notebook.name} is not written yet")
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))
    folder = run(key, recipe="smoke", root=tmp_path / "runs")

    record = json.loads((folder / "metrics.json").read_text())
    assert set(paper.methods) <= set(record["metrics"])
    assert [verdict["claim"] for verdict in record["verdicts"]] == [claim.id for claim in paper.claims()]
    assert paper.recipe("smoke").items() <= record["parameters"].items()
    assert list((folder / "figures").glob("*.png"))
    models = sorted((folder / "models").iterdir())
    assert models
    for each in models:
        (found,) = load(each).localize(torch.rand(1, 3, 40, 60))
        assert found["boxes"].shape == (1, 4)
    assert differences(request.session, paper.notebook, folder / NOTEBOOK, TEXTS[key]) == []
    assert nbformat.read(folder / NOTEBOOK, as_version=4).metadata.papermill.duration < BUDGET * BUSY
