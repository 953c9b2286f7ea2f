"""Which photos are meant by paths and folders, and what they are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from wsolnb.inference.photo_files import find_photos, unique_stems


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "mine"
    for name in (
        "b/x/2.png",
        "b/1.JPG",
        "a/9.webp",
        "0.png",
        "a/.hidden.png",
        ".cache/1.png",
        "a/table.csv",
        "a/v.mpg",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".csv", ".mpg"):
            path.write_bytes(b"no photo")
        else:
            Image.effect_noise((8, 6), 50).convert("RGB").save(path)
    return root


def test_a_folder_stands_for_all_photos_below_it(folder: Path) -> None:
    found = find_photos([folder])
    assert found.root == folder
    assert found.names == ("0.png", "a/9.webp", "b/1.JPG", "b/x/2.png")
    assert found.folders == ("mine", "a", "b", "b")  # at any depth, the sub-folder of what was given
    assert [Path(name).name for name in found.left_out] == ["table.csv", "v.mpg"]
    assert [path.is_file() for path in found.paths()] == [True] * 4


def test_photos_and_folders_together_are_named_from_the_folder_above(folder: Path) -> None:
    found = find_photos([folder / "b", folder / "a" / "9.webp", folder / "b" / "1.JPG"])
    assert found.root == folder
    assert found.names == ("b/1.JPG", "b/x/2.png", "a/9.webp")
    assert found.folders == ("b", "x", "a")
    assert found.repeated == {str(folder / "b" / "1.JPG"): str(folder / "b" / "1.JPG")}
    link = folder / "link.png"
    link.symlink_to(folder / "0.png")
    assert find_photos([folder]).repeated == {str(link): str(folder / "0.png")}


def test_links_to_photos_and_folders_are_followed_and_keep_their_names(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "links" / "ace").mkdir(parents=True)
    (tmp_path / "links" / "ace" / "n.png").symlink_to(folder / "0.png")
    (tmp_path / "links" / "king").symlink_to(folder / "b")
    found = find_photos([tmp_path / "links"])
    assert found.names == ("ace/n.png", "king/1.JPG", "king/x/2.png")
    assert found.folders == ("ace", "king", "king")


def test_what_cannot_be_a_photo_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no photo or folder .*gone"):
        find_photos([folder / "gone"])
    with pytest.raises(ValueError, match=r"table\.csv cannot be read as a photo"):
        find_photos([folder / "a" / "table.csv"])
    (folder / "c" / "d").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"c has no photo \(\.jpg, .*\), nor has any folder in it"):
        find_photos([folder / "c"])
    with pytest.raises(ValueError, match="no photos given"):
        find_photos([])


def test_stems_are_unique_whatever_their_capitals() -> None:
    assert unique_stems(["a/x.jpg", "b/X.png", "x.gif", "x-2.jpg"]) == ["x", "X-2", "x-3", "x-2-2"]
