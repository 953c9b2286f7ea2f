"""VOC's layout: what is read, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from wsolnb.data.readers.voc import VocScenes

Object = tuple[str, tuple[object, object, object, object]]


def write(
    folder: Path,
    stem: str,
    objects: list[Object],
    *,
    size: tuple[int, int] = (40, 30),
    stated: tuple[object, object] | None = None,
    images: Path | None = None,
    suffix: str = ".jpg",
    filename: str | None = None,
    difficult: int = 0,
) -> Path:
    """One image and its XML; `size` is width, height."""
    images = images or folder
    for path in (folder, images):
        path.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 10, 30)).save(images / f"{stem}{suffix}")
    width, height = stated or size
    nodes = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}"
        f"</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box in objects
    )
    path = folder / f"{stem}.xml"
    path.write_text(
        f"<annotation><filename>{filename or stem + suffix}</filename><size><width>{width}</width>"
        f"<height>{height}</height><depth>3</depth></size>{nodes}</annotation>"
    )
    return path


def test_one_based_inclusive_corners_become_exclusive(tmp_path: Path) -> None:
    write(tmp_path, "b", [("ten", (1, 1, 40, 30)), ("ace", (11, 6, 20, 9))])
    write(tmp_path, "a", [], size=(30, 50))
    scenes = VocScenes(tmp_path)
    assert scenes.classes == ["ace", "ten"]
    assert [path.name for path in scenes.files] == ["a.jpg", "b.jpg"]
    image, target = scenes[1]
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 30, 40))
    assert target["boxes"].tolist() == [[0, 0, 40, 30], [10, 5, 20, 9]]
    assert target["boxes"].canvas_size == (30, 40)
    assert target["labels"].tolist() == [1, 0]
    assert target["crowd"].tolist() == [False, False]
    assert target["image_id"] == 1
    assert scenes[0][1]["boxes"].shape == (0, 4)
    assert scenes.taxonomy is None


def test_difficult_objects_are_crowd(tmp_path: Path) -> None:
    write(tmp_path, "a", [("ten", (1, 1, 4, 3))], difficult=1)
    scenes = VocScenes(tmp_path)
    assert scenes[0][1]["crowd"].tolist() == [True]
    assert VocScenes(tmp_path).frequent_classes(0) == ["ten"]


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".png", ".jpeg"])
def test_any_suffix(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, "a", [("ten", (1, 1, 4, 3))], suffix=suffix, filename="elsewhere.tif")
    assert VocScenes(tmp_path)[0][0].shape == (3, 30, 40)


@pytest.mark.parametrize("start", ["root", "annotations", "both"])
def test_official_folders_and_image_sets(tmp_path: Path, start: str) -> None:
    root = tmp_path / "VOC2007"
    for stem in ("000005", "000001", "000003"):
        write(root / "Annotations", stem, [("cat", (1, 1, 4, 3))], images=root / "JPEGImages")
    sets = root / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_text("000005  1\n000001 -1\n")
    folders: dict[str, tuple[Path, ...]] = {
        "root": (root,),
        "annotations": (root / "Annotations",),
        "both": (root / "Annotations", root / "JPEGImages"),
    }
    scenes = VocScenes(*folders[start], image_set=sets / "train.txt")
    assert [path.name for path in scenes.files] == ["000005.jpg", "000001.jpg"]
    assert scenes[1][1]["labels"].tolist() == [0]
    assert scenes.taxonomy is not None
    assert len(VocScenes(*folders[start])) == 3


def test_vocs_classes_have_a_tree(tmp_path: Path) -> None:
    write(tmp_path, "a", [("tvmonitor", (1, 1, 4, 3)), ("sofa", (2, 2, 5, 5))])
    scenes = VocScenes(tmp_path)
    assert scenes.taxonomy is not None
    assert scenes.taxonomy.similarity(scenes.classes).shape == (2, 2)


def test_given_classes_fix_the_labels_and_may_be_absent(tmp_path: Path) -> None:
    write(tmp_path, "a", [("ten", (1, 1, 4, 3))])
    scenes = VocScenes(tmp_path, classes=["nine", "ten"])
    assert scenes.classes == ["nine", "ten"]
    assert scenes[0][1]["labels"].tolist() == [1]
    assert scenes.only(["nine"])[0][1]["labels"].tolist() == []


def test_unknown_name_is_an_error_with_its_file(tmp_path: Path) -> None:
    write(tmp_path, "a", [("ten", (1, 1, 4, 3)), ("qeen", (1, 1, 4, 3))])
    with pytest.raises(ValueError, match=r"a\.xml has an object of the class 'qeen', .*\['ten', 'queen'\]"):
        VocScenes(tmp_path, classes=["ten", "queen"])


def test_size_is_read_from_the_image_where_the_xml_has_none(tmp_path: Path) -> None:
    write(tmp_path, "a", [("ten", (1, 1, 40, 30))], stated=(0, 0))
    assert VocScenes(tmp_path).sizes.tolist() == [[30, 40]]
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a\.jpg does not decode"):
        VocScenes(tmp_path)


def test_sides_the_wrong_way_round_are_named_when_decoded(tmp_path: Path) -> None:
    write(tmp_path, "a", [("ten", (1, 1, 4, 3))], stated=(30, 40))
    with pytest.raises(ValueError, match=r"a\.jpg has 40 x 30 pixels, but its annotations say 30 x 40.*EXIF"):
        VocScenes(tmp_path)[0]


def test_counting_from_zero_is_within_rounding(tmp_path: Path) -> None:
    write(tmp_path, "a", [("ten", (0, 0, 40.5, 31))])
    assert VocScenes(tmp_path)[0][1]["boxes"].tolist() == [[0, 0, 40, 30]]


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((1, 1, 43, 9), r"object 2 \(ace\): box \[0.0, 0.0, 43.0, 9.0\].*lies outside.*40 x 30 pixels"),
        ((9, 1, 7, 9), r"object 2 \(ace\): .*ends before it begins"),
        ((9, "x", 17, 9), r"object 2 \(ace\) has the corners \['9', 'x', '17', '9'\], expected 4 numbers"),
        ((9, "", 17, 9), r"object 2 \(ace\) has the corners"),
        (("nan", 1, 17, 9), r"object 2 \(ace\) .*expected 4 numbers"),
    ],
)
def test_impossible_boxes(tmp_path: Path, box: tuple[object, object, object, object], message: str) -> None:
    write(tmp_path, "a", [("ten", (1, 1, 40, 30))])
    write(tmp_path, "b", [("ten", (1, 1, 40, 30)), ("ace", box)])
    with pytest.raises(ValueError, match=rf"b\.xml: {message}"):
        VocScenes(tmp_path)


def test_broken_xml(tmp_path: Path) -> None:
    path = write(tmp_path, "a", [("ten", (1, 1, 4, 3))])
    text = path.read_text()
    path.write_text(text.replace("</annotation>", ""))
    with pytest.raises(ValueError, match=r"a\.xml is not XML: "):
        VocScenes(tmp_path)
    path.write_text(text.replace("<name>ten</name>", ""))
    with pytest.raises(ValueError, match=r"a\.xml: object 1 has no name"):
        VocScenes(tmp_path)
    path.write_text(text.replace("<width>40", "<width>wide"))
    with pytest.raises(ValueError, match=r"a\.xml: the image's height and width are \['30', 'wide'\]"):
        VocScenes(tmp_path)


def test_missing_folders_and_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere: expected VOC's XML files there"):
        VocScenes(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no XML file in"):
        VocScenes(tmp_path)
    write(tmp_path, "a", [("ten", (1, 1, 4, 3))])
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere: expected the images there"):
        VocScenes(tmp_path, tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no image set .*val\.txt"):
        VocScenes(tmp_path, image_set=tmp_path / "val.txt")
    (tmp_path / "val.txt").write_text("a\nzz\n")
    with pytest.raises(FileNotFoundError, match=r"lacks 1 XML files of .*val\.txt, the first is zz\.xml"):
        VocScenes(tmp_path, image_set=tmp_path / "val.txt")
    (tmp_path / "val.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"val\.txt is empty"):
        VocScenes(tmp_path, image_set=tmp_path / "val.txt")
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.xml: no image a\.\* in .*nor 'a\.jpg'"):
        VocScenes(tmp_path)


def test_several_images_of_one_stem(tmp_path: Path) -> None:
    write(tmp_path, "a", [("ten", (1, 1, 4, 3))])
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    assert VocScenes(tmp_path).files[0].name == "a.jpg"
    path = tmp_path / "a.xml"
    path.write_text(path.read_text().replace("a.jpg", "b.jpg"))
    with pytest.raises(ValueError, match=r"which is its image, \['a\.jpg', 'a\.png'\]\? It states 'b\.jpg'"):
        VocScenes(tmp_path)


def test_stated_name_steps_in(tmp_path: Path) -> None:
    path = write(tmp_path, "a", [("ten", (1, 1, 4, 3))])
    path.rename(tmp_path / "b.xml")
    assert VocScenes(tmp_path).files[0].name == "a.jpg"


def test_no_object_at_all(tmp_path: Path) -> None:
    write(tmp_path, "a", [])
    with pytest.raises(ValueError, match="no classes: 1 XML files"):
        VocScenes(tmp_path)
    assert len(VocScenes(tmp_path, classes=["ten"])[0][1]["boxes"]) == 0
    with pytest.raises(ValueError, match="named once"):
        VocScenes(tmp_path, classes=["ten", "ten"])


def test_real_cards(shared_data: Path) -> None:
    train = VocScenes(shared_data / "cards" / "train")
    test = VocScenes(shared_data / "cards" / "test", classes=train.classes)
    assert (len(train), len(test)) == (296, 67)
    assert train.classes == ["ace", "jack", "king", "nine", "queen", "ten"]
    targets = [s.target(i) for s in (train, test) for i in range(len(s))]
    assert sum(len(t["labels"]) for t in targets) == 670
    numbers = Counter(len(t["labels"].unique()) for t in targets)
    assert sum(n for classes, n in numbers.items() if classes >= 2) == 136
    assert sum(len(t["labels"]) == 1 for t in targets) == 210
    boxes = torch.cat([t["boxes"] / torch.tensor(t["boxes"].canvas_size)[[1, 0, 1, 0]] for t in targets])
    assert boxes.min() == 0
    assert boxes.max() == 1  # the far corner reaches the image's end: VOC's last pixel is its width
    for image, target in test:
        assert image.shape[1:] == target["boxes"].canvas_size
