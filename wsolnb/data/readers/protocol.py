"""The field's metadata files: which images, of which class and size, and where the objects are.

A split is a folder of text files (layout of ``clovaai/wsolevaluation``): ``image_ids.txt`` (one path per line),
``class_labels.txt`` (``path,class``), ``image_sizes.txt`` (``path,width,height``) and ``localization.txt``, which has
either boxes (``path,x0,y0,x1,y1``) or masks (``path,mask,ignore``, ignore regions on an image's first line only), with
several lines per image where it shows several objects. Splits without annotations leave files empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor


@dataclass(frozen=True)
class ProtocolSplit:
    """One split, its images in the order of ``image_ids.txt``.

    Attributes:
        image_ids: Paths of the images below the data root.
        labels: Class of each image, int64 ``(n,)``.
        sizes: Height and width of each image, int64 ``(n, 2)``; None if the files do not say.
        boxes: Boxes of each image as they stand in the file: int64 ``(n_i, 4)`` xyxy in pixels of the image, far
            corners read as INCLUSIVE; None if there are none.
        masks: Paths of each image's masks below the mask root; None if there are none.
        ignore: Path of each image's ignore region, empty where it has none; None without masks.
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

    Args:
        folder: Folder with ``image_ids.txt``, ``class_labels.txt`` and, where known, the other two files.

    Returns:
        The split.

    Raises:
        FileNotFoundError: If the folder lacks ``image_ids.txt`` or ``class_labels.txt``.
        ValueError: If a row does not parse, names an unknown image, lists an image twice or holds an impossible value
            (file and line are named), or if a file that is not empty leaves images out.

    Example:
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
    sizes = _whole_numbers(folder / "image_sizes.txt", ids, ("width", "height"), lowest=1)
    assert labels is not None
    boxes, masks, ignore = _localization(folder / "localization.txt", ids)
    return ProtocolSplit(
        image_ids=tuple(ids),
        labels=labels[:, 0],
        sizes=None if sizes is None else sizes.flip(1),
        boxes=boxes,
        masks=masks,
        ignore=ignore,
    )


def write_split(split: ProtocolSplit, folder: str | Path) -> None:
    """Write the metadata of one split, in the layout that :func:`read_split` reads.

    Raises:
        ValueError: If the split's parts are not one per image, or it has both boxes and masks.

    Example:
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
        rows += [(ids[number], [mask, "" if at else ignore]) for at, mask in enumerate(masks)]
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


def scaled_boxes(boxes: Tensor, size: tuple[int, int], frame: tuple[int, int]) -> Tensor:
    """Boxes in the frame in which maps are scored: scaled, then truncated to whole pixels, as the protocol does.

    Args:
        boxes: ``(n, 4)`` xyxy, pixels of the image.
        size: Height and width of the image.
        frame: Height and width of the map (224 and 224 in the protocol).

    Returns:
        int64 ``(n, 4)``.

    Example:
        >>> scaled_boxes(torch.tensor([[60, 27, 385, 331]]), (335, 500), (224, 224))
        tensor([[ 26,  18, 172, 221]])
    """
    to = torch.tensor([frame[1], frame[0]] * 2, dtype=torch.float64)
    return (boxes.double() * to / torch.tensor([size[1], size[0]] * 2, dtype=torch.float64)).long()


def load_masks(split: ProtocolSplit, index: int, root: str | Path, frame: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Foreground and ignore region of one image, brought to the size of its map by nearest neighbours.

    Args:
        split: A split with masks.
        index: Number of the image.
        root: Folder below which the mask files lie.
        frame: Height and width of the map.

    Returns:
        The union of all instances, and the ignore region without them; bool ``(H, W)`` each.

    Raises:
        FileNotFoundError: If a mask file is missing.
        ValueError: If the split has no masks or a file is no image.

    Example:
        >>> import tempfile
        >>> split = ProtocolSplit(("1.jpg",), torch.tensor([0]), masks=(("1.png",),), ignore=("",))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (2, 1), 255).save(Path(folder) / "1.png")
        ...     load_masks(split, 0, folder, (1, 4))
        (tensor([[True, True, True, True]]), tensor([[False, False, False, False]]))
    """
    if split.masks is None or split.ignore is None:
        raise ValueError("this split has no masks: localization.txt is empty or holds boxes")
    foreground = torch.zeros(frame, dtype=torch.bool)
    for path in split.masks[index]:
        foreground |= read_mask(Path(root) / path, frame)
    if not split.ignore[index]:
        return foreground, torch.zeros(frame, dtype=torch.bool)
    return foreground, read_mask(Path(root) / split.ignore[index], frame) & ~foreground


