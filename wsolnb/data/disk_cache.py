"""A disk cache of decoded and resized photos, shared by epochs and runs, up to a limit."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL
import torch
import torchvision
from torch import Tensor

from wsolnb._utils.cache import cache_folder, fingerprint
from wsolnb.data.readers.images import file_of

_TAG = 4  # bytes before the pixels of an image: a checksum of them and of the state of the photo's file


class PixelCache:
    """Photos of one size, uint8, in one file, each at a fixed offset.

    A cached image is used only if the checksum in front of it matches its pixels and the size and time of its photo;
    otherwise it is computed again. So any number of processes may share the file without locks, and a changed photo, an
    interrupted write or a damaged file costs time, but never gives a wrong image. Photos beyond the limit (the last
    ones of the data set, or all once the disk is full) are computed every time.

    Args:
        photos: Identifies the data set, such as its folder and the names of its photos.
        side: Height and width of the images.
        limit: Maximal number of bytes of this file and those of other data sets beside it; ValueError below 0.
        folder: Of the files; None: `images` in the cache folder (`WSOLNB_CACHE`).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     photo = Path(folder, "a.jpg")
    ...     _ = photo.write_bytes(b"stands for a photo")
    ...     cache = PixelCache("one photo", 2, 10**6, Path(folder))
    ...     first = cache.get(0, photo, lambda: torch.full((3, 2, 2), 7, dtype=torch.uint8))
    ...     again = cache.get(0, photo, lambda: torch.zeros(3, 2, 2, dtype=torch.uint8))
    ...     int(again.sum()), cache.room
    (84, 62500)
    """

    def __init__(self, photos: str, side: int, limit: int, folder: Path | None = None) -> None:
        if limit < 0:
            raise ValueError(f"a cache of {limit} bytes: give 0 or more")
        self.side = side
        folder = cache_folder() / "images" if folder is None else folder
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / f"{fingerprint(photos, side, torchvision.__version__, PIL.__version__)}.pixels"
        self.file.touch()
        others = sum(path.stat().st_blocks * 512 for path in folder.glob("*.pixels") if path != self.file)
        self._record = _TAG + 3 * side * side
        self.room = max(0, limit - others) // self._record
        """Number of images that fit: the first ones of the data set."""

    def get(self, index: int, photo: Path, make: Callable[[], Tensor]) -> Tensor:
        """An image from the cache, or from `make` (uint8 `(3, side, side)`), whose result is then cached."""
        if index >= self.room or (stamp := _stamp(photo)) is None:
            return make()
        record = bytearray(self._record)
        with self.file.open("rb", buffering=0) as file:
            file.seek(index * self._record)
            file.readinto(record)
        pixels = memoryview(record)[_TAG:]
        if _tag(pixels, stamp) == record[:_TAG]:
            return torch.frombuffer(pixels, dtype=torch.uint8).view(self.side, self.side, 3).permute(2, 0, 1)
        image = make()
        data = image.as_subclass(Tensor).permute(1, 2, 0).contiguous().numpy().tobytes()
        try:
            with self.file.open("r+b", buffering=0) as file:
                file.seek(index * self._record)
                file.write(_tag(data, stamp) + data)
        except OSError:  # such as a full disk: stop caching
            self.room = 0
        return image


def pixel_cache(photos: Any, side: int, gigabytes: float) -> PixelCache | None:
    """The cache of a data set for `wsolnb.data.readers.images.file_of`; None for a limit of 0 (in 1e9 bytes).

    >>> pixel_cache([], 224, 0.0) is None
    True
    """
    if not gigabytes:
        return None
    names = (str(file_of(photos, index)) for index in range(len(photos)))
    return PixelCache("\n".join(names), side, round(gigabytes * 1e9))


def _stamp(photo: Path) -> int | None:
    """A checksum of the photo's path, size and time; None if it is missing (decoding it gives a better error)."""
    try:
        status = os.stat(photo)
    except OSError:
        return None
    return zlib.crc32(f"{photo} {status.st_size} {status.st_mtime_ns}".encode())


def _tag(pixels: bytes | memoryview, stamp: int) -> bytes:
    return zlib.crc32(pixels, stamp).to_bytes(_TAG, "little")
