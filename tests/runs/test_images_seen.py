"""How many images a run sees: drawn, at hand or of an official data set; held-out ones are not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import layout_trees as trees
import pytest

from wsolnb.papers.bency2016.sampler import copies
from wsolnb.runs.images_seen import Images, ImagesSeen
from wsolnb.runs.trainings import budget

SINGLE: dict[str, Any] = {"dataset": "protocol", "data_root": "", "metadata": "", "splits": ["train", "val", "test"]}
SINGLE |= {"train_images": 0, "held_images": 0, "test_images": 0, "image_size": 32, "seed": 0}
SCENES = SINGLE | {"dataset": "voc", "splits": ["train", "", "val"], "held_share": 0.2, "min_images": 1, "copies": 3}
CROPS = {"dataset": "coco", "data_root": "", "train_split": "train2017", "train_images": 0, "min_boxes": 1}


def single(recipe: str, **given: object) -> Images:
    return ImagesSeen(SINGLE | given, recipe).single()


def scenes(recipe: str, **given: object) -> Images:
    return ImagesSeen(SCENES | given, recipe).scenes(lambda present: copies(present, 3))


def test_official_photos_without_those_held_out() -> None:
    assert single("cub-vgg16")[:2] == (5994, 200)
    assert single("cub-vgg16", train_images=600).number == 600
    assert single("cub-vgg16", train_images=6000).number == 5994
    dogs = single("dogs-resnet50", splits=["train", "", "test"], held_images=500)
    assert dogs == Images(11_500, 120, "photos (official train split, 500 of them held out)")
    assert single("dogs-resnet50", splits=["train", "", "test"]).number == 9600  # a fifth


def test_photos_of_ones_own_are_unknown_until_they_are_at_hand(tmp_path: Path) -> None:
    own = {"dataset": "voc", "splits": ["train", "", "test"]}
    assert single("cards-tiny", **own)[:2] == (None, None)
    assert single("cards-tiny", **own, train_images=50).number == 50
    counted = single("cards-tiny", **own, data_root=str(trees.cards(tmp_path, per_class=10)))
    assert counted == Images(48 - 48 // 5, 6, "photos, counted at data_root")
    (tmp_path / "meta" / "train").mkdir(parents=True)
    (tmp_path / "meta" / "train" / "image_ids.txt").write_text("a.jpg\nb.jpg\n")
    assert single("cub-tiny", metadata=str(tmp_path / "meta")).number == 2
    with pytest.raises(FileNotFoundError, match="no folder gone, given as metadata"):
        single("cub-tiny", metadata="gone")


def test_copies_are_counted_where_labels_are_at_hand(tmp_path: Path) -> None:
    official = scenes("voc2012-tiny")
    assert (official.number, official.classes, official.at_least) == (5717 - round(0.2 * 5717), 20, True)
    assert scenes("voc2012-tiny", copies=1).at_least is False
    counted = scenes("voc2012-tiny", data_root=str(trees.voc(tmp_path)))
    assert counted.number is not None
    assert counted.number >= 1
    assert not counted.at_least
    years = {"dataset": "coco", "splits": ["train2014", "", "val2014"]}
    assert scenes("coco-vgg16", **years).number == 82_783 - round(0.2 * 82_783)


def test_every_object_is_an_image(tmp_path: Path) -> None:
    paper = budget("barz2022", recipe="coco-resnet50").trainings[0]
    assert (paper.images.number, paper.steps) == (684_070, 372 * 7126)
    known = ({"train2017": 684_070}, "the paper")
    assert ImagesSeen(CROPS).crops(*known) == Images(684_070, 80, "objects (the paper)")
    assert ImagesSeen(CROPS | {"train_images": 400}).crops(*known).number == 400
    assert ImagesSeen(CROPS | {"train_split": "train2014"}).crops(*known).number is None
    root = trees.coco(tmp_path, "2017", images=24, wide=34)
    counted = ImagesSeen(CROPS | {"data_root": str(root)}).crops(*known)
    objects = json.loads((root / "annotations" / "instances_train2017.json").read_text())["annotations"]
    large = [each for each in objects if max(each["bbox"][2:]) >= 32 and not each["iscrowd"]]
    assert counted.number == len(large) < len(objects)
