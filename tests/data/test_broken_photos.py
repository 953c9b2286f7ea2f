"""A photo that does not decode in the middle of an epoch: named, or skipped if asked and counted."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import layout_trees as trees
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from wsolnb._utils.cache import fingerprint
from wsolnb.data.labels import labels_of
from wsolnb.data.readers.images import SkipUnreadable, UnreadableImage, decode
from wsolnb.data.tasks import crops_to_scenes, multi_label, single_object
from wsolnb.data.tasks.single_object import SingleObject
from wsolnb.losses import CrossEntropy
from wsolnb.papers.bency2016.sampler import MultiLabelImages
from wsolnb.train import Plan, train

PER_CLASS = 60  # more images than the cache's key looks at, so that the epoch finds what the key did not


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WSOLNB_HEADLESS", "1")


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    return trees.cub(tmp_path / "cub", per_class=PER_CLASS)


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-20])
    return path


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def task_with_a_broken_photo(cub: Path, **how: Any) -> tuple[SingleObject, Path]:
    """The photo is the second of the training set: in between those that the key looks at."""
    task = single_object.from_photos("cub", cub, image_size=16, **how)
    source = task.train.source if isinstance(task.train, SkipUnreadable) else task.train
    return task, truncate(source.file(1))  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [0, 2])
def test_named_in_the_middle_of_an_epoch(cub: Path, workers: int) -> None:
    task, cut = task_with_a_broken_photo(cub)
    fingerprint(task.train)  # the key of the cache does not look at it
    with pytest.raises(UnreadableImage, match=rf"{cut} does not decode as an image: image file is truncated") as error:
        train(net(), task.train, CrossEntropy(), Plan(2, 5), device="cpu", workers=workers)
    assert "training images can be skipped (skip_broken=True)" in str(error.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_if_asked_and_counted(cub: Path, workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    task, cut = task_with_a_broken_photo(cub, skip_broken=True)
    assert task.sizes["unreadable"] == 0
    how: Any = {"device": "cpu", "workers": workers}
    run = train(net(), task.train, CrossEntropy(), Plan(2, 5), **how)
    assert [row["unreadable"] for row in run.history] == [1, 1]
    assert task.sizes["unreadable"] == 1
    assert task.train.broken_files == [cut]  # type: ignore[attr-defined]
    assert capsys.readouterr().out.count("1 unreadable") == 2
    assert run.weights is not None
    assert json.loads(run.weights.with_suffix(".json").read_text())["unreadable"] == [1]
    again, _ = task_with_a_broken_photo(cub, skip_broken=True)
    assert train(net(), again.train, CrossEntropy(), Plan(2, 5), **how).cached
    assert again.sizes["unreadable"] == 1  # also when nothing was trained


def test_a_training_that_goes_on_remembers_what_it_found(cub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, _ = task_with_a_broken_photo(cub, skip_broken=True)
    stopped = CrossEntropy()
    monkeypatch.setattr(stopped, "begin_epoch", lambda epoch, _: 1 / (1 - epoch), raising=False)
    with pytest.raises(ZeroDivisionError):
        train(net(), task.train, stopped, Plan(2, 5), device="cpu")
    again = single_object.from_photos("cub", cub, image_size=16, skip_broken=True)
    found: list[int] = []
    monkeypatch.setattr(stopped, "begin_epoch", lambda *_: found.append(again.sizes["unreadable"]))
    run = train(net(), again.train, stopped, Plan(2, 5), device="cpu")
    assert found == [1]  # before the second epoch, the only one that was left, saw any image
    assert [row["unreadable"] for row in run.history] == [1, 1]


def test_nothing_is_counted_that_was_not_asked_for(cub: Path) -> None:
    task = single_object.from_photos("cub", cub, image_size=16)
    assert "unreadable" not in task.sizes
    assert "unreadable" not in train(net(), task.train, CrossEntropy(), Plan(1, 20), device="cpu").history[0]


def test_what_is_skipped_keeps_labels_and_key(cub: Path) -> None:
    task = single_object.from_photos("cub", cub, image_size=16, skip_broken=True)
    plain = single_object.from_photos("cub", cub, image_size=16)
    truncate(task.train.source.file(1))  # type: ignore[attr-defined]
    assert torch.equal(labels_of(task.train), labels_of(plain.train))  # without decoding: the photo is broken
    assert repr(task.train.transform) == repr(plain.train.transform)  # type: ignore[attr-defined]
    assert fingerprint(task.train) != fingerprint(plain.train)
    assert not hasattr(task.train, "masks")
    assert len(pickle.loads(pickle.dumps(task.train))) == len(plain.train)  # type: ignore[arg-type]


def test_objects_cut_out_of_a_broken_photo_are_skipped(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for k in range(4):
            trees.photo(tmp_path / split / f"{k}.jpg", (90, 70), shade=20 * k)
            trees.xml(tmp_path / split / f"{k}.xml", [("dog", (5, 8, 60, 50))], (90, 70))
    how: Any = {"image_size": 16}
    cut = truncate(tmp_path / "train" / "2.jpg")
    with pytest.raises(UnreadableImage, match=cut.name):
        crops_to_scenes.from_photos("voc", tmp_path, **how)
    task = crops_to_scenes.from_photos("voc", tmp_path, **how, skip_broken=True)
    assert task.sizes["unreadable"] == 0
    images = [task.train[k][0] for k in range(len(task.train))]  # type: ignore[arg-type]
    assert {tuple(image.shape) for image in images} == {(3, 16, 16)}
    assert task.sizes["unreadable"] == 1
    assert task.train.broken_files == [cut]  # type: ignore[attr-defined]


def test_whole_photos_that_stand_for_objects(tmp_path: Path) -> None:
    task = crops_to_scenes.from_photos("cub", trees.cub(tmp_path), image_size=16, skip_broken=True)
    cut = truncate(task.train.source.file(0))  # type: ignore[attr-defined]
    assert task.train[0][1] == task.train[1][1]
    assert task.train.broken_files == [cut]  # type: ignore[attr-defined]


def test_images_with_several_classes(tmp_path: Path) -> None:
    trees.coco(tmp_path, images=10)
    scenes = multi_label.from_photos("coco", tmp_path, splits=("train2017", "", "val2017"))
    images = MultiLabelImages(scenes.train, len(scenes.classes), 16)
    cut = truncate(images.file(3))
    with pytest.raises(UnreadableImage, match=cut.name):
        images[3]
    skipping = SkipUnreadable(images)
    replaced, expected = skipping[3], images[4]
    assert torch.equal(replaced[0], expected[0])
    assert torch.equal(replaced[1], expected[1])  # the labels are those of the image that took its place
    assert skipping.broken_files == [cut]
    assert skipping.transform == images.transform


class Noise(Dataset[tuple[Tensor, int]]):
    """Images that are no files."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 2:
            raise UnreadableImage("number 2 does not decode")
        return torch.zeros(3, 8, 8), index


def test_labels_of_a_data_set_that_does_not_tell_them() -> None:
    assert labels_of(SkipUnreadable(Noise())).tolist() == [0, 1, 3, 3]
    assert SkipUnreadable(Subset(Noise(), [2, 3]))[0][1] == 3


def test_the_message_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match=r"a.jpg does not decode as an image: .*fetch it again"):
        decode(tmp_path / "a.jpg")
