"""A threshold from a few drawn boxes: the best one, judged by photos that it was not chosen on, and clear refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor

from wsolnb.boxes import BoxRule
from wsolnb.inference.localizer import Localizer
from wsolnb.inference.tune import Share, tune

NAMES = ["red", "green"]


def run(images: list[Tensor], classes: Any, rule: BoxRule) -> list[dict[str, Tensor]]:
    """Maps that are the colour of the class that is asked for."""
    return [{"maps": image[row]} for image, row in zip(images, classes, strict=True)]


LOCALIZER = Localizer(run, BoxRule(0.9), NAMES, 40, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), True, "colours", "")


def draw(folder: Path, levels: list[int], **changes: Any) -> Path:
    """Photos of 80 x 40 pixels: an object at a level of its colour, with a bright core; and the file of its boxes."""
    file: dict[str, Any] = {"images": [], "annotations": []}
    file["categories"] = [{"id": 4, "name": "Red"}, {"id": 7, "name": "green"}, {"id": 9, "name": "blue"}]
    folder.mkdir(exist_ok=True)
    for k, level in enumerate(levels):
        colour = k % 2
        photo = Image.new("RGB", (80, 40))
        photo.paste(tuple(level if c == colour else 0 for c in range(3)), (20, 8, 60, 32))
        photo.paste(tuple(255 if c == colour else 0 for c in range(3)), (30, 16, 40, 20))
        photo.save(folder / f"{k}.png")
        file["images"].append({"id": k, "file_name": f"{k}.png", "width": 80, "height": 40} | changes)
        box = {"image_id": k, "category_id": (4, 7)[colour], "bbox": [20, 8, 40, 24]}
        file["annotations"].append({"id": k} | box)
    (folder / "boxes.json").write_text(json.dumps(file))
    return folder / "boxes.json"


def test_the_threshold_is_the_middle_of_the_best_ones(tmp_path: Path) -> None:
    boxes = draw(tmp_path / "photos", [128, 128, 102, 128])
    tuned = tune(LOCALIZER, tmp_path / "photos", boxes, batch_size=3)
    assert tuned.rule.threshold == pytest.approx(0.2, abs=0.02)  # all below 0.4 = 102 / 255 find all four
    assert (tuned.before, tuned.after) == (Share(0, 4), Share(4, 4))
    assert replace(tuned.rule, threshold=0.9) == LOCALIZER.rule
    assert tuned.chosen["boxes"] == 4
    assert "4 of 4 (100 %, 95 % interval 51 to 100 %)" in tuned.chosen.values()


def test_a_photo_is_judged_by_the_threshold_of_the_others(tmp_path: Path) -> None:
    """One photo needs a cut above a haze that the two others do not have; theirs does not find it."""
    folder = tmp_path / "photos"
    boxes = draw(folder, [250, 250, 250])
    hazy = Image.new("RGB", (80, 40), (200, 0, 0))
    hazy.paste((255, 0, 0), (20, 8, 60, 32))
    hazy.save(folder / "0.png")  # right above 200 / 255 = 0.78 only
    for k, colour in ((1, (0, 1)), (2, (1, 0))):
        low = Image.new("RGB", (80, 40))
        low.paste((150 * colour[0], 150 * colour[1], 0), (20, 8, 60, 32))
        low.paste((255 * colour[0], 255 * colour[1], 0), (30, 16, 34, 20))
        low.save(folder / f"{k}.png")  # right below 150 / 255 = 0.59 only
    tuned = tune(LOCALIZER, folder, boxes)
    assert tuned.before == Share(1, 3)
    assert tuned.rule.threshold < 0.59
    assert tuned.after == Share(2, 3)  # without 1 or 2 every cut finds one of two, and a low one has the larger IoU


def test_several_boxes_of_a_class_and_photos_without(tmp_path: Path) -> None:
    boxes = draw(tmp_path / "photos", [128, 128, 128, 128])
    file = json.loads(boxes.read_text())
    file["annotations"][3]["image_id"] = 0
    file["annotations"][3] |= {"category_id": 4, "bbox": [0, 0, 4, 4]}
    boxes.write_text(json.dumps(file))
    assert tune(LOCALIZER, tmp_path / "photos", boxes).after == Share(3, 3)


def test_the_interval_is_wilsons() -> None:
    low, high = Share(7, 10).interval
    assert (low, high) == (pytest.approx(0.3968, abs=1e-4), pytest.approx(0.8922, abs=1e-4))
    assert Share(0, 5).interval[0] == 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"file_name": "gone.png"},
            FileNotFoundError,
            r"lacks 1 of the 4 images that .*boxes\.json lists.*'gone\.png'",
        ),
        ({"width": 40, "height": 80}, ValueError, r"0\.png has 80 x 40 pixels, upright, .*boxes\.json says 40 x 80"),
        ({"category": 9}, ValueError, r"boxes\.json: no class is named 'blue'; there are red, green"),
        ({"also": 7}, ValueError, r"boxes\.json: .*0\.png has boxes of Red, green: draw those of one class per photo"),
        ({"few": 2}, ValueError, r"boxes\.json has boxes on 2 photos: draw some on 3 photos at least"),
    ],
)
def test_refusals_name_the_file(tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str) -> None:
    boxes = draw(tmp_path / "photos", [128] * 4)
    file = json.loads(boxes.read_text())
    file["images"][0] |= {name: change[name] for name in ("file_name", "width", "height") if name in change}
    if "width" in change:
        file["annotations"] = [each | {"bbox": [2, 2, 20, 20]} for each in file["annotations"]]
    if "category" in change:
        file["annotations"][1]["category_id"] = change["category"]
    if "also" in change:
        file["annotations"].append(file["annotations"][0] | {"id": 99, "category_id": change["also"]})
    if "few" in change:
        file["annotations"] = file["annotations"][: change["few"]]
    boxes.write_text(json.dumps(file))
    with pytest.raises(error, match=message):
        tune(LOCALIZER, tmp_path / "photos", boxes)


def test_a_rule_with_several_boxes_is_not_tuned(tmp_path: Path) -> None:
    boxes = draw(tmp_path / "photos", [128] * 3)
    several = replace(LOCALIZER, rule=BoxRule(component="all"))
    with pytest.raises(ValueError, match="component 'all' gives several boxes per map: tune a rule with one"):
        tune(several, tmp_path / "photos", boxes)


def test_photos_are_seen_as_localize_sees_them(tmp_path: Path) -> None:
    """Batches of any size, and photos that are not square."""
    boxes = draw(tmp_path / "photos", [128, 90, 200, 128, 60])
    seen: list[tuple[int, ...]] = []

    def watched(images: list[Tensor], classes: Any, rule: BoxRule) -> list[dict[str, Tensor]]:
        seen.extend(tuple(image.shape) for image in images)
        return run(images, classes, rule)

    wide = replace(LOCALIZER, run=watched, square=False)
    assert tune(wide, tmp_path / "photos", boxes, batch_size=2).after == Share(5, 5)
    assert seen == [(3, 40, 80)] * 5
