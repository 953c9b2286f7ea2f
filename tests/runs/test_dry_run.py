"""What a run would cost: numbers by hand, and a step that is taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch
import yaml
from made_up_suite import made_up_paper
from nbformat.v4 import new_code_cell, new_notebook
from torch import nn
from typer.testing import CliRunner

from wsolnb.cli.app import app
from wsolnb.runs.dry_run import Training, _network, budget, describe, measure_step

PARAMETERS = """\
dataset: str = "critters"
data_root: str = ""
metadata: str = ""
splits: list[str] = ["train", "", "test"]
families: int = 4
species: int = 3
backbone: str = "tiny"
others: list[str] = ["tiny_gap", "tiny"]
freeze: bool = True
train_images: int = 100
taught_images: int = 33
image_size: int = 32
epochs: int = 3
batch_size: int = 8
rows: list[str] = ["a", "b"]
early: str = "block1"
device: str = "cpu"
out: str = ""
"""
TRAININGS = [
    {"what": "school", "only": "critters", "images": "taught_images", "epochs": 2, "batch": 32},
    {"what": "heads", "times": [1, "rows", "early"], "frozen": "freeze"},
    {"what": "others", "network": "others", "counts": "objects"},
]


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite of one made-up paper."""
    folder = made_up_paper(tmp_path)
    cell = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "notebooks" / "1_t.ipynb")
    (folder / "trainings.yaml").write_text(yaml.safe_dump(TRAININGS))
    (folder / "cub-tiny.yaml").write_text("dataset: protocol\ntrain_images: 0\nrows: []\nearly: ''\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_trainings_follow_from_the_parameters(suite: Path) -> None:
    found = budget("doe2000")
    assert found.classes == 12
    school, heads, gap, tiny = found.trainings
    assert (school.images, school.epochs, school.batch, school.steps) == (33, 2, 32, 4)
    assert (heads.times, heads.frozen, heads.steps) == (4, True, 4 * 3 * 13)
    assert [gap.network, tiny.network] == ["tiny_gap", "tiny"]
    assert not gap.objects  # drawn images have one


def test_photos_are_counted_where_they_can_be(suite: Path) -> None:
    found = budget("doe2000", recipe="cub-tiny")
    assert found.dataset == "CUB-200-2011 with segmentations (official train split)"
    assert [training.what for training in found.trainings] == ["heads", "others", "others"]
    assert [training.steps for training in found.trainings] == [3 * 750] * 3  # 5,994 images in batches of 8
    assert found.trainings[1].objects

    (suite / "meta" / "train").mkdir(parents=True)
    (suite / "meta" / "train" / "image_ids.txt").write_text("a.jpg\nb.jpg\n")
    assert budget("doe2000", {"metadata": "meta"}, recipe="cub-tiny").trainings[0].images == 2
    (suite / "photos" / "train" / "deep").mkdir(parents=True)
    for name in ("a.jpg", "deep/b.PNG", "a.xml"):
        (suite / "photos" / "train" / name).touch()
    own = {"dataset": "voc", "data_root": "photos", "train_images": 0}
    assert budget("doe2000", own).trainings[0].images == 2
    assert budget("doe2000", own | {"train_images": 50}).trainings[0].images == 50
    assert budget("doe2000", own | {"data_root": ""}).trainings[0].steps is None
    year = budget("doe2000", {"dataset": "coco", "splits": ["train2014", "", "val2014"], "train_images": 0})
    assert (year.trainings[0].images, year.classes) == (82783, 80)


def test_what_is_wrong_is_said(suite: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder gone, given as data_root"):
        budget("doe2000", {"dataset": "voc", "data_root": "gone", "train_images": 0})
    with pytest.raises(ValueError, match="parameter epochs wants int"):
        budget("doe2000", {"epochs": "few"})
    with pytest.raises(ValueError, match="give the paper's key"):
        budget("notebooks/1_t.ipynb")
    path = suite / "papers" / "doe2000" / "trainings.yaml"
    for entry, said in (({"what": "x", "epochs": "lots"}, "lots"), ({"what": "x", "tiems": 2}, "tiems")):
        path.write_text(yaml.safe_dump([entry]))
        with pytest.raises(ValueError, match=f"'x' does not fit the notebook: .*{said}"):
            budget("doe2000")


def test_a_step_is_really_taken() -> None:
    whole = measure_step(Training("x", "tiny", 10, 1, batch=4, side=32), 5, device="cpu")
    double = measure_step(Training("x", "tiny", 10, 1, batch=8, side=32), 5, device="cpu")
    frozen = measure_step(Training("x", "tiny", 10, 1, batch=4, side=32, frozen=True), 5, device="cpu")
    assert (whole.measured, double.measured) == (4, 4)
    state = 3 * 4 * whole.parameters  # weights, gradients and momentum
    assert double.memory - state == 2 * (whole.memory - state) > 0
    assert frozen.memory < whole.memory
    assert whole.seconds > 0
    images = 4 * 3 * 32 * 32 * 4  # kept by the first convolution, or its normalised copy
    assert whole.memory > state + images


def test_fully_connected_layers_on_a_grid_count() -> None:
    windows = budget("bency2016", recipe="voc2012-vgg16").trainings[0]
    assert (windows.grid, windows.dense, windows.dense_frozen, windows.frozen) == (7, (4096, 4096, 2048), 0, True)
    with torch.device("meta"):
        net = _network(windows, 20)
    dense = [layer for layer in net if isinstance(layer, nn.Linear)]
    counts = [layer.weight.numel() + layer.bias.numel() for layer in dense]
    assert counts[:2] == [102_764_544, 16_781_312]  # F6 and F7: 120 million, where the backbone has 14.7
    assert sum(weight.numel() for weight in net[0].parameters()) == 14_714_688
    assert all(layer.weight.requires_grad for layer in dense)
    assert budget("bency2016", {"backbone": "vgg16", "grid": 5, "hidden": [9]}).trainings[1].dense == (9, 128)


def test_a_step_of_fully_connected_layers() -> None:
    layers = Training("x", "tiny", 10, 1, batch=4, side=32, grid=3, dense=(16, 8), dense_frozen=1)
    step = measure_step(layers, 5, device="cpu")
    linear = measure_step(replace(layers, grid=0), 5, device="cpu")
    body = linear.parameters - 97 * 5
    assert step.parameters == body + 96 * 9 * 16 + 16 + 17 * 8 + 9 * 5
    net = _network(layers, 5)
    assert [p.requires_grad for part in net if isinstance(part, nn.Linear) for p in [part.weight]] == [
        False,
        True,
        True,
    ]


def test_a_step_without_its_device_is_refused() -> None:
    with pytest.raises(ValueError, match="device 'cuda:9' is not there"):
        measure_step(Training("x", "tiny", 10, 1, batch=4, side=32), 5, device="cuda:9")


def test_lines_name_everything(suite: Path) -> None:
    shown = "\n".join(describe(budget("doe2000")))
    assert "data set    critters (drawn here)" in shown
    assert "12 classes" in shown
    assert "epochs=3" in shown
    assert "steps     156, of 8 images of 32 px, 100 images in an epoch" in shown
    assert "model     tiny_gap with a linear head, " in shown
    assert "measured on 4 images on cpu" in shown
    assert "MB for the largest step" in shown
    unknown = "\n".join(describe(budget("doe2000", {"dataset": "voc", "train_images": "0"})))
    assert "time        unknown" in unknown


def test_the_command_runs_nothing(suite: Path) -> None:
    result = CliRunner().invoke(app, ["run", "doe2000", "-p", "epochs", "2", "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "heads: 4 x 2 epochs" in result.output
    assert not (suite / "runs").exists()
    result = CliRunner().invoke(app, ["run", "doe2000", "--recipe", "gone", "--dry-run"])
    assert (result.exit_code, "has no recipe 'gone'" in result.output) == (2, True)
