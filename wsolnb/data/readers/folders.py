"""Photos sorted into a folder per class, the layout of torchvision's `ImageFolder`: labels, no boxes."""

from __future__ import annotations

from pathlib import Path

from torchvision import tv_tensors
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from wsolnb.data.readers.images import decode
from wsolnb.data.readers.photos import Photos
from wsolnb.data.readers.scenes import Target


class ClassFolders(Photos):
    """Photos in one sub-folder per class, at any depth below it; the classes are the sub-folders' names, sorted.

    No boxes refer to the stored pixels, so photos are turned as their EXIF data say.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it has fewer than two sub-folders, or one of them has no photo.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat", "dog"):
    ...         Path(folder, name).mkdir()
    ...         Image.new("RGB", (6, 4)).save(Path(folder, name, "1.png"))
    ...     photos = ClassFolders(folder)
    ...     photos.classes, photos.labels.tolist(), photos[1][0].shape
    (['cat', 'dog'], [0, 1], torch.Size([3, 4, 6]))
    """

    def __init__(self, root: str | Path) -> None:
        root = Path(root)
        if not root.is_dir():
            raise FileNotFoundError(f"no folder {root}")
        classes = _class_names(root)
        if len(classes) < 2:
            raise ValueError(f"{root} has {len(classes)} sub-folders: put the photos of each class into one of its own")
        numbers = {name: number for number, name in enumerate(classes)}
        files = make_dataset(str(root), numbers, IMG_EXTENSIONS, allow_empty=True)
        if empty := numbers.keys() - {classes[label] for _, label in files}:
            first = root / min(empty)
            raise ValueError(f"{first} has no photo ({', '.join(IMG_EXTENSIONS)}): fill the folder or remove it")
        names = [str(Path(file).relative_to(root)) for file, _ in files]
        super().__init__(root, names, [label for _, label in files], classes=classes)

    def image(self, index: int) -> tv_tensors.Image:
        """Decode a photo, upright; raises FileNotFoundError or UnreadableImage."""
        return decode(self.file(index), upright=True)

    def target(self, index: int) -> Target:
        """Label and index of a photo, without opening it."""
        return self._target(index, (0, 0))


def _class_names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


_SPLITS = {"train", "val", "valid", "validation", "test"}


def class_folders(root: str | Path) -> tuple[ClassFolders, ClassFolders | None]:
    """The photos of a folder, to learn from, and those of its split `val`, if it has `train` and `val`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: As `ClassFolders`; or `val` has other classes than `train`, or the folder has splits, but not both.

    Example:
        >>> class_folders("no-such-folder")
        Traceback (most recent call last):
        FileNotFoundError: no folder no-such-folder
    """
    root = Path(root)
    names = set(_class_names(root)) if root.is_dir() else set()
    if {"train", "val"} <= names:
        train, val = root / "train", root / "val"
        known, held = _class_names(train), _class_names(val)
        if missing := sorted(set(known) - set(held)):
            raise ValueError(f"{val} has no folder {missing[0]!r}, which {train} has: it needs photos of every class")
        if unknown := sorted(set(held) - set(known)):
            raise ValueError(f"{val} has a folder {unknown[0]!r}, which {train} lacks: add it there, or remove it here")
        return ClassFolders(train), ClassFolders(val)
    if "train" in names and names <= _SPLITS:
        raise ValueError(
            f"{root} has {' and '.join(sorted(names))}, but no val to hold out: rename one of them to val, or give "
            f"{root / 'train'}, of which a tenth is then held out"
        )
    return ClassFolders(root), None
