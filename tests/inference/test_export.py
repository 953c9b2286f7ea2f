"""Exports are read by the tools that they are for: pycocotools, supervision, Label Studio's package."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

from wsolnb.data.readers.coco import CocoScenes
from wsolnb.inference.export import FORMATS, FoundBoxes, export, require_formats

BOXES = {
    "cat/1.jpg": ((200, 100), [(0, [10.0, 20.0, 110.5, 80.0], 0.875), (2, [0.0, 0.0, 200.0, 100.0], 0.125)]),
    "dog/1.jpg": ((60, 120), [(1, [5.0, 6.0, 55.0, 66.0], 0.5)]),
    "dog/2.tif": ((40, 30), []),
    "dog/ä & b.png": ((50, 50), [(1, [10.0, 10.0, 30.0, 40.0], -0.25)]),
}
CLASSES = ["cat", "dog", "a <b> & 'c'"]


@pytest.fixture
def found(tmp_path: Path) -> FoundBoxes:
    """Photos of several kinds; the first is stored on its side."""
    root = tmp_path / "my photos"
    lines: list[dict[str, Any]] = []
    for number, (name, (size, boxes)) in enumerate(BOXES.items(), start=1):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if number == 1:
            exif[0x0112] = 6
        stored = Image.new("RGB", size[::-1] if number == 1 else size, "red")
        stored.save(root / name, **({"exif": exif} if number == 1 else {}))
        rows = [{"label": label, "box": box, "score": score} for label, box, score in boxes]
        lines.append({"id": number, "photo": name, "width": size[0], "height": size[1], "boxes": rows})

    def read() -> Iterator[Mapping[str, Any]]:
        return iter(lines)

    return FoundBoxes(root, CLASSES, "resnet50, cam", read)


def truth() -> dict[str, list[tuple[int, list[float]]]]:
    """Classes and boxes by the stem of the photo's name."""
    return {name: [(label, box) for label, box, _ in boxes] for name, (_, boxes) in BOXES.items()}


def check(dataset: Any, stems: Mapping[str, str], within: float, classes: list[str] = CLASSES) -> None:
    """Compare a data set of supervision with the truth, by the stems that photos have there."""
    by_stem = {Path(path).stem: found for path, _, found in dataset}
    assert len(by_stem) == len(BOXES)
    for name, boxes in truth().items():
        got = by_stem[stems[name]]
        assert [dataset.classes[k] for k in got.class_id] == [classes[label] for label, _ in boxes]
        if boxes:
            np.testing.assert_allclose(got.xyxy, [box for _, box in boxes], atol=within)


def test_coco_is_read_by_pycocotools_supervision_and_our_own_reader(found: FoundBoxes, tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision")
    path = export(found, tmp_path, ["coco"])["coco"]
    coco = COCO(path)
    assert [coco.cats[k]["name"] for k in coco.getCatIds()] == CLASSES
    assert coco.getCatIds() == [1, 2, 3]
    assert [image["file_name"] for image in coco.imgs.values()] == list(BOXES)
    first = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert first[0] == {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 100.5, 60], "area": 6030.0,
                        "iscrowd": 0, "score": 0.875}  # fmt: skip
    detections = coco.loadRes(coco.dataset["annotations"])  # a list of detections, too
    assert len(detections.anns) == 4
    dataset = sv.DetectionDataset.from_coco(str(found.root), str(path))
    assert dataset.classes == CLASSES
    by_name = {Path(file).name: each for file, each in dataset.annotations.items()}
    np.testing.assert_allclose(by_name["2.tif"].xyxy, np.zeros((0, 4)))
    np.testing.assert_allclose(by_name["ä & b.png"].xyxy, [[10, 10, 30, 40]])
    scenes = CocoScenes(found.root, path)
    assert scenes.classes == CLASSES
    assert scenes.target(0)["boxes"].tolist() == [[10, 20, 110.5, 80], [0, 0, 200, 100]]


