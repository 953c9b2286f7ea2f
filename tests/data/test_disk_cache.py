"""The cache of decoded photos: the same pixels, less work, never more than its limit, never a wrong image."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import layout_trees as trees
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from wsolnb._utils.cache import fingerprint
from wsolnb.data import disk_cache as pixels
from wsolnb.data.disk_cache import PixelCache
from wsolnb.data.readers.images import decode
from wsolnb.data.tasks import multi_label, single_object
from wsolnb.papers.bency2016.sampler import MultiLabelImages

SIDE, RECORD = 5, 4 + 3 * 5 * 5


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"stands for a photo")
    return path


def cache(limit: int = 10**6, photos: str = "some photos") -> PixelCache:
    return PixelCache(photos, SIDE, limit)


def filled(value: int) -> Tensor:
    return torch.full((3, SIDE, SIDE), value, dtype=torch.uint8)


def refuse() -> Tensor:
    raise AssertionError("made anew")


def test_kept_from_object_to_object_and_from_process_to_process(photo: Path) -> None:
    image = torch.randint(256, (3, SIDE, SIDE), dtype=torch.uint8)
    assert torch.equal(cache().get(3, photo, lambda: image), image)
    assert torch.equal(cache().get(3, photo, refuse), image)
    assert torch.equal(pickle.loads(pickle.dumps(cache())).get(3, photo, refuse), image)
    assert torch.equal(cache(photos="others").get(3, photo, lambda: filled(2)), filled(2))


def test_a_changed_or_another_photo_is_made_anew(photo: Path) -> None:
    cache().get(0, photo, lambda: filled(1))
    about = photo.stat()
    os.utime(photo, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    assert torch.equal(cache().get(0, photo, lambda: filled(2)), filled(2))
    assert torch.equal(cache().get(0, photo, refuse), filled(2))
    other = photo.with_name("b.jpg")
    other.write_bytes(photo.read_bytes())
    os.utime(other, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    assert torch.equal(cache().get(0, other, lambda: filled(3)), filled(3))


@pytest.mark.parametrize("damage", ["one bit", "cut short", "emptied"])
def test_a_damaged_file_costs_time_only(photo: Path, damage: str) -> None:
    cache().get(1, photo, lambda: filled(7))
    data = bytearray(cache().file.read_bytes())
    data[RECORD + 40] ^= 1
    cache().file.write_bytes({"one bit": data, "cut short": data[:-1], "emptied": b""}[damage])
    assert torch.equal(cache().get(1, photo, lambda: filled(7)), filled(7))
    assert torch.equal(cache().get(1, photo, refuse), filled(7))


def test_never_more_than_the_limit(photo: Path) -> None:
    small = cache(3 * RECORD + 1)
    assert small.room == 3
    for index in range(5):
        small.get(index, photo, lambda index=index: filled(index))
    assert small.file.stat().st_size == 3 * RECORD
    for index in range(3):
        assert torch.equal(small.get(index, photo, refuse), filled(index))
    assert torch.equal(small.get(3, photo, lambda: filled(9)), filled(9))
    others = small.file.stat().st_blocks * 512
    assert cache(others + 2 * RECORD, "others").room == 2  # both files together keep within the limit
    assert cache(RECORD, "others").room == 0
    with pytest.raises(ValueError, match="a cache of -1 bytes"):
        cache(-1)


def test_a_full_disk_stops_the_keeping_not_the_training(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = cache()
    kept.file.unlink()
    kept.file.symlink_to("/dev/full")
    assert torch.equal(kept.get(0, photo, lambda: filled(4)), filled(4))
    assert kept.room == 0
    assert torch.equal(kept.get(0, photo, lambda: filled(5)), filled(5))


def test_a_photo_that_is_gone_is_named_by_whoever_decodes_it(photo: Path) -> None:
    cache().get(0, photo, lambda: filled(1))
    photo.unlink()
    with pytest.raises(FileNotFoundError, match=r"no image .*a\.jpg"):
        cache().get(0, photo, lambda: decode(photo))


def images_of(dataset: Any, workers: int = 0) -> Tensor:
    torch.manual_seed(3)
    return torch.stack([image for image, _ in DataLoader(dataset, batch_size=None, num_workers=workers)])


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that were decoded in this process."""
    seen: list[Path] = []

    def spy(path: Path) -> Tensor:
        seen.append(path)
        return decode(path)

    for module in ("photos", "scenes"):
        monkeypatch.setattr(f"wsolnb.data.readers.{module}.decode", spy)
    return seen


def test_training_images_are_the_same_and_decoded_once(tmp_path: Path, decoded: list[Path]) -> None:
    trees.cub(tmp_path, per_class=10)
    plain = single_object.from_photos("cub", tmp_path, image_size=16)
    cached = single_object.from_photos("cub", tmp_path, image_size=16, cache_gb=0.001)
    assert fingerprint(plain.train) == fingerprint(cached.train)  # which decodes and keeps all eight images
    expected = images_of(plain.train)
    decoded.clear()
    assert torch.equal(images_of(cached.train), expected)
    assert decoded == []
    other = single_object.from_photos("cub", tmp_path, image_size=16, cache_gb=0.001, seed=1)
    images_of(other.train)
    assert 0 < len(decoded) <= 2  # only images that the first draw held out
    larger = single_object.from_photos("cub", tmp_path, image_size=24, cache_gb=0.001)
    assert images_of(larger.train).shape == (8, 3, 24, 24)
    assert len(list((tmp_path / "cache" / "images").iterdir())) == 2


def test_workers_fill_one_cache_together(tmp_path: Path, decoded: list[Path]) -> None:
    trees.cub(tmp_path, per_class=10)
    cached = single_object.from_photos("cub", tmp_path, image_size=16, cache_gb=0.001)
    assert images_of(cached.train, workers=2).shape == (8, 3, 16, 16)
    images_of(cached.train)
    assert decoded == []  # not here: the workers did


@pytest.mark.parametrize("memory", [0, 2**30])
def test_images_of_several_classes(
    tmp_path: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    monkeypatch.setattr("wsolnb.papers.bency2016.sampler._MEMORY", memory)
    trees.coco(tmp_path, images=10)
    scenes = multi_label.from_photos("coco", tmp_path, splits=("train2017", "", "val2017"))
    how: Any = {"most": 2, "flip": True}
    plain = MultiLabelImages(scenes.train, len(scenes.classes), 16, **how)
    cached = MultiLabelImages(scenes.train, len(scenes.classes), 16, **how, cache_gb=0.001)
    expected = images_of(plain)
    assert len(plain._kept) == (len(scenes.train) if memory else 0)  # type: ignore[arg-type]
    assert torch.equal(images_of(cached), expected)
    decoded.clear()
    again = MultiLabelImages(scenes.train, len(scenes.classes), 16, **how, cache_gb=0.001)
    assert torch.equal(images_of(again), expected)
    assert decoded == []
    assert fingerprint(plain) == fingerprint(again)


def test_room_is_counted_in_whole_images() -> None:
    assert pixels.PixelCache("x", 256, 10**9).room == 10**9 // (4 + 3 * 256**2)
