"""VOC's official folders: lists per class agree with what the boxes say, on an annotation with everything VOC has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from wsolnb.data.multi_label import all_labels
from wsolnb.data.several import photographed_scenes
from wsolnb.data.voc import VocScenes
from wsolnb.data.voc_lists import read_class_lists

# as in VOC2012: parts inside a person, corners with fractions and in another order, actions, no <difficult> at all
PERSON = """<object><name>person</name><actions><jumping>0</jumping><other>1</other></actions>
<bndbox><xmax>30.4000015</xmax><xmin>5.2</xmin><ymax>20</ymax><ymin>3</ymin></bndbox><pose>Unspecified</pose>
<part><name>head</name><bndbox><xmin>7</xmin><ymin>4</ymin><xmax>12</xmax><ymax>9</ymax></bndbox></part>
<part><name>hand</name><bndbox><xmin>9</xmin><ymin>11</ymin><xmax>12</xmax><ymax>15</ymax></bndbox></part></object>"""
HARD_DOG = """<object><name>dog</name><pose>Left</pose><truncated>1</truncated><occluded>1</occluded>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>30</ymax></bndbox><difficult>1</difficult></object>"""
DOG = HARD_DOG.replace("<difficult>1", "<difficult>0")
IMAGES = {"2008_000001": PERSON + HARD_DOG, "2008_000004": DOG, "2011_003025": PERSON}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """VOCdevkit/VOC2012 with three photos: two to train, one to test."""
    voc = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (voc / name).mkdir(parents=True)
    for stem, objects in IMAGES.items():
        Image.new("RGB", (40, 30), (90, 20, 160)).save(voc / "JPEGImages" / f"{stem}.jpg")
        (voc / "Annotations" / f"{stem}.xml").write_text(
            f"<annotation>\n<folder>VOC2012</folder><filename>{stem}.jpg</filename><segmented>0</segmented><size>"
            f"<depth>3</depth><height>30</height><width>40</width></size>{objects}</annotation>"
        )
    main = voc / "ImageSets" / "Main"
    (main / "train.txt").write_text("2008_000001\n2008_000004\n")
    (main / "val.txt").write_text("2011_003025\n")
    (main / "person_train.txt").write_text("2008_000001  1\n2008_000004 -1\n")
    (main / "dog_train.txt").write_text("2008_000004  1\n2008_000001  0\n")
    return tmp_path


def test_lists_and_boxes_say_the_same(root: Path) -> None:
    stems, classes, labels = read_class_lists(root, "train")
    assert (stems, classes) == (["2008_000001", "2008_000004"], ["dog", "person"])
    assert labels.nan_to_num(-1).tolist() == [[-1, 1], [1, 0]]
    voc = root / "VOCdevkit" / "VOC2012"
    scenes = VocScenes(voc, image_set=voc / "ImageSets" / "Main" / "train.txt")
    assert scenes.classes == classes
    assert [file.stem for file in scenes.files] == stems
    assert torch.equal(all_labels(scenes, 2).nan_to_num(-1), labels.nan_to_num(-1))
    assert torch.allclose(scenes.target(0)["boxes"][0], torch.tensor([4.2, 2.0, 30.4, 20.0]))
    assert scenes.target(0)["crowd"].tolist() == [False, True]
    assert len(scenes.target(0)["labels"]) == 2  # parts of a person are no objects


def test_official_splits_make_a_task(root: Path) -> None:
    task = photographed_scenes("voc", root, splits=("train", "val", "val"), min_images=0)
    assert task.classes == ["dog", "person"]
    assert task.sizes == {"classes": 2, "train": 2, "held": 1, "test": 1}
    assert task.test[0][1]["labels"].tolist() == [1]


def test_refused(root: Path) -> None:
    main = root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Main"
    with pytest.raises(FileNotFoundError, match=r"no split 'test' in .*: there are train, val"):
        read_class_lists(root, "test")
    with pytest.raises(FileNotFoundError, match="no list of a class, such as cat_val"):
        read_class_lists(root, "val")
    (main / "dog_train.txt").write_text("2008_000004 1\n2008_000001 2\n")
    with pytest.raises(ValueError, match=r"dog_train.txt: line 2 is '2008_000001 2'"):
        read_class_lists(root, "train")
    (main / "dog_train.txt").write_text("2008_000004 1\n")
    with pytest.raises(ValueError, match="2008_000001 is in one of them only"):
        read_class_lists(root, "train")
