"""Photos to learn from: which training they stand for, how often they are decoded, and what else is taken."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from wsolnb._utils.cache import fingerprint
from wsolnb.data.readers import folders
from wsolnb.inference.training_photos import training_photos


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path / "cache"))
    for name in ("ant", "bee"):
        (tmp_path / "p" / name).mkdir(parents=True)
        for index in range(30):
            Image.effect_noise((40, 30), 80).convert("RGB").save(tmp_path / "p" / name / f"{index:02}.png")
    return tmp_path / "p"


def key(root: Path, **options: Any) -> str:
    found = training_photos(root, 32, **options)
    return fingerprint(found.train, found.held)


def test_another_label_or_photo_is_another_training(root: Path) -> None:
    """Also one that is not among the sixteen whose pixels the key of a training looks at."""
    before = key(root)
    assert key(root) == before
    assert key(root, seed=1) != before
    photo, photo_2 = root / "ant" / "04.png", root / "bee" / "04.png"
    photo.rename(root / "04.png")
    photo_2.rename(photo)
    (root / "04.png").rename(photo_2)
    assert key(root) != before
    after = key(root)
    os.utime(root / "bee" / "11.png", ns=(1, 1))
    assert key(root) != after


def test_a_photo_is_decoded_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    decode = folders.decode
    monkeypatch.setattr(folders, "decode", lambda path, **options: decoded.append(path.name) or decode(path, **options))
    found = training_photos(root, 32)
    assert len(decoded) == len(found.held) == 6
    first = [found.train.square(index) for index in range(len(found.train))]
    assert len(decoded) == 60
    again = training_photos(root, 32)
    assert all(torch.equal(again.train.square(index), square) for index, square in enumerate(first))
    assert len(decoded) == 60
    direct = again.train.square(0)
    again.train.cache = None
    assert torch.equal(again.train.square(0), direct)


def test_a_data_set_of_torchvision_gives_the_same(root: Path) -> None:
    ours, theirs = training_photos(root, 32), training_photos(ImageFolder(root), 32)
    assert theirs.classes == ours.classes == ("ant", "bee")
    assert theirs.counts == ours.counts == {"ant": 27, "bee": 27}
    assert torch.equal(theirs.held.labels, ours.held.labels)
    assert all(torch.equal(theirs.train.square(index), ours.train.square(index)) for index in (0, 40))
    image, target = theirs.held[5]
    assert image.shape == (3, 32, 32)
    assert target["labels"].tolist() == [1]
