"""Decode image files; an unreadable one is named, or, on request, replaced and counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset, Subset
from torchvision import tv_tensors
from torchvision.transforms import v2

_REMEDY = "fetch it again; training images can be skipped (skip_broken=True)"


class UnreadableImage(ValueError):
    """An image file that is truncated or no image."""


def decode(path: str | Path, *, upright: bool = False) -> tv_tensors.Image:
    """Decode a file to RGB, uint8 ``(3, H, W)``, see `to_rgb`, as stored or turned `upright` as its EXIF data say.

    Raises:
        FileNotFoundError: If there is no such file.
        UnreadableImage: If it does not decode completely.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (5, 3), 7).save(Path(folder) / "a.png")
    ...     tuple(decode(Path(folder) / "a.png").shape)
    (3, 3, 5)
    """
    with _opened(path, f"; {_REMEDY}") as file:
        image = ImageOps.exif_transpose(file) if upright else file
        return tv_tensors.Image(v2.functional.pil_to_tensor(to_rgb(image)))


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any of Pillow's modes in RGB, 8 bits a channel.

    16 bits are scaled by their whole range, 0 to 65535, whatever part of it the image uses, and so are 32-bit numbers
    in that range (some 16-bit files are read as such); floats in [0, 1] are multiplied by 255. Transparent pixels are
    blended onto white, whatever colour they hide.

    Raises:
        ValueError: The values are in another range, or Pillow cannot convert the mode.

    >>> to_rgb(Image.new("I;16", (1, 1), 200 * 257)).getpixel((0, 0))
    (200, 200, 200)
    """
    if image.mode[0] in "IF":
        values, top = np.asarray(image), 1 if image.mode == "F" else 65535
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= top):
            raise ValueError(f"its values of mode {image.mode} run from {low:g} to {high:g}, only 0 to {top} is read")
        return Image.fromarray((values * (255 / top)).round().astype(np.uint8)).convert("RGB")
    if image.mode not in ("LA", "PA", "RGBA", "La", "RGBa") and "transparency" not in image.info:
        return image.convert("RGB")
    colours = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, colours).convert("RGB")


def stored_size(path: str | Path) -> tuple[int, int]:
    """Height and width from a file's header, without decoding it; raises as `decode`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (5, 3), 7).save(Path(folder) / "a.png")
    ...     stored_size(Path(folder) / "a.png")
    (3, 5)
    """
    with _opened(path) as file:
        return file.height, file.width


@contextmanager
def _opened(path: str | Path, remedy: str = "") -> Iterator[Image.Image]:
    try:
        with Image.open(path) as file:
            yield file
    except FileNotFoundError:
        raise FileNotFoundError(f"no image {path}: is the data root right?") from None
    except Exception as error:  # of a damaged file, Pillow's decoders raise almost anything
        raise UnreadableImage(f"{path} does not decode as an image: {error}{remedy}") from None


class SkipUnreadable(Dataset[Any]):
    """A data set in which unreadable images are replaced by the next readable one, and counted.

    The count is shared with the workers of a loader, and `wsolnb.train.train` merges the counts of its processes. For
    training only: an evaluation would silently use other images. Labels, classes and transform are those of the source.

    >>> class Broken(Dataset):
    ...     def __len__(self): return 3
    ...     def __getitem__(self, index):
    ...         if index == 1: raise UnreadableImage("1.jpg does not decode")
    ...         return index
    >>> readable = SkipUnreadable(Broken())
    >>> [readable[i] for i in range(3)], readable.broken
    ([0, 2, 2], [1])
    """

    def __init__(self, source: Dataset[Any]) -> None:
        self.source = source
        length: int = len(source)  # type: ignore[arg-type]
        self.flags = torch.zeros(length, dtype=torch.uint8).share_memory_()
        """1 for every image found unreadable, uint8 `(len,)`."""

    def __len__(self) -> int:
        return len(self.flags)

    def __getattr__(self, name: str) -> Any:
        if name in ("labels", "classes", "transform"):
            return getattr(self.source, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def broken(self) -> list[int]:
        """Indices of the images found unreadable so far."""
        return self.flags.nonzero()[:, 0].tolist()

    @property
    def broken_files(self) -> list[Path]:
        """Their files."""
        return [file_of(self.source, index) for index in self.broken]

    def __getitem__(self, index: int) -> Any:
        first_error: UnreadableImage | None = None
        for offset in range(len(self)):
            at = (index + offset) % len(self)
            try:
                return self.source[at]
            except UnreadableImage as error:
                self.flags[at] = 1
                first_error = first_error or error
        raise UnreadableImage(f"none of the {len(self)} images decodes; the first: {first_error}")


def count_broken(dataset: Dataset[Any]) -> dict[str, int]:
    """Number of images found unreadable so far, as `{"unreadable": n}`; empty unless they are skipped.

    >>> from torch.utils.data import TensorDataset
    >>> images = TensorDataset(torch.zeros(4, 3, 8, 8))
    >>> count_broken(images), count_broken(SkipUnreadable(images))
    ({}, {'unreadable': 0})
    """
    return {"unreadable": len(dataset.broken)} if isinstance(dataset, SkipUnreadable) else {}


def file_of(dataset: Any, index: int) -> Path:
    """The file of an image in a data set of photos, or in a subset of one.

    >>> from types import SimpleNamespace
    >>> from torch.utils.data import Subset
    >>> file_of(Subset(SimpleNamespace(files=[Path("a.jpg"), Path("b.jpg")]), [1]), 0).name
    'b.jpg'
    """
    if isinstance(dataset, Subset):
        return file_of(dataset.dataset, dataset.indices[index])
    return Path(dataset.file(index) if hasattr(dataset, "file") else dataset.files[index])
