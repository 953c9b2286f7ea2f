"""`wsolnb fit`: a folder of photos in, a model folder out; stopped and given again; and what it refuses."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

import wsolnb
from wsolnb.cli.app import app
from wsolnb.cli.fit import METHODS
from wsolnb.data.critters import World
from wsolnb.inference.fit import METHOD_NAMES

SMALL = ["--backbone", "tiny", "--weights", "none", "--size", "32", "--epochs", "1", "--device", "cpu"]


def draw(root: Path, counts: dict[str, int]) -> Path:
    """Drawn animals in class folders."""
    drawn = World(families=len(counts), species=1, size=48, objects=(1, 1)).singles(sum(counts.values()))
    names = [name for name, count in counts.items() for _ in range(count)]
    for index, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn[index][0].permute(1, 2, 0).numpy()).save(root / name / f"{index}.png")
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return draw(tmp_path / "my photos", {"ant": 5, "bee": 4})


def fit(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}).invoke(app, ["fit", *map(str, arguments)])


def test_a_folder_becomes_a_model(photos: Path, tmp_path: Path) -> None:
    result = fit(photos, *SMALL, "-o", tmp_path / "model")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "cam: 5 photos of 2 classes to learn from, 4 held out; 1 + 2 epochs"
    assert re.fullmatch(r"epoch   2/2  loss .* images/s  about 0:00 left", lines[-5]), lines
    assert re.fullmatch(r"accuracy   [\d.]+% of 4 held-out photos", lines[-4])
    assert re.fullmatch(r"threshold  0\.\d+ of a map's maximum, by Otsu's criterion over maps of .*", lines[-3])
    assert lines[-2] == f"model      {tmp_path / 'model'}"
    quoted = f"'{photos}' --labels folder --model {tmp_path / 'model'} -o {tmp_path / 'model-boxes'}"
    assert lines[-1] == f"next       wsolnb localize {quoted}"
    model = wsolnb.load(tmp_path / "model")
    assert model.classes == ("ant", "bee")
    assert model.localize(torch.rand(1, 3, 40, 60))[0]["boxes"].shape == (1, 4)
    about = json.loads((tmp_path / "model" / "model.json").read_text())
    assert about["trained"]["data"] == "my photos"
    assert str(tmp_path) not in json.dumps(about)  # no path of this machine


def test_train_and_val(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    draw(root / "train", {"ant": 3, "bee": 2})
    draw(root / "val", {"ant": 1, "bee": 2})
    result = fit(root, *SMALL, "-o", tmp_path / "model")
    assert "cam: 5 photos of 2 classes to learn from, 3 held out" in result.output
    assert f"next       wsolnb localize {root / 'train'} " in result.output


@pytest.mark.parametrize(
    ("train", "other", "message"),
    [
        ({"ant": 2, "bee": 2}, ("val", {"ant": 1}), "val has no folder 'bee', which"),
        ({"ant": 2, "bee": 2}, ("val", {"ant": 1, "bee": 1, "cat": 1}), "val has a folder 'cat', which"),
        (
            {"ant": 1, "bee": 2},
            ("val", {"ant": 1, "bee": 1}),
            "class 'ant' has one photo to learn from: two",
        ),
        ({"ant": 2, "bee": 2}, ("test", {"ant": 1}), "has test and train, but no val to hold out: rename one of them"),
    ],
)
def test_splits_that_do_not_fit(
    train: dict[str, int], other: tuple[str, dict[str, int]], message: str, tmp_path: Path
) -> None:
    draw(tmp_path / "p" / "train", train)
    for name, count in other[1].items():
        folder = tmp_path / "p" / other[0] / name
        folder.mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (40, 30)).save(folder / f"{index}.png")
    result = fit(tmp_path / "p", *SMALL, "-o", tmp_path / "model")
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "model").exists()


def test_the_folder_for_the_model_is_looked_at_first(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    result = fit(tmp_path / "no such photos", *SMALL, "-o", tmp_path / "full")
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "full exists and is no empty folder: nothing is overwritten, give a new folder" in result.output
    result = fit(photos, *SMALL, "-o", tmp_path / "full" / "a.txt" / "model")
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "a.txt" in result.output
    assert "epoch" not in result.output


def test_no_such_method(photos: Path, tmp_path: Path) -> None:
    result = fit(photos, "--method", "gradcam", *SMALL, "-o", tmp_path / "model")
    assert result.exit_code == 2
    assert "no method 'gradcam': choose one of cam, has, adl" in result.output
    assert list(tmp_path.iterdir()) == [photos]
    assert METHODS.replace(" or ", ", ") == ", ".join(METHOD_NAMES)


def test_unbalanced_classes_are_noted(tmp_path: Path) -> None:
    result = fit(draw(tmp_path / "p", {"ant": 14, "bee": 4}), *SMALL, "-o", tmp_path / "model")
    assert "note: classes are unbalanced, 'ant' has 12 photos to learn from, 'bee' 2: rare classes" in result.output
    result = fit(draw(tmp_path / "q", {"ant": 12, "bee": 4}), *SMALL, "-o", tmp_path / "model 2")
    assert "classes are unbalanced" not in result.output


@pytest.mark.parametrize("held", [False, True])
def test_a_broken_photo_is_named_and_skipped_if_asked(held: bool, tmp_path: Path) -> None:
    root = tmp_path / "p"
    draw(root / "train", {"ant": 3, "bee": 3})
    draw(root / "val", {"ant": 2, "bee": 2})
    broken = sorted((root / ("val" if held else "train") / "ant").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:60])
    result = fit(root, *SMALL, "-o", tmp_path / "model")
    assert result.exit_code == 2
    assert f"error: {broken} does not decode as an image" in result.output
    assert "can be skipped (--skip-broken)" in result.output
    result = fit(root, *SMALL, "--skip-broken", "-o", tmp_path / "model")
    assert result.exit_code == 0, result.output
    assert f"{3 if held else 4} held out" in result.output
    assert "skipped    1 photos that do not decode" in result.output
    assert f"           ant/{broken.name}" in result.output
    assert wsolnb.load(tmp_path / "model").trained["skipped"] == [f"ant/{broken.name}"]


def test_a_class_tree_of_ones_own(photos: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree.tsv"
    tree.write_text("insect\tant\n")
    semantic = [photos, "--method", "dcm-semantic", *SMALL, "--taxonomy", tree, "-o", tmp_path / "model"]
    result = fit(*semantic)
    assert result.exit_code == 2
    assert "class 'bee' has no node in the class tree of 2 nodes" in result.output
    tree.write_text("insect\tant\ninsect\tbee\n")
    assert fit(*semantic).exit_code == 0
    assert wsolnb.load(tmp_path / "model").taxonomy.parents == {"ant": "insect", "bee": "insect"}  # type: ignore[union-attr]
    result = fit(photos, *SMALL, "--taxonomy", tree, "-o", tmp_path / "other")
    assert "--taxonomy is for dcm-semantic; cam has no use for it" in result.output


def test_without_wordnet_both_remedies_are_named(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wn", None)
    result = fit(photos, "--method", "dcm-semantic", *SMALL, "-o", tmp_path / "model")
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "pip install 'wsolnb[wordnet]', or give a file" in result.output
    assert "by --taxonomy FILE" in result.output


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_stopped_and_given_again(number: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path / "cache"))
    arguments = [str(photos), *SMALL, "--epochs", "3", "-o", str(tmp_path / "model")]
    command = [sys.executable, "-c", "from wsolnb.cli.app import app; app()", "fit", *arguments]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch   1/3"):
            process.send_signal(number)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(r"SIG\w+: training stopped; epoch \d.* is saved in .*: run the same again .*\n", errors)
    assert not (tmp_path / "model").exists()
    again = fit(*arguments)
    assert again.exit_code == 0, again.output
    epochs = re.findall(r"^epoch +(\d+)/(\d+)", again.output, re.MULTILINE)
    assert epochs[0] != ("1", "3")
    assert epochs[-1] == ("6", "6")
    assert wsolnb.load(tmp_path / "model").classes == ("ant", "bee")
