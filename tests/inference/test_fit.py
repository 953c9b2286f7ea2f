"""What `fit` takes, holds out and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import wsolnb
from wsolnb.boxes import BoxRule
from wsolnb.data.readers.folders import ClassFolders
from wsolnb.inference.fit import fit
from wsolnb.inference.threshold import otsu_rule


def folders(root: Path, **counts: int) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.effect_noise((40, 30), 80).convert("RGB").save(root / name / f"{index}.png")
    return root


def test_front_door() -> None:
    assert wsolnb.fit is fit
    assert {"fit", "load", "localize"} <= set(dir(wsolnb))


def test_classes_are_the_folders_in_order(tmp_path: Path) -> None:
    photos = ClassFolders(folders(tmp_path / "p", dog=2, cat=1))
    assert photos.classes == ["cat", "dog"]
    assert photos.labels.tolist() == [0, 1, 1]
    assert [photos.name(index) for index in range(3)] == ["cat/0.png", "dog/0.png", "dog/1.png"]


def test_photos_are_turned_as_their_exif_says(tmp_path: Path) -> None:
    root = folders(tmp_path / "p", cat=1, dog=1)
    image = Image.new("RGB", (40, 30))
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter turn
    image.save(root / "cat" / "0.jpg", exif=exif)
    photos = ClassFolders(root)
    assert photos[0][0].shape == (3, 40, 30)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"cat": 3}, "has 1 sub-folders: put the photos of each class into one of its own"),
        ({"cat": 3, "dog": 0}, r"dog has no photo \(\.jpg,"),
        ({"cat": 8, "dog": 3}, "class 'dog' has 3 photos: two have to be learned from and two held out"),
    ],
)
def test_folders_that_cannot_be_learned_from(counts: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fit(folders(tmp_path / "p", **counts), backbone="tiny", weights=None, image_size=32, device="cpu")


def test_no_such_method(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no method 'gradcam': choose one of cam, has, adl"):
        fit(tmp_path, "gradcam")


def test_the_threshold_splits_two_levels_whatever_their_scale() -> None:
    maps = torch.full((2, 6, 8), 0.1)
    maps[:, 1:4, 2:6] = 0.9
    for scale in (1.0, 7.0):
        rule = otsu_rule(scale * maps, BoxRule(resize="nearest"))
        assert 0.12 <= rule.threshold <= 0.99
        assert rule(scale * maps[:, None], (6, 8))[0, 0].tolist() == [2.0, 1.0, 6.0, 4.0]