def test_yolo_is_read_by_supervision(found: FoundBoxes, tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision")
    path = export(found, tmp_path, ["yolo"])["yolo"]
    folder = path.parent
    about = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert about == {"nc": 3, "names": CLASSES, "train": "images", "val": "images"}
    assert sorted(each.name for each in (folder / "images").iterdir()) == ["1-2.jpg", "1.jpg", "2.png", "ä & b.png"]
    dataset = sv.DetectionDataset.from_yolo(str(folder / "images"), str(folder / "labels"), str(path))
    stems = dict(zip(BOXES, ("1", "1-2", "2", "ä & b"), strict=True))
    check(dataset, stems, within=200 * 1e-5)
    assert (found.root / "cat" / "1.jpg").read_bytes() == (folder / "images" / "1.jpg").read_bytes()


def test_voc_is_read_by_supervision(found: FoundBoxes, tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision")
    folder = export(found, tmp_path, ["voc"])["voc"]
    dataset = sv.DetectionDataset.from_pascal_voc(str(folder / "JPEGImages"), str(folder / "Annotations"))
    check(dataset, dict(zip(BOXES, ("1", "1-2", "2", "ä & b"), strict=True)), within=0.5)
    size = ElementTree.parse(folder / "Annotations" / "1.xml").getroot().find("size")
    assert size is not None
    assert (size.findtext("width"), size.findtext("height")) == ("200", "100")  # upright


def test_more_photos_than_are_handed_over_at_once(tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision")
    (tmp_path / "photos").mkdir()
    for number in range(65):
        Image.new("RGB", (20, 10)).save(tmp_path / "photos" / f"{number}.png")
    row = {"label": 0, "box": [0.0, 0.0, 10.0, 5.0], "score": 1.0}
    lines = [{"id": k + 1, "photo": f"{k}.png", "width": 20, "height": 10, "boxes": [row]} for k in range(65)]
    found = FoundBoxes(tmp_path / "photos", ["cat"], "", lambda: iter(lines))
    for _ in range(2):  # also over what was left of an export that was stopped
        path = export(found, tmp_path / "out", ["yolo"])["yolo"]
        dataset = sv.DetectionDataset.from_yolo(str(path.parent / "images"), str(path.parent / "labels"), str(path))
        assert sum(len(each) for each in dataset.annotations.values()) == 65


def test_label_studio_gets_tasks_with_predictions(found: FoundBoxes, tmp_path: Path) -> None:
    path = export(found, tmp_path, ["label-studio"])["label-studio"]
    tasks = json.loads(path.read_text(encoding="utf-8"))
    assert [task["data"]["image"] for task in tasks][3] == ("/data/local-files/?d=my%20photos/dog/%C3%A4%20%26%20b.png")
    (prediction,) = tasks[0]["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("resnet50, cam", 0.875)
    region = prediction["result"][0]
    assert region["value"] == {
        "x": 5.0, "y": 20.0, "width": 50.25, "height": 60.0, "rotation": 0, "rectanglelabels": ["cat"],
    }  # fmt: skip
    assert (region["original_width"], region["original_height"], region["type"]) == (200, 100, "rectanglelabels")
    assert tasks[2]["predictions"][0]["result"] == []
    assert tasks[3]["predictions"][0]["score"] == 0  # of a cosine below zero
    view = ElementTree.parse(path.with_suffix(".xml")).getroot()
    labels = view.find("RectangleLabels")
    image = view.find("Image")
    assert labels is not None
    assert image is not None
    assert [label.get("value") for label in labels] == CLASSES
    assert (labels.get("name"), labels.get("toName")) == (region["from_name"], region["to_name"])
    assert (image.get("name"), image.get("value")) == (region["to_name"], "$image")


def test_label_studio_takes_them(found: FoundBoxes, tmp_path: Path) -> None:
    """By its own package, which is too heavy for the tests' environment: pip install label-studio-sdk."""
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    from label_studio_sdk.converter import Converter

    path = export(found, tmp_path, ["label-studio"])["label-studio"]
    view = interface.LabelInterface(path.with_suffix(".xml").read_text(encoding="utf-8"))
    view.validate()
    tasks = json.loads(path.read_text(encoding="utf-8"))
    for task in tasks:
        assert view.validate_task({"data": task["data"]})
        assert view.validate_prediction(task["predictions"][0], return_errors=True) == []
    # accepted by a person, and given back as COCO
    accepted = [{"id": k, "data": t["data"], "annotations": [{"id": k, "result": t["predictions"][0]["result"]}]}
                for k, t in enumerate(tasks)]  # fmt: skip
    (tmp_path / "accepted.json").write_text(json.dumps(accepted))
    converter = Converter(path.with_suffix(".xml").read_text(encoding="utf-8"), str(tmp_path), download_resources=False)
    converter.convert_to_coco(str(tmp_path / "accepted.json"), str(tmp_path / "coco"), is_dir=False)
    back = json.loads((tmp_path / "coco" / "result.json").read_text())
    names = {each["id"]: each["name"] for each in back["categories"]}
    wanted = [(CLASSES[label], box) for boxes in truth().values() for label, box in boxes]
    assert [names[each["category_id"]] for each in back["annotations"]] == [name for name, _ in wanted]
    for each, (_, (x0, y0, x1, y1)) in zip(back["annotations"], wanted, strict=True):
        np.testing.assert_allclose(each["bbox"], [x0, y0, x1 - x0, y1 - y0], atol=0.02)


def test_csv_has_a_row_per_box(found: FoundBoxes, tmp_path: Path) -> None:
    path = export(found, tmp_path, ["csv"])["csv"]
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert rows[1] == {"photo": "cat/1.jpg", "width": "200", "height": "100", "class": CLASSES[2], "score": "0.125",
                       "x0": "0.0", "y0": "0.0", "x1": "200.0", "y1": "100.0"}  # fmt: skip


def test_classes_that_share_a_name_get_their_number(found: FoundBoxes, tmp_path: Path) -> None:
    twice = FoundBoxes(found.root, ["crane", "crane", "dog"], "", found.read)
    path = export(twice, tmp_path, ["coco"])["coco"]
    names = [each["name"] for each in json.loads(path.read_text())["categories"]]
    assert names == ["crane (0)", "crane (1)", "dog"]


def test_a_format_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    require_formats([name for name in FORMATS if name not in ("yolo", "voc")])
    for name in ("yolo", "voc"):
        with pytest.raises(
            ValueError, match=rf"'{name}' needs the package supervision: pip install 'wsolnb\[export\]'"
        ):
            require_formats([name])
