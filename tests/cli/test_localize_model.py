"""`wsolnb localize` with a model that was trained here: folders, known classes, drawn boxes, maps, formats."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import shufflenet_v2_x0_5
from typer.testing import CliRunner

from wsolnb.cli.app import app
from wsolnb.data.critters import World
from wsolnb.data.readers.protocol import ProtocolSplit, write_split
from wsolnb.data.taxonomy import Taxonomy
from wsolnb.inference.fit import METHOD_NAMES, fit
from wsolnb.inference.model import LocalizationModel, load

NAMES = ("ant", "bee", "cat")
TREE = Taxonomy({"ant": "insect", "bee": "insect", "insect": "animal", "cat": "animal"})


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve drawn animals in three class folders, in a file each of another shape; and the boxes of five of them."""
    root, drawn = tmp_path_factory.mktemp("animals"), World(families=3, species=1, size=48, objects=(1, 1)).singles(12)
    file: dict[str, Any] = {"images": [], "annotations": []}
    file["categories"] = [{"id": k + 1, "name": name} for k, name in enumerate(NAMES)]
    for index in range(12):
        image, target = drawn[index]
        label = int(target["labels"][0])
        name = f"{NAMES[label]}/{index}.png"
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).resize((96, 72)).save(root / name)
        if index < 5:
            x0, y0, x1, y1 = (target["boxes"][0] * torch.tensor([2, 1.5, 2, 1.5])).tolist()
            file["images"].append({"id": index, "file_name": name, "width": 96, "height": 72})
            row = {"id": index, "image_id": index, "category_id": label + 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            file["annotations"].append(row)
    (root / "ant" / "list.txt").write_text("no photo")
    (root.parent / "boxes.json").write_text(json.dumps(file))
    return root


def small(photos: Path, method: str = "cam") -> LocalizationModel:
    options = {"backbone": "tiny", "weights": None, "image_size": 32, "epochs": 1, "batch_size": 6}
    return fit(photos, method, taxonomy=TREE, device="cpu", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(photos).save(tmp_path_factory.mktemp("models") / "cam")


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    """A copy of the model, as tuning changes it."""
    copy = tmp_path / "model"
    copy.mkdir()
    for path in trained.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def call(*arguments: str | Path) -> Result:
    environment = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner(env=environment).invoke(app, ["localize", *map(str, arguments)])


def coco(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "coco.json").read_text())


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_every_method_finds_what_its_model_finds_in_python(method: str, photos: Path, tmp_path: Path) -> None:
    saved = small(photos, method).save(tmp_path / "model")
    result = call(photos, "--model", saved, "-o", tmp_path / "out", "--classes", "2", "--device", "cpu")
    assert result.exit_code == 0, result.output
    written = coco(tmp_path / "out")
    assert [image["file_name"] for image in written["images"]] == sorted(
        f"{folder.name}/{path.name}" for folder in photos.iterdir() for path in folder.glob("*.png")
    )
    assert "no photos by their suffix: " in result.output
    again = load(saved)
    for image in written["images"][:3]:
        pixels = torch.from_numpy(np.array(Image.open(photos / image["file_name"]))).permute(2, 0, 1)[None]
        (found,) = again.localize(pixels, 2)
        rows = [each for each in written["annotations"] if each["image_id"] == image["id"]]
        kept = found["boxes"].isfinite().all(dim=1)
        assert [row["category_id"] - 1 for row in rows] == found["labels"][kept].tolist()
        wanted = found["boxes"][kept]
        boxes = torch.tensor([row["bbox"] for row in rows]).reshape(-1, 4)
        torch.testing.assert_close(boxes[:, :2], wanted[:, :2], atol=0.011, rtol=0)
        torch.testing.assert_close(boxes[:, :2] + boxes[:, 2:], wanted[:, 2:], atol=0.021, rtol=0)
        scores = torch.tensor([row["score"] for row in rows])
        torch.testing.assert_close(scores, found["scores"][kept].float(), atol=1e-4, rtol=0)


def test_the_folder_of_a_photo_can_be_its_class(photos: Path, model: Path, tmp_path: Path) -> None:
    options = ("--model", model, "--labels", "folder", "--threshold", "0.1", "--device", "cpu")
    result = call(photos, *options, "-o", tmp_path / "out", "--batch-size", "5")
    assert result.exit_code == 0, result.output
    written = coco(tmp_path / "out")
    names = {each["id"]: each["file_name"].split("/")[0] for each in written["images"]}
    classes = {each["id"]: each["name"] for each in written["categories"]}
    assert len(written["annotations"]) == 12
    assert all(classes[each["category_id"]] == names[each["image_id"]] for each in written["annotations"])
    one = call(photos / "bee", *options, "-o", tmp_path / "one")  # the folder itself has the name
    assert one.exit_code == 0, one.output
    assert {each["category_id"] for each in coco(tmp_path / "one")["annotations"]} == {2}
    (tmp_path / "new" / "dog").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "new" / "dog" / "1.png")
    wrong = call(tmp_path / "new", *options, "-o", tmp_path / "wrong")
    assert wrong.exit_code == 2
    assert f"the folder of {tmp_path / 'new' / 'dog' / '1.png'} is to be its class, but no class is named 'dog'" in (
        wrong.output
    )
    assert "there are ant, bee, cat" in wrong.output
    assert not (tmp_path / "wrong").exists()


