"""Read OpenImages30k: 100 classes, masks of the objects and regions to ignore, in one folder per class."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from wsolnb.data.readers.layouts import not_here
from wsolnb.data.readers.photos import Photos
from wsolnb.data.readers.protocol import read_union
from wsolnb.data.readers.scenes import Transform


class OpenImages30k(Photos):
    """OpenImages30k, with its two archives (photos, masks) extracted into one folder.

    `<split>/<class>/<image>.jpg` beside `<image>_m<class>_<number>.png`, one for each object, and `<image>_ignore.png`,
    the pixels that cannot be assigned. "masks" is the union of the objects, whose pixels are not ignored. Classes are
    codes such as `0bt_c3`; labels count them in alphabetical order, as in the field's metadata files. `train` has no
    masks.

    Args:
        root: Folder with `train/`, `val/` and `test/`.
        split: One of them; either all of its photos have masks or none has.

    >>> OpenImages30k("data/openimages", "test")  # doctest: +SKIP
    OpenImages30k(5000 images, 100 classes)
    """

    def __init__(self, root: str | Path, split: str, *, transform: Transform | None = None) -> None:
        if split not in ("train", "val", "test"):
            raise ValueError(f"unknown split {split!r} of OpenImages30k; known: train, val, test")
        folder = Path(root) / split
        classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()) if folder.is_dir() else []
        names, labels = [], []
        self._files: list[tuple[list[str], str]] = []
        for label, code in enumerate(classes):
            photos = _with_masks(folder / code, code)
            names += [f"{code}/{stem}.jpg" for stem in photos]
            self._files += photos.values()
            labels += [label] * len(photos)
        if not names:
            raise not_here(root, "openimages", f"{split}/<class>/<image>.jpg")
        annotated = [bool(masks) for masks, _ in self._files]
        self.annotated = any(annotated)
        if self.annotated and not all(annotated):
            k = annotated.index(False)
            raise ValueError(f"{folder}: {annotated.count(False)} photos have no mask, the first is {names[k]}")
        super().__init__(folder, names, labels, classes=classes, transform=transform)

    def has_boxes(self, index: int) -> bool:
        """Whether the image has a mask, whose extent is its box."""
        return self.annotated

    def _masks(self, index: int, size: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
        masks, ignore = self._files[index]
        return read_union(self.file(index).parent, masks, ignore, size) if masks else None


def _with_masks(folder: Path, code: str) -> dict[str, tuple[list[str], str]]:
    """Stem of every photo of a class, with the names of its masks and of its region to ignore."""
    listed = sorted(name for name in os.listdir(folder) if not name.startswith("._"))
    photos: dict[str, tuple[list[str], str]] = {name[:-4]: ([], "") for name in listed if name.endswith(".jpg")}
    for name in listed:
        if not name.endswith(".png"):
            continue
        ignored = name.endswith("_ignore.png")
        stem = name.removesuffix("_ignore.png") if ignored else name.split(f"_m{code}_", 1)[0]
        if stem not in photos:
            raise ValueError(f"{folder / name} has no photo {stem}.jpg: extract the archive of photos there too")
        if ignored:
            photos[stem] = (photos[stem][0], name)
        else:
            photos[stem][0].append(name)
    return photos
