"""COCO's layout: what is read, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as run_lengths
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from wsolnb.data.readers.coco import CocoScenes
from wsolnb.data.readers.scenes import scene_batches, scene_transform

Layout = tuple[Path, Path]

# Python 3.12 and later warn of every fork of a process that has threads, as any process that uses torch has.
forks = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def annotation(number: int, image: int, category: int, bbox: list[float], **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "area": 1, "iscrowd": 0, **more}


@pytest.fixture
def truth() -> dict[str, Any]:
    """Three images, 40 x 30, 30 x 50 and 40 x 30; the last has no box. Category ids have gaps and no order."""
    sizes = {7: (40, 30), 3: (30, 50), 11: (40, 30)}
    return {
        "images": [{"id": i, "file_name": f"{i:03d}.png", "width": w, "height": h} for i, (w, h) in sizes.items()],
        "annotations": [
            annotation(1, 3, 18, [2, 4, 10, 20]),
            annotation(2, 7, 90, [0, 0, 40, 30]),
            annotation(3, 7, 18, [5.5, 6.25, 30, 20], iscrowd=1),
            annotation(4, 3, 18, [1, 1, 4, 5]),
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 18, "name": "dog"}, {"id": 20, "name": "sheep"}],
    }


def write(folder: Path, truth: Any, name: str = "instances.json") -> Layout:
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for k, image in enumerate(truth["images"]):
        Image.new("RGB", (image["width"], image["height"]), (10 * k, 20, 200)).save(images / image["file_name"])
    (folder / name).write_text(json.dumps(truth))
    return images, folder / name


@pytest.fixture
def layout(tmp_path: Path, truth: dict[str, Any]) -> Layout:
    return write(tmp_path, truth)


def rewrite(layout: Layout, truth: Any) -> Layout:
    layout[1].write_text(json.dumps(truth))
    return layout


def test_reads_images_in_order_with_boxes_as_corners(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = CocoScenes(*layout)
    assert capsys.readouterr().out == ""
    assert len(scenes) == 3
    assert scenes.classes == ["dog", "sheep", "toothbrush"]
    assert scenes.sizes.tolist() == [[30, 40], [50, 30], [30, 40]]
    image, target = scenes[0]
    assert isinstance(image, tv_tensors.Image)
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 30, 40))
    assert isinstance(target["boxes"], tv_tensors.BoundingBoxes)
    assert target["boxes"].dtype == torch.float32
    assert target["boxes"].canvas_size == (30, 40)
    assert target["boxes"].tolist() == [[0, 0, 40, 30], [5.5, 6.25, 35.5, 26.25]]
    assert target["labels"].tolist() == [2, 0]
    assert target["crowd"].tolist() == [False, True]
    assert target["image_id"] == 7
    assert scenes[1][1]["boxes"].tolist() == [[2, 4, 12, 24], [1, 1, 5, 6]]
    assert scenes[-1][0][:, 0, 0].tolist() == [20, 20, 200]


def test_an_image_without_boxes_stays(layout: Layout) -> None:
    _, target = CocoScenes(*layout)[2]
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)
    assert target["image_id"] == 11


def test_nothing_the_caller_gets_is_shared(layout: Layout) -> None:
    scenes = CocoScenes(*layout)
    for value in scenes[0][1].values():
        if isinstance(value, torch.Tensor):
            value.zero_()
    assert scenes[0][1]["boxes"].tolist() == [[0, 0, 40, 30], [5.5, 6.25, 35.5, 26.25]]
    assert scenes[0][1]["labels"].tolist() == [2, 0]


def test_classes_choose_and_order_the_labels(layout: Layout) -> None:
    scenes = CocoScenes(*layout, classes=["toothbrush", "sheep"])
    assert scenes.classes == ["toothbrush", "sheep"]
    assert len(scenes) == 3
    assert scenes[0][1]["labels"].tolist() == [0]
    assert scenes[0][1]["boxes"].tolist() == [[0, 0, 40, 30]]
    assert scenes[0][1]["crowd"].tolist() == [False]
    assert len(scenes[1][1]["boxes"]) == 0


def test_only_leaves_the_original_alone(layout: Layout) -> None:
    scenes = CocoScenes(*layout)
    fewer = scenes.only(["toothbrush"])
    assert fewer.classes == ["toothbrush"]
    assert [len(fewer.target(i)["labels"]) for i in range(3)] == [1, 0, 0]
    assert [len(scenes.target(i)["labels"]) for i in range(3)] == [2, 2, 0]
    assert scenes.classes == ["dog", "sheep", "toothbrush"]


def test_frequent_classes_and_min_boxes(layout: Layout) -> None:
    scenes = CocoScenes(*layout)
    assert scenes.frequent_classes(1) == ["dog", "toothbrush"]
    assert scenes.frequent_classes(2) == ["dog"]  # the third dog is a crowd
    assert scenes.frequent_classes(1, min_size=21) == ["toothbrush"]
    assert scenes.frequent_classes(0) == scenes.classes
    assert CocoScenes(*layout, min_boxes=2).classes == ["dog"]
    with pytest.raises(ValueError, match="no class has at least 3 boxes: the most frequent of 3 classes has 2"):
        CocoScenes(*layout, min_boxes=3)


def test_taxonomy_is_there_when_all_classes_are_cocos(layout: Layout, truth: dict[str, Any]) -> None:
    scenes = CocoScenes(*layout)
    assert scenes.taxonomy is not None
    assert scenes.taxonomy.similarity(scenes.classes).shape == (3, 3)
    truth["categories"][0]["name"] = "unicorn"
    scenes = CocoScenes(*rewrite(layout, truth))
    assert scenes.taxonomy is None
    assert scenes.only(["dog", "sheep"]).taxonomy is not None


def test_transform_moves_image_and_boxes(layout: Layout) -> None:
    image, target = CocoScenes(*layout, transform=v2.RandomHorizontalFlip(1.0))[1]
    assert target["boxes"].tolist() == [[18, 4, 28, 24], [25, 1, 29, 6]]
    assert image.shape == (3, 50, 30)


def test_scene_transform_resizes_the_longer_side(layout: Layout) -> None:
    image, target = CocoScenes(*layout, transform=scene_transform(100))[1]
    assert (image.dtype, tuple(image.shape)) == (torch.float32, (3, 100, 60))
    assert 0 <= image.min() <= image.max() <= 1
    assert target["boxes"].tolist() == [[4, 8, 24, 48], [2, 2, 10, 12]]
    assert target["labels"].tolist() == [0, 0]


@forks
@pytest.mark.parametrize("workers", [0, 1])
def test_scene_batches_group_by_size_and_keep_the_truth(layout: Layout, workers: int) -> None:
    scenes = CocoScenes(*layout)
    batches = list(scene_batches(scenes, longer_side=20, batch_size=2, workers=workers))
    assert [tuple(b.images.shape) for b in batches] == [(2, 3, 15, 20), (1, 3, 20, 12)]
    assert [b.indices for b in batches] == [[0, 2], [1]]
    assert batches[0].sizes.tolist() == [[30, 40], [30, 40]]
    assert batches[1].sizes.tolist() == [[50, 30]]
    assert batches[0].images.dtype == torch.float32
    assert type(batches[0].images) is torch.Tensor
    assert [t["image_id"] for b in batches for t in b.targets] == [7, 11, 3]
    assert batches[1].targets[0]["boxes"].tolist() == [[2, 4, 12, 24], [1, 1, 5, 6]]


def test_scene_batches_without_resizing(layout: Layout) -> None:
    batches = list(scene_batches(CocoScenes(*layout), longer_side=None, batch_size=1))
    assert [tuple(b.images.shape[2:]) for b in batches] == [(30, 40), (50, 30), (30, 40)]
    assert batches[0].images[0, 2, 0, 0].item() == pytest.approx(200 / 255)


@forks
def test_works_in_a_data_loader(layout: Layout) -> None:
    loader = DataLoader(CocoScenes(*layout), batch_size=3, collate_fn=tuple, num_workers=1)
    ((first, second, third),) = list(loader)
    assert [x[1]["image_id"] for x in (first, second, third)] == [7, 3, 11]


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "1"])
def test_every_kind_of_image_comes_out_as_rgb(layout: Layout, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    path = layout[0] / f"odd.{suffix}"
    Image.new("RGB", (40, 30), (255, 255, 255)).convert(mode).save(path)
    path.rename(layout[0] / "007.png")
    image, _ = CocoScenes(*layout)[0]
    assert tuple(image.shape) == (3, 30, 40)
    assert image.float().mean() > 250


def test_exif_rotation_is_not_applied(layout: Layout) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(layout[0] / "007.png", exif=exif)
    assert tuple(CocoScenes(*layout)[0][0].shape) == (3, 30, 40)


def test_rounding_is_clipped(layout: Layout, truth: dict[str, Any]) -> None:
    truth["annotations"][0]["bbox"] = [-0.4, 4, 31.9, 46.5]
    assert CocoScenes(*rewrite(layout, truth))[1][1]["boxes"][0].tolist() == [0, 4, 30, 50]


def test_flat_boxes_are_kept(layout: Layout, truth: dict[str, Any]) -> None:
    truth["annotations"][0]["bbox"] = [3, 4, 10, 0]
    assert CocoScenes(*rewrite(layout, truth))[1][1]["boxes"][0].tolist() == [3, 4, 13, 4]


@pytest.mark.parametrize(
    ("bbox", "message"),
    [
        ([2, 4, 31, 20], r"annotation 1 of 003\.png: box \[2.0, 4.0, 33.0, 24.0\].*outside.*30 x 50 pixels"),
        ([-3, 4, 10, 20], r"annotation 1 of 003\.png: box \[-3.0, 4.0, 7.0, 24.0\].*outside.*30 x 50 pixels"),
        ([2, 4, 10, 60], "outside"),
        ([9, 4, -4, 20], r"annotation 1 .*ends before it begins"),
        ([2, 4, float("nan"), 20], r"annotation 1 .*no number"),
        ([2, 4, 10], r"annotation 1 has the bbox \[2, 4, 10\], expected 4 numbers"),
    ],
)
def test_impossible_boxes(layout: Layout, truth: dict[str, Any], bbox: list[float], message: str) -> None:
    truth["annotations"][0]["bbox"] = bbox
    with pytest.raises(ValueError, match=rf"instances\.json: {message}" if message[0] == "a" else message):
        CocoScenes(*rewrite(layout, truth))


def test_wrong_category_and_wrong_image(layout: Layout, truth: dict[str, Any]) -> None:
    truth["annotations"][1]["category_id"] = 19
    with pytest.raises(ValueError, match=r"annotation 2 has category id 19, but the file's 3 categories"):
        CocoScenes(*rewrite(layout, truth))
    truth["annotations"][1] |= {"category_id": 18, "image_id": 99}
    with pytest.raises(ValueError, match=r'annotation 2 has image id 99, which "images" does not list'):
        CocoScenes(*rewrite(layout, truth))


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_parts_that_are_missing(layout: Layout, truth: dict[str, Any], part: str) -> None:
    del truth[part]
    with pytest.raises(ValueError, match=rf'instances\.json has no list "{part}"'):
        CocoScenes(*rewrite(layout, truth))


def test_json_without_images(layout: Layout, truth: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r'has no list "images"'):
        CocoScenes(*rewrite(layout, truth | {"images": []}))
    with pytest.raises(ValueError, match=r'has no list "images"'):
        CocoScenes(*rewrite(layout, [1, 2]))
    layout[1].write_text('{"images": [')
    with pytest.raises(ValueError, match=r"instances\.json cannot be read as JSON: "):
        CocoScenes(*layout)


def test_entry_that_lacks_a_field(layout: Layout, truth: dict[str, Any]) -> None:
    del truth["annotations"][2]["bbox"]
    with pytest.raises(ValueError, match=r"\"annotations\" lacks \['bbox'\]: \{'id': 3"):
        CocoScenes(*rewrite(layout, truth))


def test_no_annotations_at_all_is_fine(layout: Layout, truth: dict[str, Any]) -> None:
    scenes = CocoScenes(*rewrite(layout, truth | {"annotations": []}))
    assert [len(scenes.target(i)["boxes"]) for i in range(3)] == [0, 0, 0]


def test_missing_files(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder of images .*nowhere: expected"):
        CocoScenes(tmp_path / "nowhere", layout[1])
    with pytest.raises(FileNotFoundError, match=r"no annotation file .*nowhere\.json: expected"):
        CocoScenes(layout[0], tmp_path / "nowhere.json")
    (layout[0] / "003.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of the 3 images .*the first is '003\.png'"):
        CocoScenes(*layout)


def test_file_names_may_have_folders(layout: Layout, truth: dict[str, Any]) -> None:
    (layout[0] / "sub").mkdir()
    (layout[0] / "003.png").rename(layout[0] / "sub" / "003.png")
    truth["images"][1]["file_name"] = "sub/003.png"
    assert CocoScenes(*rewrite(layout, truth))[1][0].shape == (3, 50, 30)
    truth["images"][1]["file_name"] = "other/003.png"
    with pytest.raises(FileNotFoundError, match="the first is 'other/003"):
        CocoScenes(*rewrite(layout, truth))


def test_image_that_does_not_decode_is_named(layout: Layout) -> None:
    (layout[0] / "003.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"003\.png does not decode as an image"):
        CocoScenes(*layout)[1]


def test_truncated_jpeg_is_named(layout: Layout) -> None:
    noise = Image.effect_noise((30, 50), 90)
    noise.convert("RGB").save(layout[0] / "whole.jpg")
    data = (layout[0] / "whole.jpg").read_bytes()
    (layout[0] / "003.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"003\.png does not decode as an image"):
        CocoScenes(*layout)[1]


def test_image_of_another_size_is_named(layout: Layout) -> None:
    Image.new("RGB", (50, 30)).save(layout[0] / "003.png")
    with pytest.raises(ValueError, match=r"003\.png has 50 x 30 pixels, but its annotations say 30 x 50"):
        CocoScenes(*layout)[1]


def test_unknown_and_repeated_and_no_classes(layout: Layout) -> None:
    with pytest.raises(ValueError, match=r"no class 'tothbrush' .*\['toothbrush'\]"):
        CocoScenes(*layout, classes=["dog", "tothbrush"])
    with pytest.raises(ValueError, match="named once"):
        CocoScenes(*layout, classes=["dog", "dog"])
    with pytest.raises(ValueError, match="no classes left"):
        CocoScenes(*layout, classes=[])


def test_index_out_of_range(layout: Layout) -> None:
    with pytest.raises(IndexError):
        CocoScenes(*layout)[3]


def test_real_photos(shared_data: Path) -> None:
    root = shared_data / "coco256"
    train, val = (
        CocoScenes(root / f"{split}2017", root / "annotations" / f"instances_{split}2017.json")
        for split in ("train", "val")
    )
    assert (len(train), len(val)) == (128, 128)
    labels = [torch.cat([s.target(i)["labels"] for i in range(len(s))]).tolist() for s in (train, val)]
    assert [len(x) for x in labels] == [929, 898]
    assert len(set(labels[0]) | set(labels[1])) == 76
    assert sum(len(s.target(i)["labels"]) == 0 for s in (train, val) for i in range(len(s))) == 2
    assert len(train.classes) == 80
    assert train.taxonomy is not None
    counts = Counter(labels[0])
    frequent = train.frequent_classes(8)
    assert len(frequent) == 29
    assert all(counts[train.classes.index(name)] >= 8 for name in frequent)
    cut = CocoScenes(val.files[0].parent, root / "annotations" / "instances_val2017.json", classes=frequent)
    assert cut.classes == frequent
    for scenes in (train, val):  # every photo decodes and fits its annotations
        for image, target in scenes:
            assert image.shape[1:] == target["boxes"].canvas_size


def test_a_field_that_stands_twice_in_an_object_is_refused(layout: Layout, truth: dict[str, Any]) -> None:
    root, annotations = rewrite(layout, truth)
    text = annotations.read_text()
    annotations.write_text(text.replace('"bbox":', '"bbox": [0, 0, 9, 9], "bbox":', 1))
    with pytest.raises(ValueError, match=r"instances\.json .*the field 'bbox' stands twice in an object"):
        CocoScenes(root, annotations)


def test_ids_and_names_that_stand_twice_are_refused(layout: Layout, truth: dict[str, Any]) -> None:
    cases: list[tuple[str, int, dict[str, Any], str]] = [
        ("images", 1, {"id": 7}, r'the id 7 stands twice in "images"'),
        ("images", 1, {"file_name": "./007.png"}, r"lists the image '\./007\.png' twice, also as '007\.png'"),
        ("categories", 1, {"id": 90}, r'the id 90 stands twice in "categories"'),
        ("categories", 1, {"name": "toothbrush"}, r"the categories .* and 90 share the name 'toothbrush'"),
        ("annotations", 3, {"id": 1}, r"annotation 1 of image 3 stands there twice"),
    ]
    for part, k, change, message in cases:
        changed = json.loads(json.dumps(truth))
        changed[part][k] |= change
        with pytest.raises(ValueError, match=rf"instances\.json.*{message}"):
            CocoScenes(*rewrite(layout, changed))


def test_annotations_of_merged_files_may_share_an_id(layout: Layout, truth: dict[str, Any]) -> None:
    truth["annotations"][1]["id"] = 1
    assert [len(CocoScenes(*rewrite(layout, truth)).target(k)["boxes"]) for k in range(3)] == [2, 2, 0]


@pytest.mark.parametrize("size", [(-1, -1), (0, 40), (None, None), ("-1", 3.0)])
def test_a_size_that_is_not_known_is_read_from_the_image(layout: Layout, truth: dict[str, Any], size: Any) -> None:
    truth["images"][0] |= dict(zip(("height", "width"), size, strict=True))
    scenes = CocoScenes(*rewrite(layout, truth))
    assert scenes.sizes[0].tolist() == [30, 40]
    assert scenes[0][1]["boxes"].tolist() == [[0, 0, 40, 30], [5.5, 6.25, 35.5, 26.25]]


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("images", {"width": "wide"}, r"image 7 \('007\.png'\) has the height and width \[30, 'wide'\]"),
        ("images", {"width": 10**30}, "expected whole numbers"),
        ("images", {"width": float("nan")}, "expected whole numbers"),
        ("images", {"file_name": 7}, "image 7 has the file_name 7, not text"),
        ("images", {"id": 2**70}, "whole numbers of 64 bits"),
        ("images", {"id": "7"}, "has the id 3, expected text, as the first one is"),
        ("categories", {"id": "90"}, "has the id 18, expected text, as the first one is"),
        ("categories", {"name": None}, "category 90 has the name None, expected text"),
        ("annotations", {"bbox": None}, "annotation 1 has the bbox None, expected 4 numbers"),
        ("annotations", {"bbox": {"x": 1, "y": 1, "w": 1, "h": 1}}, "annotation 1 has the bbox .*expected 4 numbers"),
        ("annotations", {"bbox": [10**400, 4, 10, 20]}, "annotation 1 has the bbox .*expected 4 numbers"),
        ("annotations", {"image_id": "3"}, "annotation 1 has image id '3', which"),
        ("annotations", {"category_id": [18]}, r"annotation 1 has category id \[18\], but"),
        ("annotations", {"iscrowd": "no"}, "annotation 1 has iscrowd 'no', expected 0 or 1"),
    ],
)
def test_values_of_another_kind_are_named(
    layout: Layout, truth: dict[str, Any], part: str, change: dict[str, Any], message: str
) -> None:
    truth[part][0] |= change
    with pytest.raises(ValueError, match=rf"instances\.json: .*{message}"):
        CocoScenes(*rewrite(layout, truth))


def test_flags_as_text_are_flags(layout: Layout, truth: dict[str, Any]) -> None:
    for a in truth["annotations"]:
        a["iscrowd"] = str(a["iscrowd"])
    assert CocoScenes(*rewrite(layout, truth))[0][1]["crowd"].tolist() == [False, True]


def test_images_with_text_as_ids_are_counted(layout: Layout, truth: dict[str, Any]) -> None:
    for row in truth["images"]:
        row["id"] = f"img-{row['id']}"
    for row in truth["annotations"]:
        row["image_id"] = f"img-{row['image_id']}"
    scenes = CocoScenes(*rewrite(layout, truth))
    assert scenes.image_ids == [0, 1, 2]
    assert scenes[1][1]["boxes"].tolist() == [[2, 4, 12, 24], [1, 1, 5, 6]]


SQUARE = [2.0, 3, 12, 3, 12, 9, 2, 9]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "is missing or empty"),
        ([], "is missing or empty"),
        ([[]], "no polygon of three points"),
        ([[2, 3, 12, 3]], "no polygon of three points"),
        (SQUARE, "has a polygon that is no list"),
        ([[*SQUARE, 4]], "has a polygon that is no list"),
        ([[*SQUARE, None, 4]], "has a polygon that is no list"),
        ([[*SQUARE, 1e30, 4]], "far outside its image of 30 x 50"),
        ({"size": [30, 50], "counts": [1500]}, r"has the size \[30, 50\], its image \[50, 30\]"),
        ({"size": [50, 30], "counts": [5]}, "do not fill its image"),
        ({"size": [50, 30], "counts": []}, "do not fill its image"),
        ({"size": [50, 30], "counts": [-3, 1503]}, "do not fill its image"),
        ({"size": [50, 30], "counts": "5"}, "do not fill its image"),
        ({"size": [50, 30], "counts": "\x7f"}, "do not decode"),
        ({"size": [50, 30]}, "does not parse"),
        ("here", "does not parse"),
    ],
)
def test_broken_segmentations_are_refused_when_they_are_read(
    layout: Layout, truth: dict[str, Any], segmentation: Any, message: str
) -> None:
    for a in truth["annotations"]:
        a["segmentation"] = [SQUARE]
    truth["annotations"][0]["segmentation"] = segmentation
    CocoScenes(*rewrite(layout, truth))
    with pytest.raises(ValueError, match=rf"instances\.json: the segmentation of annotation 1 .*{message}"):
        CocoScenes(*rewrite(layout, truth), masks=True)


def test_run_lengths_as_text_and_as_numbers_are_the_same_mask(layout: Layout, truth: dict[str, Any]) -> None:
    mask = np.zeros((50, 30), np.uint8, order="F")
    mask[5:20, 3:9] = mask[30:33, 3:28] = 1
    text = run_lengths.encode(mask)
    edges = np.flatnonzero(np.diff(np.r_[0, mask.flatten("F"), 2]))
    counts = np.diff(np.r_[0, edges]).tolist()
    for given in ({"size": [50, 30], "counts": text["counts"].decode()}, {"size": [50, 30], "counts": counts}):
        for a in truth["annotations"]:
            a["segmentation"] = [SQUARE]
        truth["annotations"][0]["segmentation"] = given
        read = CocoScenes(*rewrite(layout, truth), masks=True)[1][1]["masks"][0]
        assert np.array_equal(read, mask.astype(bool))