def test_folders_name_the_classes_of_a_classifier_too(photos: Path, tmp_path: Path) -> None:
    save_file(shufflenet_v2_x0_5(num_classes=3).state_dict(), tmp_path / "net.safetensors")
    (tmp_path / "names.txt").write_text("\n".join(("Cat", "Bee", "Ant")))
    network = ("--model", "shufflenet_v2_x0_5", "--weights", tmp_path / "net.safetensors", "--size", "64")
    network = (*network, "--names", tmp_path / "names.txt", "--mean", "0.5,0.5,0.5", "--std", "1,1,1")
    maps = ("--save-maps", tmp_path / "maps")
    result = call(photos, *network, "--labels", "folder", *maps, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    kept = json.loads((tmp_path / "maps" / "classes.json").read_text())
    assert all(classes == [photo.split("/")[0].title()] for photo, classes in kept.items())
    assert np.load(tmp_path / "maps" / "ant" / "0.png.npy").shape == (2, 3)  # 64 x 85 pixels


def test_drawn_boxes_choose_the_threshold_and_the_model_keeps_it(photos: Path, model: Path, tmp_path: Path) -> None:
    boxes = photos.parent / "boxes.json"
    before = load(model).rule.threshold
    options = ("--model", model, "--tune", boxes, "--labels", "folder", "--device", "cpu")
    result = call(photos, *options, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert f"drawn boxes found with threshold {before:.3g} as before: " in result.output
    assert " of 5 (" in result.output
    assert "95 % interval" in result.output
    after = load(model)
    assert after.rule.threshold != before
    assert after.chosen["boxes"] == 5
    assert f"{after.rule.threshold:.3g} from now on, stored in {model}" in result.output
    again = call(photos, "--model", model, "--labels", "folder", "-o", tmp_path / "again", "--device", "cpu")
    assert again.exit_code == 0
    assert coco(tmp_path / "again") == coco(tmp_path / "out")
    assert "perhaps on these" not in result.output
    twice = call(photos, *options, "-o", tmp_path / "twice")
    assert " of 5 (" in twice.output
    assert "which was chosen on drawn boxes, perhaps on these" in twice.output
    both = call(photos, *options, "--threshold", "0.3", "-o", tmp_path / "both")
    assert (both.exit_code, both.output) == (
        2,
        "error: --tune chooses the threshold: leave out --threshold, or --tune to set it\n",
    )


def test_maps_of_one_class_are_read_by_eval(photos: Path, model: Path, tmp_path: Path) -> None:
    result = call(photos, "--model", model, "--labels", "folder", "--save-maps", tmp_path / "maps",
                  "-o", tmp_path / "out", "--device", "cpu")  # fmt: skip
    assert result.exit_code == 0, result.output
    images = coco(tmp_path / "out")["images"]
    ids = tuple(image["file_name"] for image in images)
    inside = tuple(torch.tensor([[8, 8, 60, 60]]) for _ in ids)
    split = ProtocolSplit(ids, torch.zeros(12, dtype=torch.int64), torch.tensor([[96, 72]] * 12), inside)
    write_split(split, tmp_path / "split")
    places = [str(tmp_path / "maps"), "--metadata", str(tmp_path / "split"), "--out", str(tmp_path / "eval")]
    score = CliRunner().invoke(app, ["eval", *places, "--enlarge", "224", "--thresholds", "10"])
    assert score.exit_code == 0, score.output
    several = call(photos, "--model", model, "--classes", "all", "--save-maps", tmp_path / "all",
                   "-o", tmp_path / "two", "--device", "cpu")  # fmt: skip
    assert several.exit_code == 0, several.output
    maps = np.load(tmp_path / "all" / "ant" / "0.png.npy")
    assert (maps.shape, maps.dtype) == ((3, 4, 4), np.float32)
    assert json.loads((tmp_path / "all" / "classes.json").read_text())["ant/0.png"] == list(NAMES)
    full = call(photos, "--model", model, "--save-maps", tmp_path / "all", "-o", tmp_path / "three")
    assert full.exit_code == 2
    assert "all exists and is no empty folder" in full.output
    assert not (tmp_path / "three").exists()


def test_all_formats_at_once_and_a_broken_photo_in_a_folder(photos: Path, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("supervision")
    copy = tmp_path / "mine"
    for path in photos.glob("*/*"):
        (copy / path.parent.name).mkdir(parents=True, exist_ok=True)
        (copy / path.parent.name / path.name).write_bytes(path.read_bytes())
    (copy / "bee" / "0.png").write_bytes(b"no picture")
    formats = [part for name in ("coco", "yolo", "voc", "label-studio", "csv") for part in ("--format", name)]
    result = call(copy, "--model", model, *formats, "-o", tmp_path / "out", "--threshold", "0.1", "--device", "cpu")
    assert result.exit_code == 1  # said at the end, and nothing else is missing
    assert f"not read: {copy / 'bee' / '0.png'}: cannot identify image file" in result.output
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["boxes.csv", "coco.json", "label-studio.json", "label-studio.xml", "overlays", "voc", "yolo"]
    assert len(list((tmp_path / "out" / "yolo" / "labels").iterdir())) == 12


def test_stopped_at_any_photo_the_same_command_goes_on(
    photos: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--model", model, "--save-maps", "maps", "--tune", photos.parent / "boxes.json", "--batch-size", "1")
    options = (*options, "--device", "cpu", "-o", "out")
    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    spare = (model / "model.json").read_bytes()
    monkeypatch.chdir(tmp_path / "whole")
    assert call(photos, *options).exit_code == 0
    (model / "model.json").write_bytes(spare)
    monkeypatch.chdir(tmp_path / "stopped")
    save, calls = Image.Image.save, []

    def dying(self: Image.Image, *arguments: Any, **named: Any) -> None:
        calls.append(1)
        if len(calls) in (4, 8):
            raise KeyboardInterrupt
        save(self, *arguments, **named)

    monkeypatch.setattr(Image.Image, "save", dying)
    for _ in range(2):
        stopped = call(photos, *options)
        assert stopped.exit_code == 130
        assert "give the same command again to go on" in stopped.output
        assert (model / "model.json").read_bytes() == spare  # the rule is stored with the last photo
    assert call(photos, *options).exit_code == 0
    files = [sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*")) for n in ("whole", "stopped")]
    assert files[0] == files[1]
    for path in (path for path in files[0] if (tmp_path / "whole" / path).is_file()):
        assert (tmp_path / "whole" / path).read_bytes() == (tmp_path / "stopped" / path).read_bytes(), path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "MODEL", "--weights", "DEFAULT", "--size", "9"], "leave out --weights, --size"),
        (["--model", "MODEL", "--method", "cam"], "holds its weights, method and input: leave out --method"),
        (["--model", "resnet18"], "resnet18 is no folder of a model; for a classifier, give --weights, too"),
        (["--model", "."], ". is no model: it has no model.json"),
        (["--model", "resnet18", "--weights", "NET", "--mean", "1,2"], "--mean 1,2: give three numbers with commas"),
        (["--model", "resnet18", "--weights", "NET", "--std", "1,0,1"], "--std 1,0,1: photos are divided by these"),
        (["--model", "MODEL", "--labels", "folder", "--classes", "all"], "leave out --classes, or --labels"),
        (["--model", "MODEL", "--classes", "dog,"], "no class is named 'dog'; there are ant, bee, cat"),
        (["--model", "MODEL", "--classes", "4"], "the model has 3 classes"),
        (["--model", "MODEL", "--rule", "cma"], "no box rule 'cma'"),
        (["--model", "MODEL", "--tune", "gone.json"], "no annotation file gone.json"),
    ],
)
def test_refusals_are_one_line(photos: Path, model: Path, tmp_path: Path, options: list[str], message: str) -> None:
    given = [str(model) if each == "MODEL" else each for each in options]
    result = call(photos, *given, "-o", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 2, result.output
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1
    assert message in result.output
    assert not os.path.lexists(tmp_path / "out")
