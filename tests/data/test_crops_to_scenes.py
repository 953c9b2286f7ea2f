"""The same four parts from every data set, and clear words where one is missing."""

from __future__ import annotations

from pathlib import Path

import layout_trees as trees
import pytest
import torch

from wsolnb.data.critters import World
from wsolnb.data.tasks import crops_to_scenes


def test_drawn_parts_do_not_repeat_images() -> None:
    task = crops_to_scenes.from_critters(
        World(size=48), train_images=24, tune_images=3, test_images=5, scene_size=(56, 72)
    )
    assert task.sizes == {"classes": 12, "train": 24, "tune": 3, "tune_single": 5, "test": 5, "single": 5}
    image, label = task.train[5]
    assert image.shape == (3, 48, 48)
    assert int(label) == 5
    assert task.test[0][0].shape == (3, 56, 72)
    assert not torch.equal(task.test[0][0], task.tune[0][0])
    for held in (task.single, task.tune_single):
        assert not torch.equal(held[0][0], task.train[0][0])
    assert not torch.equal(task.single[0][0], task.tune_single[0][0])


def test_another_seed_draws_other_images() -> None:
    counts = {"train_images": 2, "tune_images": 1, "test_images": 1, "scene_size": (56, 72)}
    a, b = (crops_to_scenes.from_critters(World(size=48), **counts, seed=seed).train[0][0] for seed in (0, 1))
    assert not torch.equal(a, b)


def test_coco_photos(shared_data: Path) -> None:
    task = crops_to_scenes.from_photos(
        "coco", shared_data / "coco256", min_boxes=8, image_size=32, train_images=20, tune_images=7
    )
    assert task.sizes == {"classes": 29, "train": 20, "tune": 7, "tune_single": 2, "test": 128, "single": 26}
    assert all(len(target["labels"]) == 1 for _, target in task.tune_single)  # type: ignore[attr-defined]
    image, target = task.train[0]
    assert image.shape == (3, 32, 32)
    assert target["labels"].shape == (1,)
    assert all(len(task.single[i][1]["labels"]) == 1 for i in range(3))
    assert task.taxonomy.similarity(task.classes).shape == (29, 29)


def test_voc_photos_with_a_tree_of_ones_own(shared_data: Path) -> None:
    tree = {k: "number" for k in ("nine", "ten")} | {k: "face" for k in ("jack", "queen", "king", "ace")}
    tree |= {"number": "card", "face": "card"}
    task = crops_to_scenes.from_photos("voc", shared_data / "cards", image_size=32, tree=tree, test_images=9)
    assert task.sizes["classes"] == 6
    assert task.sizes["test"] == 9
    nine, ten, king = (task.classes.index(k) for k in ("nine", "ten", "king"))
    likeness = task.taxonomy.similarity(task.classes)
    assert likeness[nine, ten] == 0.5
    assert likeness[nine, king] == 0


def test_a_class_without_a_node_is_named(shared_data: Path) -> None:
    task = crops_to_scenes.from_photos(
        "voc", shared_data / "cards", image_size=32, tree={"ace": "card", "king": "card"}
    )
    with pytest.raises(ValueError, match="jack"):
        task.taxonomy.similarity(task.classes)


def test_what_is_missing_is_named(tmp_path: Path, shared_data: Path) -> None:
    with pytest.raises(ValueError, match="unknown data set 'birds'; known: critters, coco, voc"):
        crops_to_scenes.from_photos("birds", tmp_path)
    with pytest.raises(ValueError, match="'coco' needs a folder: give data_root"):
        crops_to_scenes.from_photos("coco", "")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        crops_to_scenes.from_photos("coco", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no class has at least 9999 boxes"):
        crops_to_scenes.from_photos("coco", shared_data / "coco256", min_boxes=9999)


def test_imagenet_in_its_official_layout(tmp_path: Path) -> None:
    trees.imagenet(tmp_path, per_class=4)
    task = crops_to_scenes.from_photos("imagenet", tmp_path, image_size=24, train_images=10)
    assert task.sizes == {"classes": 3, "train": 10, "tune": 3, "tune_single": 3, "test": 6, "single": 0}
    image, label = task.train[0]
    assert image.shape == (3, 24, 24)
    assert label == int(task.train.labels[0])  # type: ignore[attr-defined]
    image, target = task.test[0]
    assert image.shape[1:] == target["boxes"].canvas_size == (30, 40)
    assert target["labels"].tolist() == [2, 2]  # a label for every box
    assert target["crowd"].tolist() == [False, False]
    assert task.tune.target(0)["boxes"].tolist() == [[4, 6, 34, 23]]  # type: ignore[attr-defined]
    assert len(crops_to_scenes.from_photos("cub", trees.cub(tmp_path / "cub"), image_size=24).single) == 4  # type: ignore[arg-type]


def test_imagenet_without_boxes(tmp_path: Path) -> None:
    trees.imagenet(tmp_path, boxes=False)
    with pytest.raises(ValueError, match="no image of the training split has a box: are the annotations there"):
        crops_to_scenes.from_photos("imagenet", tmp_path, image_size=24)


def test_voc_and_coco_as_their_archives_leave_them(tmp_path: Path) -> None:
    trees.voc(tmp_path / "voc")
    trees.coco(tmp_path / "coco", "2014")
    with pytest.raises(ValueError, match="no crops left: none of the 4 objects in 3 images"):  # found, but too small
        crops_to_scenes.from_photos("voc", tmp_path / "voc", splits=("train", "val"), image_size=24)
    with pytest.raises(ValueError, match="no crops left: none of the 5 objects in 4 images"):
        crops_to_scenes.from_photos("coco", tmp_path / "coco", splits=("train2014", "val2014"), image_size=24)
    with pytest.raises(FileNotFoundError, match=r"is not COCO 2017: .*this looks like VOC2012"):
        crops_to_scenes.from_photos("coco", tmp_path / "voc")
