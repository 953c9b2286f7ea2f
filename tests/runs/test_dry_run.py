"""What a run would cost: numbers by hand, a bill for several processes, and the lines of the command."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from made_up_suite import made_up_paper
from nbformat.v4 import new_code_cell, new_notebook
from typer.testing import CliRunner

from wsolnb.cli.app import app
from wsolnb.runs.dry_run import PEAK, SHARE, bill, describe
from wsolnb.runs.trainings import budget

PARAMETERS = """\
dataset: str = "critters"
data_root: str = ""
metadata: str = ""
splits: list[str] = ["train", "val", "test"]
families: int = 4
species: int = 3
backbone: str = "tiny"
train_images: int = 100
held_images: int = 0
taught_images: int = 33
image_size: int = 32
epochs: int = 3
batch_size: int = 8
accumulate: int = 1
rows: list[str] = ["a", "b"]
device: str = "cpu"
out: str = ""
"""
TRAININGS = """\
from functools import partial

from wsolnb.models.cam import classifier
from wsolnb.runs.trainings import Training


def trainings(p, data):
    images, school = data.single(), data.given("taught_images", 24)
    sizes = {"batch": p.batch_size, "side": p.image_size}
    if data.drawn:
        build = partial(classifier, p.backbone, 24)
        yield Training("school", "tiny with a linear head", build, school, 2, 32, p.image_size)
    build = partial(classifier, p.backbone, images.classes or 100)
    yield Training("heads", "tiny with a linear head", build, images, p.epochs, times=len(p.rows), **sizes)
"""


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite of one made-up paper."""
    folder = made_up_paper(tmp_path)
    cell = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "notebooks" / "1_t.ipynb")
    (folder / "trainings.py").write_text(TRAININGS)
    (folder / "cub-tiny.yaml").write_text("dataset: protocol\ntrain_images: 0\nrows: [a, b, c]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_bill_follows_from_trainings_and_steps(suite: Path) -> None:
    plan = budget("doe2000")
    heads = plan.trainings[1]
    assert [training.steps for training in plan.trainings] == [2 * 2, 2 * 3 * 13]
    costs = bill(plan)
    assert costs.weights == 4 * (costs.costs[0].weights + 2 * costs.costs[1].weights)
    assert costs.operations == 66 * costs.costs[0].operations + 2 * 300 * costs.costs[1].operations
    assert costs.hours == pytest.approx(costs.operations / PEAK / SHARE / 3600)
    assert costs.memory == max(cost.memory for cost in costs.costs)
    assert heads.share(1) == 8


def test_processes_share_a_batch(suite: Path) -> None:
    plan, in_parts = (budget("doe2000", {"taught_images": 0, "accumulate": parts}) for parts in (1, 2))
    whole, two, half = (bill(plan), bill(plan, processes=2), bill(in_parts))
    (cost,), (shared,), (parts,) = whole.costs, two.costs, half.costs
    state = (3 * 4 + 2) * cost.weights  # weights, gradients and momentum, and weights in bfloat16
    assert (parts.memory - state) * 2 == pytest.approx(cost.memory - state, rel=0.01)
    assert shared.memory == parts.memory + 4 * cost.weights  # gradients on their way
    assert shared.operations == cost.operations
    assert plan.trainings[0].steps == 78
    shown = "\n".join(describe(plan, processes=2))
    assert "78, of 8 images of 32 px, at most 4 in each of 2 processes" in shown
    assert "with 2 processes that do not wait for each other" in " ".join(shown.split())


def test_lines_name_everything_and_are_short(suite: Path) -> None:
    lines = list(describe(budget("doe2000")))
    assert max(map(len, lines)) <= 100
    shown = " ".join("\n".join(lines).split())
    assert "data set critters, drawn here" in shown
    assert "epochs=3" in shown
    assert "heads: 2 x 3 epochs" in shown
    assert "100 drawn images in an epoch, 12 classes" in shown
    assert "steps 78, of 8 images of 32 px" in shown
    assert "(median; " in shown
    assert "5 steps on cpu" in shown
    assert "checkpoint 1.3 MB" in shown
    assert "at an assumed 30% of 312 TFLOP/s in bfloat16" in shown


def test_photos_name_their_disk_and_what_is_not_known(suite: Path) -> None:
    birds = " ".join(" ".join(describe(budget("doe2000", recipe="cub-tiny"))).split())
    assert "5,994 photos (official train split) in an epoch, 200 classes" in birds
    assert "1.2 GB of data to download" in birds
    unknown = " ".join(" ".join(describe(budget("doe2000", {"dataset": "voc", "train_images": 0}))).split())
    assert "unknown number of photos" in unknown
    assert "time unknown: images are not counted" in unknown


def test_what_is_wrong_is_said(suite: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder gone, given as data_root"):
        budget("doe2000", {"dataset": "voc", "data_root": "gone", "train_images": 0})
    with pytest.raises(ValueError, match="parameter epochs wants int"):
        budget("doe2000", {"epochs": "few"})
    with pytest.raises(ValueError, match="give the paper's key"):
        budget("notebooks/1_t.ipynb")
    path = suite / "papers" / "doe2000" / "trainings.py"
    path.write_text(TRAININGS.replace("p.rows", "p.lines"))
    with pytest.raises(ValueError, match=r"does not fit the notebook: .*lines"):
        budget("doe2000")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"trainings\.py, which lists what the notebook trains"):
        budget("doe2000")


def test_the_command_runs_nothing(suite: Path) -> None:
    result = CliRunner().invoke(app, ["run", "doe2000", "-p", "epochs", "2", "--processes", "2", "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "heads: 2 x 2 epochs" in result.output
    assert "in each of 2 processes" in result.output
    assert not (suite / "runs").exists()
    result = CliRunner().invoke(app, ["run", "doe2000", "--recipe", "gone", "--dry-run"])
    assert (result.exit_code, "has no recipe 'gone'" in result.output) == (2, True)
