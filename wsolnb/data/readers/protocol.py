"""The field's metadata files: images, their classes and sizes, and their boxes or masks.

A split is a folder of text files (layout of ``clovaai/wsolevaluation``): ``image_ids.txt`` (one path per line),
``class_labels.txt`` (``path,class``), ``image_sizes.txt`` (``path,width,height``) and ``localization.txt``, which has
either boxes (``path,x0,y0,x1,y1``) or masks (``path,mask,ignore``, ignore regions on an image's first line only), with
several lines per image where it shows several objects. Splits without annotations leave files empty.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wsolnb._utils.text import read_lines

_CLASSES = 1_000_000
_DIGITS = 18  # what surely fits into 64 bits
_LAYOUTS = "path,mask,ignore or path,x0,y0,x1,y1"


@dataclass(frozen=True)
class ProtocolSplit:
    """One split, its images in the order of ``image_ids.txt``.

    Attributes:
        image_ids: Paths of the images below the data root.
        labels: Class of each image, int64 ``(n,)``.
        sizes: Height and width of each image, int64 ``(n, 2)``, or None.
        boxes: Boxes of each image as in the file, or None: int64 ``(n_i, 4)`` xyxy in pixels of the image, far corners
            INCLUSIVE.
        masks: Paths of each image's masks below the mask root, or None.
        ignore: Path of each image's ignore region, empty if it has none; None without masks.
    """

    image_ids: tuple[str, ...]
    labels: Tensor
    sizes: Tensor | None = None
    boxes: tuple[Tensor, ...] | None = None
    masks: tuple[tuple[str, ...], ...] | None = None
    ignore: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.image_ids)


def read_split(folder: str | Path) -> ProtocolSplit:
    """Read the metadata of one split.

    Raises:
        FileNotFoundError: If the folder lacks ``image_ids.txt`` or ``class_labels.txt``; the other files are optional.
        ValueError: If a row does not parse, names an unknown image, repeats an image or has an impossible value (such
            as a box that leaves its image), or if a file that is not empty leaves images out.

    >>> import tempfile
    >>> split = ProtocolSplit(("a/1.jpg",), torch.tensor([3]), boxes=(torch.tensor([[1, 2, 7, 5]]),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_split(split, folder)
    ...     read_split(folder).boxes
    (tensor([[1, 2, 7, 5]]),)
    """
    folder = Path(folder)
    ids = _ids(folder / "image_ids.txt")
    labels = _whole_numbers(folder / "class_labels.txt", ids, ("class",), lowest=0, required=True)
    if labels is not None and int(labels.max()) >= _CLASSES:
        image, path = list(ids)[int(labels[:, 0].argmax())], folder / "class_labels.txt"
        raise ValueError(f"{path}: class {int(labels.max())} of {image!r} is above {_CLASSES - 1}")
    sizes = _whole_numbers(folder / "image_sizes.txt", ids, ("width", "height"), lowest=1)
    assert labels is not None
    boxes, masks, ignore = _localization(folder / "localization.txt", ids, sizes)
    return ProtocolSplit(tuple(ids), labels[:, 0], None if sizes is None else sizes.flip(1), boxes, masks, ignore)


def write_split(split: ProtocolSplit, folder: str | Path) -> None:
    """Write the metadata of one split for :func:`read_split`.

    Raises:
        ValueError: If a part of the split does not have one entry per image, or it has both boxes and masks.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_split(ProtocolSplit(("a/1.jpg",), torch.tensor([3])), folder)
    ...     (Path(folder) / "class_labels.txt").read_text()
    'a/1.jpg,3'
    """
    for name in ("labels", "sizes", "boxes", "masks", "ignore"):
        part = getattr(split, name)
        if part is not None and len(part) != len(split):
            raise ValueError(f"the split has {len(split)} images but {len(part)} {name}: there must be one per image")
    if split.boxes is not None and split.masks is not None:
        raise ValueError("localization.txt holds boxes or masks, not both: write two splits")
    ids = split.image_ids
    sizes = [] if split.sizes is None else split.sizes.flip(1).tolist()
    rows = [(image, box) for image, boxes in zip(ids, split.boxes or (), strict=False) for box in boxes.tolist()]
    for number, masks in enumerate(split.masks or ()):
        ignore = split.ignore[number] if split.ignore is not None else ""
        rows += [(ids[number], [mask, "" if k else ignore]) for k, mask in enumerate(masks)]
    files = {
        "image_ids.txt": [(image, []) for image in ids],
        "class_labels.txt": [(image, [label]) for image, label in zip(ids, split.labels.tolist(), strict=True)],
        "image_sizes.txt": list(zip(ids, sizes, strict=True)) if sizes else [],
        "localization.txt": rows,
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        text = "\n".join(",".join(map(str, (image, *values))) for image, values in lines)
        (Path(folder) / name).write_text(text, encoding="utf-8")


def scaled_boxes(boxes: Tensor, size: tuple[int, int], image_size: tuple[int, int]) -> Tensor:
    """Boxes scaled to the size at which maps are evaluated and truncated to whole pixels, as in the protocol.

    Args:
        boxes: ``(n, 4)`` xyxy, pixels of the image; the result is int64.
        size: Height and width of the image.
        image_size: Height and width of the map (224 and 224 in the protocol).

    >>> scaled_boxes(torch.tensor([[60, 27, 385, 331]]), (335, 500), (224, 224))
    tensor([[ 26,  18, 172, 221]])
    """
    target = torch.tensor([image_size[1], image_size[0]] * 2, dtype=torch.float64)
    return (boxes.double() * target / torch.tensor([size[1], size[0]] * 2, dtype=torch.float64)).long()


def load_masks(
    split: ProtocolSplit, index: int, root: str | Path, image_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Foreground and ignore region of one image, resized to its map by nearest neighbours.

    Returns:
        The union of all instances, and the ignore region without them; bool ``(H, W)`` each, as `image_size` says.

    Raises:
        FileNotFoundError: If a mask file is missing.
        ValueError: If the split has no masks or a file is no image.

    >>> import tempfile
    >>> split = ProtocolSplit(("1.jpg",), torch.tensor([0]), masks=(("1.png",),), ignore=("",))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (2, 1), 255).save(Path(folder) / "1.png")
    ...     load_masks(split, 0, folder, (1, 4))
    (tensor([[True, True, True, True]]), tensor([[False, False, False, False]]))
    """
    if split.masks is None or split.ignore is None:
        raise ValueError("this split has no masks: localization.txt is empty or holds boxes")
    return read_union(Path(root), split.masks[index], split.ignore[index], image_size)


def read_union(root: Path, masks: Sequence[str], ignore: str, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Union of mask files, and an ignore region (a file or "") without it; as for `load_masks`.

    >>> read_union(Path(), [], "", (1, 2))
    (tensor([[False, False]]), tensor([[False, False]]))
    """
    union = torch.zeros(image_size, dtype=torch.bool)
    for name in masks:
        union |= _read_mask(root / name, image_size)
    return union, _read_mask(root / ignore, image_size) & ~union if ignore else torch.zeros_like(union)


def _read_mask(path: Path, image_size: tuple[int, int]) -> Tensor:
    """Pixels of a mask file that are neither black nor transparent, bool ``(H, W)``, resized by nearest neighbours."""
    if not path.is_file():
        raise FileNotFoundError(f"no mask at {path}: is the mask root right?")
    try:
        with Image.open(path) as image:
            if image.mode in ("1", "L") and "transparency" not in image.info:
                pixels = np.asarray(image) > 0
            elif image.mode[0] in "IF":
                pixels = np.asarray(image) != 0
            else:
                colours = np.asarray(image.convert("RGBA"))
                pixels = (colours[..., :3] > 0).any(-1) & (colours[..., 3] > 0)
    except Exception as error:  # of a damaged file, Pillow's decoders raise almost anything
        raise ValueError(f"mask {path} does not decode: {error}") from None
    rows, columns = (_nearest(old, new) for old, new in zip(pixels.shape, image_size, strict=True))
    return torch.from_numpy(pixels[np.ix_(rows, columns)])


def _nearest(old: int, new: int) -> np.ndarray:
    """Source index of each target index, with OpenCV's rounding (no half-pixel shift)."""
    return np.minimum(np.floor(np.arange(new) * (1.0 / (new / old))).astype(int), old - 1)


def _lines(path: Path, *, required: bool = False) -> list[str]:
    if not path.is_file():
        if required:
            raise FileNotFoundError(f"no {path.name} in {path.parent}: is this the folder of one split?")
        return []
    return read_lines(path)


def _ids(path: Path) -> dict[str, int]:
    ids: dict[str, int] = {}
    for number, line in enumerate(_lines(path, required=True), start=1):
        if not line.strip():
            raise ValueError(f"{path}, line {number}: empty, expected the path of an image")
        if line in ids:
            raise ValueError(f"{path}, line {number}: image {line!r} is listed twice, first in line {ids[line] + 1}")
        ids[line] = number - 1
    if not ids:
        raise ValueError(f"{path} lists no image")
    if any("./" in line or "//" in line for line in ids):
        files: dict[str, str] = {}
        for line in ids:
            if (other := files.setdefault(os.path.normpath(line), line)) != line:
                raise ValueError(f"{path}: {other!r} and {line!r} are one image: list every image once")
    return ids


def _rows(
    path: Path, lines: list[str], ids: dict[str, int], count: int, layout: str
) -> Iterator[tuple[int, str, list[str]]]:
    """Number, image and `count` fields of every line."""
    for number, line in enumerate(lines, start=1):
        image, *fields = line.rsplit(",", count)
        if len(fields) != count:
            raise ValueError(f"{path}, line {number}: {line!r} does not parse, expected {layout}")
        if image not in ids:
            raise ValueError(f"{path}, line {number}: image {image!r} is not in image_ids.txt")
        yield number, image, fields


def _whole_numbers(
    path: Path, ids: dict[str, int], columns: Sequence[str], *, lowest: int, required: bool = False
) -> Tensor | None:
    """One row of whole numbers per image; None for a file that is missing or empty."""
    lines = _lines(path, required=required)
    if not lines and not required:
        return None
    table: dict[str, list[int]] = {}
    for number, image, fields in _rows(path, lines, ids, len(columns), f"path,{','.join(columns)}"):
        values = _integers(fields, path, number, image)
        if min(values) < lowest:
            name = columns[int(np.argmin(values))]
            raise ValueError(f"{path}, line {number}: {name} {min(values)} of {image!r} is below {lowest}")
        if image in table:
            raise ValueError(f"{path}, line {number}: image {image!r} is listed twice")
        table[image] = values
    _check_complete(table, ids, path)
    return torch.tensor([table[image] for image in ids], dtype=torch.int64)


def _localization(
    path: Path, ids: dict[str, int], sizes: Tensor | None
) -> tuple[tuple[Tensor, ...] | None, tuple[tuple[str, ...], ...] | None, tuple[str, ...] | None]:
    """Boxes, or masks and ignore regions, of all images."""
    lines = _lines(path)
    if not lines:
        return None, None, None
    if len(lines[0].split(",")) >= 5:
        known = [] if sizes is None else sizes.tolist()
        boxes: dict[str, list[list[int]]] = {}
        for number, image, fields in _rows(path, lines, ids, 4, "path,x0,y0,x1,y1"):
            x0, y0, x1, y1 = _integers(fields, path, number, image)
            if x1 < x0 or y1 < y0 or min(x0, y0) < 0:
                raise ValueError(
                    f"{path}, line {number}: box {x0},{y0},{x1},{y1} of {image!r} has negative size or position"
                )
            if sizes is not None and (x1 > (stated := known[ids[image]])[0] or y1 > stated[1]):
                raise ValueError(
                    f"{path}, line {number}: box {x0},{y0},{x1},{y1} of {image!r} leaves its image, which has "
                    f"{stated[0]} x {stated[1]} pixels in image_sizes.txt: do width and height change places?"
                )
            boxes.setdefault(image, []).append([x0, y0, x1, y1])
        _check_complete(boxes, ids, path)
        return tuple(torch.tensor(boxes[image], dtype=torch.int64) for image in ids), None, None
    masks: dict[str, list[str]] = {}
    ignore = dict.fromkeys(ids, "")
    for number, image, (mask, ignored) in _rows(path, lines, ids, 2, _LAYOUTS):
        if not mask:
            raise ValueError(f"{path}, line {number}: image {image!r} has no mask, expected {_LAYOUTS}")
        if ignored and image in masks:
            raise ValueError(f"{path}, line {number}: the ignore region of {image!r} must stand on its first line only")
        masks.setdefault(image, []).append(mask)
        ignore[image] = ignore[image] or ignored
    _check_complete(masks, ids, path)
    return None, tuple(tuple(masks[image]) for image in ids), tuple(ignore.values())


def _integers(fields: list[str], path: Path, number: int, image: str) -> list[int]:
    try:
        if max(map(len, fields)) > _DIGITS:
            raise ValueError
        return [int(field) for field in fields]
    except ValueError:
        line = ",".join([image, *fields])
        expected = f"whole numbers of up to {_DIGITS} digits after the path"
        raise ValueError(f"{path}, line {number}: {line!r} does not parse, expected {expected}") from None


def _check_complete(table: Collection[str], ids: dict[str, int], path: Path) -> None:
    if missing := [image for image in ids if image not in table]:
        raise ValueError(f"{path} has no row for {len(missing)} of {len(ids)} images, the first is {missing[0]!r}")
