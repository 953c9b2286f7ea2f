"""The notebook about one's own photos, which belongs to no paper, runs with drawn photos and with a folder of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import supervision

from wsolnb.runs.run import run

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "7_your_own_photos.ipynb"
SMALL = {"drawn_photos": 36, "epochs": 1, "image_size": 64, "methods": ["cam", "tap"], "device": "cpu"}


def test_from_photos_in_folders_to_boxes_that_another_library_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = run(NOTEBOOK, SMALL | {"formats": ["coco", "voc"]}, root=tmp_path / "runs")
    photos = sorted((folder / "photos").rglob("*.png"))
    assert len(photos) == 36
    assert {path.name for path in (folder / "models").iterdir()} == {"cam", "tap"}
    back = supervision.DetectionDataset.from_coco(str(folder / "photos"), str(folder / "boxes" / "coco.json"))
    assert len(back) == 36
    assert {path.name for path in (folder / "figures").iterdir()} == {"photos.png", "ten.png", "overlays.png"}

    own = {"photos": str(folder / "photos"), "boxes": str(folder / "ten.json"), "formats": ["csv"]}
    again = run(NOTEBOOK, SMALL | own, root=tmp_path / "runs")
    rows = (again / "boxes" / "boxes.csv").read_text().splitlines()
    first = json.loads((folder / "boxes" / "coco.json").read_text())["annotations"]
    assert len(rows) == 1 + len(first)
    assert not (again / "photos").exists()
