"""Several classes per image: their labels, copies of rare ones, splits, and what is refused."""

from __future__ import annotations

from pathlib import Path

import layout_trees as trees
import pytest
import torch
from torch.utils.data import Subset

from wsolnb.data.critters import World
from wsolnb.data.readers.voc import VocScenes
from wsolnb.data.tasks import multi_label
from wsolnb.data.tasks.multi_label import all_labels, multi_hot, unseen
from wsolnb.papers.bency2016.sampler import MultiLabelImages, copies

WORLD = World(families=2, species=2, size=32, objects=(1, 2))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path / "cache"))


def voc(root: Path, images: dict[str, list[tuple[str, int]]], folder: str = "train") -> None:
    """Photos of 40 x 30 pixels, objects by name and difficulty, an XML file beside each."""
    from PIL import Image

    (root / folder).mkdir(parents=True)
    for stem, objects in images.items():
        Image.new("RGB", (40, 30), (10, 200, 30)).save(root / folder / f"{stem}.jpg")
        nodes = "".join(
            f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9"
            "</xmax><ymax>9</ymax></bndbox></object>"
            for name, hard in objects
        )
        (root / folder / f"{stem}.xml").write_text(
            f"<annotation><size><width>40</width><height>30</height></size>{nodes}</annotation>"
        )


def test_difficult_only_is_not_known(tmp_path: Path) -> None:
    voc(tmp_path, {"a": [("cat", 0), ("dog", 1)], "b": [("cat", 1), ("cat", 0)], "c": []})
    scenes = VocScenes(tmp_path / "train")
    present = all_labels(scenes, 2)
    assert present.isnan().tolist() == [[False, True], [False, False], [False, False]]
    assert present.nan_to_num(-1).tolist() == [[1, -1], [1, 0], [0, 0]]
    assert unseen(present, scenes.classes) == ["dog"]
    assert torch.equal(all_labels(Subset(scenes, [2, 0]), 2).nan_to_num(-1), present[[2, 0]].nan_to_num(-1))
    assert multi_hot({"labels": torch.tensor([1])}, 3).tolist() == [0, 1, 0]


def test_rare_classes_come_again() -> None:
    present = torch.tensor([[1, 0, 0]] * 5 + [[1, 1, 0]] * 2 + [[0, 0, 1]])
    # 7, 2 and 1 images: 7/7, 7/2 = 3.5 -> 4 (even), 7
    assert copies(present, most=10) == [1] * 5 + [4, 4, 7]
    assert copies(present, most=3) == [1] * 5 + [3, 3, 3]
    assert copies(present, most=1) == [1] * 8
    assert copies(torch.zeros(2, 3), most=4) == [1, 1]
    with pytest.raises(ValueError, match="most=0"):
        copies(present, 0)


def test_copies_are_changed_and_the_first_is_not() -> None:
    scenes = WORLD.scenes(12, seed=5, size=(48, 64))
    data = MultiLabelImages(scenes, 4, side=40, most=3)
    assert len(data) == sum(data.copies) > 12
    row = next(k for k, first in enumerate(data.first) if not first)
    plain, changed = data[row - 1], data[row]
    assert torch.equal(plain[1], changed[1])
    assert plain[0].dtype == changed[0].dtype == torch.uint8
    assert torch.equal(plain[0], data[row - 1][0])
    assert not torch.equal(changed[0], data[row][0])
    assert MultiLabelImages(scenes, 4, side=40)[0][0].shape == (3, 40, 40)
    assert repr(data.transform) != repr(MultiLabelImages(scenes, 4, side=40).transform)


def test_drawn_scenes_differ_between_parts() -> None:
    task = multi_label.from_critters(WORLD, train_images=20, held_images=3, test_images=4, scene_size=(48, 64))
    assert task.sizes == {"classes": 4, "train": 20, "held": 3, "test": 4}
    assert (task.unseen, task.unseen_labels) == ([], [])
    assert not torch.equal(task.train[0][0], task.test[0][0])
    few = multi_label.from_critters(WORLD, train_images=1, held_images=1, test_images=1, scene_size=(48, 64))
    assert len(few.unseen) in (2, 3)
    assert [few.classes[k] for k in few.unseen_labels] == few.unseen


