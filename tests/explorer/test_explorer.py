"""The explorer in Python: what it refuses, what it ships, its state, its boxes, its picture; see also tests/browser."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ipywidgets.widgets.widget import _remove_buffers
from PIL import Image
from traitlets import TraitError

from wsolnb.boxes import BoxRule
from wsolnb.data.critters import World
from wsolnb.explorer import Explorer, payload
from wsolnb.explorer.picture import class_colours, heat, sheet
from wsolnb.localization.detect import detections
from wsolnb.localization.locate import LocalizationResult
from wsolnb.localization.maps import LocalizationMaps, SceneMaps

CLASSES = ["cat", "dog", "owl"]
Make = Callable[..., Explorer]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """An explorer of two images of 30 x 40 with one square each; any argument may be replaced."""
    monkeypatch.setenv("WSOLNB_HEADLESS", "1")
    monkeypatch.delenv("WSOLNB_WIDGETS", raising=False)
    maps = torch.zeros(2, 3, 6, 8)
    maps[0, 1, 1:3, 2:5] = 1.0
    maps[0, 2, 4:, :2] = torch.tensor([0.9, 0.5])
    maps[1, 0, 5, 7] = 0.8
    targets = [
        {"boxes": torch.tensor([[10.0, 5.0, 25.0, 20.0]]), "labels": torch.tensor([1])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]

    def build(**changes: Any) -> Explorer:
        given = {"images": torch.zeros(2, 3, 30, 40, dtype=torch.uint8), "maps": {"dcm": maps}, "classes": CLASSES}
        return Explorer(**(given | {"targets": targets, "rules": BoxRule(0.5)} | changes))

    return build


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maps": {}}, "no maps to explore"),
        ({"maps": {"cam": torch.rand(3, 3, 6, 8)}}, "'cam' has maps of 3 images, but there are 2"),
        ({"maps": {"cam": torch.rand(2, 2, 6, 8)}}, "'cam', image 0: 2 maps for 3 classes"),
        ({"classes": [*CLASSES, "ape"]}, "'dcm', image 0: 3 maps for 4 classes"),
        ({"maps": {"cam": torch.full((2, 3, 6, 8), torch.nan)}}, "'cam', image 0: the map holds NaN"),
        ({"maps": {"cam": torch.full((2, 3, 6, 8), torch.inf)}}, "'cam', image 0: the map holds NaN or infinite"),
        (
            {"maps": {"cam": torch.rand(2, 3, 6, 8, 1)}},
            r"a map must be \(classes, h, w\) or \(h, w\), not \(3, 6, 8, 1",
        ),
        ({"maps": {"cam": torch.rand(2, 0, 8)}}, "a map must be"),
        ({"images": torch.zeros(2, 1, 30, 40)}, r"an image must be \(3, height, width\), not \(1, 30, 40\)"),
        ({"targets": [{}]}, "targets of 1 images, but 2 images"),
        ({"indices": []}, "no images to explore"),
        ({"dense": ["dcm", "tap"]}, r"dense names \['tap'\], but the methods are dcm"),
        ({"limit": 1e-4}, "2 images with 3 maps each take about 0.0 MB, more than 0.0001: give fewer"),
    ],
)
def test_bad_input_is_refused_before_anything_is_shown(make: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_scores_must_fit(make: Make) -> None:
    maps = torch.rand(2, 3, 6, 8)
    bad = SceneMaps(list(maps), torch.rand(2, 2), torch.tensor([[30, 40]] * 2), [{}, {}])
    with pytest.raises(ValueError, match=r"'cam': scores must be \(2, 3\), not \(2, 2\)"):
        make(maps={"cam": bad})


def test_hundreds_of_large_images_are_refused_with_their_size(make: Make) -> None:
    class Photos:
        def __len__(self) -> int:
            return 600

        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.randint(0, 256, (3, 300, 400), dtype=torch.uint8)

    with pytest.raises(ValueError, match=r"600 images with 1 maps each take about \d\d\.\d MB, more than 2"):
        make(images=Photos(), maps={"heat": torch.rand(600, 6, 8)}, targets=None, limit=2)


def test_the_first_images_that_fit_can_be_asked_for(make: Make) -> None:
    images, maps = torch.zeros(9, 3, 30, 40, dtype=torch.uint8), {"cam": torch.rand(9, 3, 60, 80)}
    given = {"images": images, "maps": maps, "targets": None}
    assert len(make(**given, first=4)._pictures) == 4
    few = make(**given, first=8, limit=0.1, image=5)  # the maps of an image take 29 kB
    assert len(few._pictures) == 3
    assert few.image == 2
    assert [len(each.maps) for each in few._shipped.values()] == [3]
    assert len(few._readings["cam"]["shapes"]) == 3
    with pytest.raises(ValueError, match="8 images with 3 maps each"):
        make(**given, first=8, limit=0.01)


def test_boxes_scores_and_overlap_of_the_view(make: Make) -> None:
    explorer = make()
    table = explorer.table()  # dcm: Eq. 8 gives 0, 1.0, 0.9, and presence is 0.5
    assert table.label.tolist() == ["dog", "owl"]
    assert table.score.tolist() == pytest.approx([1.0, 0.9])
    assert table[["x0", "y0", "x1", "y1"]].to_numpy().tolist() == [[10, 5, 25, 15], [0, 20, 10, 30]]
    assert table.iou[0] == pytest.approx(10 / 15)
    assert table.iou.isna().tolist() == [False, True]  # there is no owl

    explorer.presences = {"dcm": 0.95}
    assert explorer.table().label.tolist() == ["dog"]
    explorer.labels = [2]
    explorer.thresholds = {"dcm": 0.6}
    assert explorer.table()[["label", "x1"]].to_numpy().tolist() == [["owl", 5.0]]
    explorer.labels, explorer.presences, explorer.image = [], {"dcm": 0.5}, 1
    assert explorer.table()[["label", "x0", "y0", "x1", "y1"]].to_numpy().tolist() == [["cat", 35, 25, 40, 30]]
    assert len(explorer.table(image=0)) == 2


def test_reference_replaces_that_of_the_rule(make: Make) -> None:
    explorer = make(rules=BoxRule(0.2, "absolute"))
    assert explorer.rule("dcm").reference == "absolute"
    explorer.reference, explorer.percentile = "percentile", 75.0
    assert explorer.rule("dcm") == BoxRule(0.2, "percentile", 75.0)
    explorer.reference = "maximum"
    assert explorer.rule("dcm").reference == "maximum"


def test_without_scores_the_classes_of_the_truth_are_shown(make: Make) -> None:
    explorer = make(dense=[])
    assert explorer.table().label.tolist() == ["dog"]
    explorer.image = 1  # nothing is known about it: all classes are, as far as they have a box
    assert explorer.table().label.tolist() == ["cat"]


def test_maps_without_classes_are_compared_with_any_object(make: Make) -> None:
    heat = torch.zeros(2, 6, 8)
    heat[0, 1:4, 2:5] = 1
    explorer = make(maps={"beam": heat})
    row = explorer.table().iloc[0]
    assert (row.label, row.iou) == ("any", 1.0)
    explorer.labels = [2]
    assert explorer.table().label.tolist() == ["any"]


def test_boxes_are_those_of_detect(make: Make) -> None:
    scenes = World(families=3, species=1, size=64, objects=(1, 2)).scenes(4, seed=1, size=(60, 90))
    maps = [torch.rand(3, 7, 11) for _ in range(4)]
    found = SceneMaps(maps, torch.rand(4, 3), torch.tensor([[60, 90]] * 4), [scenes[i][1] for i in range(4)])
    rule = BoxRule(0.6, resize="bilinear")
    explorer = Explorer(scenes, {"cam": found}, scenes.classes, rules={"cam": rule}, presence=0.3)
    for image, wanted in enumerate(detections(found, rule, score_threshold=0.3)):
        table = explorer.table(image)
        assert table.label.tolist() == [scenes.classes[k] for k in wanted["labels"].tolist()]
        assert table[["x0", "y0", "x1", "y1"]].to_numpy().tolist() == wanted["boxes"].tolist()


def test_located_brings_its_rule_and_its_frame(make: Make) -> None:
    maps = torch.zeros(2, 5, 5)
    maps[:, 1:3, 1:3] = 1
    boxes = [torch.tensor([[4.0, 4.0, 12.0, 12.0]])] * 2
    found = LocalizationMaps(maps, torch.rand(2, 3), torch.tensor([1, 0]), boxes, (20, 20))
    located = LocalizationResult(found, BoxRule(0.4), SimpleNamespace())  # type: ignore[arg-type]
    target = {"boxes": torch.tensor([[8.0, 6.0, 24.0, 18.0]]), "labels": torch.tensor([1])}
    explorer = make(maps={"tap": located}, targets=[target] * 2, rules=None)
    assert explorer.thresholds == {"tap": 0.4}
    assert explorer._pictures[0]["size"] == [20, 20]  # truth of the 30 x 40 image goes with it
    assert explorer._pictures[0]["boxes"] == [[4, 4, 12, 12]]
    assert explorer.table().iou[0] == 1.0


def test_state_is_checked_and_can_be_observed(make: Make) -> None:
    explorer = make(maps={"cam": torch.rand(2, 3, 6, 8), "dcm": torch.rand(2, 3, 6, 8)}, thresholds={"cam": 0.35})
    assert explorer.thresholds == {"cam": 0.35, "dcm": 0.5}
    heard: list[Any] = []
    explorer.observe(lambda change: heard.append(change["new"]), ["image", "thresholds"])
    explorer.image = 1
    explorer.thresholds = {"dcm": 0.1}  # the others stay
    assert heard == [1, {"cam": 0.35, "dcm": 0.1}]
    for name, value, message in (
        ("image", 2, "image 2 is none of the 2 images"),
        ("labels", [0, 3], r"labels \[3\] are none of the 3 classes"),
        ("methods", ["tap"], "no method tap; the methods are cam, dcm"),
        ("thresholds", {"tap": 0.2}, "no method tap"),
        ("view", "cells", "view"),
        ("opacity", 1.5, "opacity"),
    ):
        with pytest.raises(TraitError, match=message):
            setattr(explorer, name, value)
    assert explorer.image == 1


def test_maps_are_rounded_to_a_fine_grid_and_ends_are_exact() -> None:
    maps = torch.randn(4, 9, 5) * 3
    shipped = payload.rounded(maps)
    assert shipped.amax(dim=(1, 2)).tolist() == maps.amax(dim=(1, 2)).tolist()
    assert shipped.amin(dim=(1, 2)).tolist() == maps.amin(dim=(1, 2)).tolist()
    assert float((shipped - maps).abs().max()) < 2e-4
    assert payload.rounded(torch.full((1, 2, 3), 0.3)).tolist() == torch.full((1, 2, 3), 0.3).tolist()
    shipped = payload.ShippedMaps([maps, maps[:, :, :2]], torch.rand(2, 4), agnostic=False, rule=BoxRule())
    back = payload.unpack(payload.pack(shipped), shipped.rule)
    assert all(torch.equal(one, payload.rounded(other)) for one, other in zip(back.maps, shipped.maps, strict=True))
    assert torch.equal(back.scores, shipped.scores)  # type: ignore[arg-type]


def test_boxes_from_shipped_maps_are_those_from_the_maps_themselves() -> None:
    maps, rule = torch.randn(300, 1, 12, 17).relu(), BoxRule(0.3, resize="bilinear")
    shipped = torch.stack([payload.rounded(each) for each in maps])
    same = (rule(maps, (60, 90)) == rule(shipped, (60, 90))).all(dim=-1)
    assert same.float().mean() > 0.99


def test_state_survives_a_notebook(make: Make) -> None:
    explorer = make(image=1, thresholds={"dcm": 0.7}, labels=[0, 2])
    state, paths, buffers = _remove_buffers(explorer.get_state())
    state = json.loads(json.dumps(state, sort_keys=True))
    for (*way, last), buffer in zip(paths, buffers, strict=True):
        part = state
        for key in way:
            part = part[key]
        part[last] = bytes(buffer)
    again = Explorer.restored(state)
    assert again.table().equals(explorer.table())
    assert (again.image, again.labels, again.thresholds) == (1, [0, 2], {"dcm": 0.7})
    assert again.png() == explorer.png()


def test_text_is_stable_and_a_picture_stands_in_for_the_widget(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = make()
    assert repr(explorer) == "Explorer(2 images, 3 classes, dcm)"
    assert explorer.comm is None  # headless: nothing is connected, nothing is stored in the notebook
    bundle, _ = explorer._repr_mimebundle_()
    assert list(bundle) == ["text/plain", "image/png"]
    monkeypatch.setenv("WSOLNB_WIDGETS", "1")
    bundle, _ = make()._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "image/png", "application/vnd.jupyter.widget-view+json"}


def test_picture_shows_map_and_boxes(make: Make) -> None:
    explorer = make(opacity=0.0, truth=False)
    with Image.open(io.BytesIO(explorer.png(height=60))) as opened:
        picture = opened.convert("RGB")
    assert picture.size == (80 + 6 + 80, 60 + 18 + 6)  # the image, and one method
    assert picture.getpixel((86 + 2 * 10, 18 + 2 * 10)) == Image.new("RGB", (1, 1), class_colours(3)[1]).getpixel(
        (0, 0)
    )
    explorer.opacity, explorer.view = 1.0, "classes"
    explorer.sim_threshold = 0.95  # leaves the dog, in its colour, and of the owl nothing
    with Image.open(io.BytesIO(explorer.png(height=60))) as opened:
        picture = opened.convert("RGB")
    assert picture.getpixel((86 + 2 * 17, 18 + 2 * 10)) == Image.new("RGB", (1, 1), class_colours(3)[1]).getpixel(
        (0, 0)
    )
    assert picture.getpixel((86 + 2 * 6, 18 + 2 * 27)) == (0, 0, 0)
    assert sheet(explorer, height=60).size == (166, 2 * 84)


def test_parts_are_outlined_where_the_data_has_them() -> None:
    scenes = World(families=2, species=1, size=48, objects=(1, 1)).scenes(2, seed=0)
    explorer = Explorer(scenes, {"cam": torch.rand(2, 2, 6, 6)}, scenes.classes)
    with Image.open(io.BytesIO(explorer._pictures[0]["parts"])) as opened:
        outline = opened.convert("RGBA")
    seen = set(outline.get_flattened_data())
    assert seen == {(0, 0, 0, 0), (255, 255, 255, 255), (255, 215, 0, 255)}


def test_heat_rises_in_lightness() -> None:
    light = heat(torch.linspace(0, 1, 50).numpy()) @ [0.299, 0.587, 0.114]
    assert (light[1:] > light[:-1]).all()


@dataclass
class _Slow:
    """Nothing here may be computed for images that are not asked for."""

    asked: list[int]

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> torch.Tensor:
        self.asked.append(index)
        return torch.zeros(3, 30, 40, dtype=torch.uint8)


def test_only_the_images_asked_for_are_read(make: Make) -> None:
    images = _Slow([])
    explorer = make(images=images, maps={"heat": torch.rand(1000, 6, 8)}, targets=None, indices=[7, 3])
    assert images.asked == [7, 3]
    assert len(explorer._pictures) == 2