def read_mask(path: Path, frame: tuple[int, int]) -> Tensor:
    """Where a mask file is not black, bool ``(H, W)``, brought to a frame by nearest neighbours.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no image.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.fromarray(np.array([[0, 9]], dtype=np.uint8)).save(Path(folder) / "1.png")
        ...     read_mask(Path(folder) / "1.png", (1, 4))
        tensor([[False, False,  True,  True]])
    """
    if not path.is_file():
        raise FileNotFoundError(f"no mask at {path}: is the mask root right?")
    try:
        with Image.open(path) as image:
            values = np.asarray(image.convert("L"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"mask {path} does not decode: {error}") from None
    rows, columns = (_nearest(old, new) for old, new in zip(values.shape, frame, strict=True))
    return torch.from_numpy(values[np.ix_(rows, columns)] > 0)


def _nearest(old: int, new: int) -> np.ndarray:
    """Source index of each target index, with OpenCV's rounding (no half-pixel shift)."""
    return np.minimum(np.floor(np.arange(new) * (1.0 / (new / old))).astype(int), old - 1)


def _lines(path: Path, *, required: bool = False) -> list[str]:
    if not path.is_file():
        if required:
            raise FileNotFoundError(f"no {path.name} in {path.parent}: is this the folder of one split?")
        return []
    return path.read_text(encoding="utf-8").rstrip("\n").splitlines()


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
    return ids


def _whole_numbers(
    path: Path, ids: dict[str, int], columns: Sequence[str], *, lowest: int, required: bool = False
) -> Tensor | None:
    """One row of whole numbers per image; None for a file that is missing or empty."""
    lines = _lines(path, required=required)
    if not lines and not required:
        return None
    table: list[list[int] | None] = [None] * len(ids)
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        image, *fields = line.rsplit(",", len(columns))
        values = _parse(fields, len(columns), where, line, f"path,{','.join(columns)}")
        index = _index(image, ids, where)
        if min(values) < lowest:
            raise ValueError(f"{where}: {columns[int(np.argmin(values))]} {min(values)} of {image!r} is below {lowest}")
        if table[index] is not None:
            raise ValueError(f"{where}: image {image!r} is listed twice")
        table[index] = values
    _complete([row is not None for row in table], ids, path)
    return torch.tensor(table, dtype=torch.int64)


def _localization(
    path: Path, ids: dict[str, int]
) -> tuple[tuple[Tensor, ...] | None, tuple[tuple[str, ...], ...] | None, tuple[str, ...] | None]:
    lines = _lines(path)
    if not lines:
        return None, None, None
    has_boxes = len(lines[0].split(",")) >= 5
    boxes: list[list[list[int]]] = [[] for _ in ids]
    masks: list[list[str]] = [[] for _ in ids]
    ignore = [""] * len(ids)
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        image, *fields = line.rsplit(",", 4 if has_boxes else 2)
        if has_boxes:
            x0, y0, x1, y1 = _parse(fields, 4, where, line, "path,x0,y0,x1,y1")
            index = _index(image, ids, where)
            if x1 < x0 or y1 < y0 or min(x0, y0) < 0:
                raise ValueError(f"{where}: box {x0},{y0},{x1},{y1} of {image!r} has negative size or position")
            boxes[index].append([x0, y0, x1, y1])
            continue
        if len(fields) != 2 or not fields[0]:
            raise ValueError(f"{where}: {line!r} does not parse, expected path,mask,ignore or path,x0,y0,x1,y1")
        index = _index(image, ids, where)
        if fields[1] and masks[index]:
            raise ValueError(f"{where}: the ignore region of {image!r} must stand on its first line only")
        masks[index].append(fields[0])
        ignore[index] = ignore[index] or fields[1]
    _complete([bool(row) for row in (boxes if has_boxes else masks)], ids, path)
    if has_boxes:
        return tuple(torch.tensor(rows, dtype=torch.int64) for rows in boxes), None, None
    return None, tuple(map(tuple, masks)), tuple(ignore)


def _parse(fields: list[str], count: int, where: str, line: str, wanted: str) -> list[int]:
    try:
        values = [int(field) for field in fields]
    except ValueError:
        values = []
    if len(values) != count:
        raise ValueError(f"{where}: {line!r} does not parse, expected {wanted} with whole numbers")
    return values


def _index(image: str, ids: dict[str, int], where: str) -> int:
    if image not in ids:
        raise ValueError(f"{where}: image {image!r} is not in image_ids.txt")
    return ids[image]


def _complete(known: list[bool], ids: dict[str, int], path: Path) -> None:
    missing = [image for image, index in ids.items() if not known[index]]
    if missing:
        raise ValueError(f"{path} has no row for {len(missing)} of {len(ids)} images, the first is {missing[0]!r}")