def test_photos_without_a_held_out_split(tmp_path: Path) -> None:
    names = {f"t{k}": [("cat", 0)] + [("dog", 0)] * (k < 3) + [("owl", 0)] * (k == 0) for k in range(10)}
    voc(tmp_path, names)
    voc(tmp_path, {"x": [("dog", 0), ("owl", 0)], "y": [("cat", 0)]}, "test")
    task = multi_label.from_photos("voc", tmp_path, min_images=2)
    assert task.classes == ["cat", "dog"]
    assert task.sizes == {"classes": 2, "train": 8, "held": 2, "test": 2}
    assert task.test[0][1]["labels"].tolist() == [1]
    held = {Path(task.train.dataset.files[k]).stem for k in task.held.indices}  # type: ignore[attr-defined]
    trained = {Path(task.train.dataset.files[k]).stem for k in task.train.indices}  # type: ignore[attr-defined]
    assert held | trained == set(names)
    assert not held & trained


def test_a_class_without_a_training_image_is_named(tmp_path: Path) -> None:
    voc(tmp_path, {f"t{k}": [("cat", 0), ("owl", 1)] for k in range(5)})
    voc(tmp_path, {"x": [("owl", 0)]}, "test")
    task = multi_label.from_photos("voc", tmp_path, min_images=0)
    assert (task.classes, task.unseen, task.unseen_labels) == (["cat", "owl"], ["owl"], [1])


def test_refused(tmp_path: Path) -> None:
    voc(tmp_path, {"a": [("cat", 0)]})
    voc(tmp_path, {"x": [("cat", 0)]}, "test")
    with pytest.raises(ValueError, match="'imagenet'; known: critters, voc, coco"):
        multi_label.from_photos("imagenet", tmp_path)
    with pytest.raises(ValueError, match="give data_root"):
        multi_label.from_photos("voc", "")
    with pytest.raises(ValueError, match="no class is in 9 training images: the most frequent one is in 1"):
        multi_label.from_photos("voc", tmp_path, min_images=9)
    with pytest.raises(ValueError, match="1 training images are too few"):
        multi_label.from_photos("voc", tmp_path)
    with pytest.raises(ValueError, match="no image to train on"):
        MultiLabelImages(WORLD.scenes(0), 4, side=40)
    with pytest.raises(ValueError, match="turn=200"):
        MultiLabelImages(WORLD.scenes(2), 4, side=40, turn=200)


def test_drawn_labels_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"train_images": 6, "held_images": 1, "test_images": 1, "scene_size": (48, 64)}
    first = multi_label.from_critters(WORLD, seed=5, **sizes)
    monkeypatch.setattr("wsolnb.data.tasks.multi_label.all_labels", lambda *_: pytest.fail("drawn again"))
    again = multi_label.from_critters(WORLD, seed=5, **sizes)
    shown = all_labels(again.train, 4)
    assert torch.equal(shown, all_labels(first.train.dataset, 4))
    assert shown.sum(dim=1).ge(1).all()
    assert torch.equal(again.train[2][0], first.train[2][0])


def test_the_folder_of_another_data_set_is_recognised(tmp_path: Path) -> None:
    birds, scenes = trees.cub(tmp_path / "cub"), trees.voc(tmp_path / "voc")
    with pytest.raises(FileNotFoundError, match=r"is not COCO 2017: expected train2017/.*this looks like VOC2012"):
        multi_label.from_photos("coco", scenes)
    with pytest.raises(FileNotFoundError, match=r"is not VOC2012: .*this looks like CUB-200-2011"):
        multi_label.from_photos("voc", birds)
