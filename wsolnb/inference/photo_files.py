"""The photos that a person means by paths and folders: every file once, named from one folder, with its sub-folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS

from wsolnb.data.readers.images import to_rgb


@dataclass(frozen=True)
class PhotoFiles:
    """Photos below one folder.

    Args:
        root: The folder that was given, or the nearest one above all that were.
        names: Paths of the photos below it, with `/`.
        folders: For each photo, the name of the sub-folder that it lies in, at any depth, of the folder that was given;
            of a photo that lies there directly, or was given itself, the name of its folder.
        repeated: Other paths that lead to one of the photos, and its path.
        left_out: Files in folders that have no suffix of a photo.
    """

    root: Path
    names: tuple[str, ...]
    folders: tuple[str, ...]
    repeated: dict[str, str]
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def paths(self) -> list[Path]:
        """Paths of the photos."""
        return [self.root / name for name in self.names]


def find_photos(paths: Sequence[str | Path]) -> PhotoFiles:
    """Find the photos in folders, in all their sub-folders and sorted, and take those given by themselves.

    Hidden files and folders are passed over. In folders, photos have a suffix that `wsolnb.fit` knows, too; a file that
    is given itself may have any that Pillow reads.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: There are no photos, or a file that is given itself is none.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b/2.png", "a/1.png", "a/notes.txt"):
        ...         Path(folder, name).parent.mkdir(exist_ok=True)
        ...         Image.new("RGB", (6, 4)).save(Path(folder, name), "png")
        ...     found = find_photos([folder])
        >>> found.names, found.folders, [Path(name).name for name in found.left_out]
        (('a/1.png', 'b/2.png'), ('a', 'b'), ['notes.txt'])
    """
    given = [Path(path) for path in paths]
    if not given:
        raise ValueError("no photos given")
    photos: list[tuple[Path, str]] = []
    left_out: list[str] = []
    for path in given:
        if not path.exists():
            raise FileNotFoundError(f"no photo or folder {path}")
        if not path.is_dir():
            _check_header(path)
            photos.append((path, path.absolute().parent.name))
            continue
        files = [path / name for name in _below(path)]
        inside = [file for file in files if file.suffix.lower() in IMG_EXTENSIONS]
        if not inside:
            raise ValueError(f"{path} has no photo ({', '.join(IMG_EXTENSIONS)}), nor has any folder in it")
        photos += [(file, (*file.relative_to(path).parent.parts, path.resolve().name)[0]) for file in inside]
        left_out += [str(file) for file in files if file.suffix.lower() not in IMG_EXTENSIONS]
    photos, repeated = _once(photos)
    # `..` is taken away as text, so that a link in a path stays in the photo's name
    root = os.path.commonpath([os.path.abspath(path if path.is_dir() else path.parent) for path in given])
    names = [Path(os.path.relpath(path, root)).as_posix() for path, _ in photos]
    shown = given[0] if len(given) == 1 and given[0].is_dir() else Path(root)
    return PhotoFiles(shown, tuple(names), tuple(folder for _, folder in photos), repeated, tuple(left_out))


def _below(folder: Path) -> Iterator[str]:
    """Paths of all files below a folder, also behind links, sorted; without hidden ones."""
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.relpath(os.path.join(place, name), folder) for name in sorted(files) if name[0] != ".")


def _check_header(path: Path) -> None:
    try:
        Image.open(path).close()
    except Image.DecompressionBombError:
        pass  # a photo, but one that will not be read
    except Exception as error:  # of a damaged file, Pillow's decoders raise almost anything
        raise ValueError(f"{path} cannot be read as a photo: {error}") from None


def _once(photos: Sequence[tuple[Path, str]]) -> tuple[list[tuple[Path, str]], dict[str, str]]:
    """Every file once, and the other paths that lead to one of them."""
    first: dict[tuple[int, int], tuple[Path, str]] = {}
    repeated: dict[str, str] = {}
    for photo in photos:
        about = photo[0].stat()
        known = first.setdefault((about.st_dev, about.st_ino), photo)
        if known is not photo:
            repeated[str(photo[0])] = str(known[0])
    return list(first.values()), repeated


def open_photo(path: Path) -> Image.Image:
    """A photo in RGB, 8 bits a channel, turned as its EXIF data say; of a damaged one, any of Pillow's errors.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (6, 4)).save(Path(folder, "a.png"))
        ...     open_photo(Path(folder, "a.png")).size
        (6, 4)
    """
    with Image.open(path) as file:
        return to_rgb(ImageOps.exif_transpose(file))


def unique_stems(names: Sequence[str]) -> list[str]:
    """Stems of files' names, numbered where several are the same, as in a folder that ignores case.

    Example:
        >>> unique_stems(["a/1.jpg", "b/1.jpg", "b/2.jpg"])
        ['1', '1-2', '2']
    """
    stems: dict[str, str] = {}
    for name in names:
        stem, number = Path(name).stem, 1
        while stem.lower() in stems:
            number += 1
            stem = f"{Path(name).stem}-{number}"
        stems[stem.lower()] = stem
    return list(stems.values())
