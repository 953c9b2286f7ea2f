"""What several readers share: text tables, XML files, and checks of files, class names, sizes and boxes."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wsolnb._utils.text import read_lines
from wsolnb.data.readers.images import to_rgb

_OVERSHOOT = 2.0  # pixels by which a box may leave its image and still count as rounded
_FLAGS = {"1": True, "true": True, "yes": True} | dict.fromkeys(("0", "false", "no", "unspecified", ""), False)
Object = tuple[str, tuple[float, float, float, float], bool]  # name, corners as stated, difficult


def all_there(root: Path, names: Sequence[str], listed_in: Path) -> None:
    """Refuse a list of images that names one twice, or of which some are missing; lists every folder once."""
    odd = any("./" in name or "//" in name for name in names)
    files = [os.path.normpath(name) for name in names] if odd else names
    if len(set(files)) < len(files):
        first: dict[str, str] = {}
        for file, name in zip(files, names, strict=True):
            if file in first:
                also = "" if first[file] == name else f", also as {first[file]!r}"
                raise ValueError(f"{listed_in} lists the image {name!r} twice{also}: name every image once")
            first[file] = name
    folders = {os.path.dirname(name) for name in names}
    listed = {folder: set(os.listdir(root / folder)) for folder in folders if os.path.isdir(root / folder)}
    missing = [name for name in names if os.path.basename(name) not in listed.get(os.path.dirname(name), ())]
    if missing:
        raise FileNotFoundError(
            f"{root} lacks {len(missing)} of the {len(names)} images that {listed_in} lists, "
            f"the first is {missing[0]!r}"
        )


def check_names(names: Sequence[str], known: Sequence[str], source: str) -> None:
    """Refuse a list of classes that is empty, repeats a name, or has a name that the source does not know."""
    if not names:
        raise ValueError(f"no classes left: the list of classes is empty, {source} has {len(known)}")
    if len(set(names)) < len(names):
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise ValueError(f"{source}: every class may be named once, {twice!r} comes twice")
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3) or list(known[:5])
            raise ValueError(f"{source} has no class {name!r} among its {len(known)}; the closest are {close}")


def checked_boxes(boxes: np.ndarray, sizes: np.ndarray, name: Callable[[int], str]) -> np.ndarray:
    """Boxes, (N, 4) xyxy, as float32; refuses impossible ones and clips those that leave their image by 2 px at most.

    Row k of `sizes` is the height and width of box k's image, `name(k)` its file and annotation. Boxes without extent
    in one direction (COCO has a few) are kept.
    """
    far = sizes[:, [1, 0, 1, 0]].astype(np.float64)
    wrong = {
        "has a coordinate that is no number": ~np.isfinite(boxes).all(1),
        "ends before it begins": (boxes[:, 2:] < boxes[:, :2]).any(1),
        "lies outside its image": ((boxes < -_OVERSHOOT) | (boxes > far + _OVERSHOOT)).any(1),
    }
    for problem, rows in wrong.items():
        if rows.any():
            k = int(rows.argmax())
            box = [round(x, 2) for x in boxes[k].tolist()]
            raise ValueError(
                f"{name(k)}: box {box} (left, top, right, bottom) {problem}; the image has {sizes[k, 1]} x "
                f"{sizes[k, 0]} pixels; correct the annotation"
            )
    return np.clip(boxes, 0, far).astype(np.float32)


def read_values(path: Path, size: tuple[int, int], *, numbers: bool, hint: str) -> Tensor:
    """The values of a segmentation file, (H, W), which must have the size of its image.

    With `numbers` they are those of objects, as stored in a palette or grey image, else grey values of 8 bits.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no segmentation {path}{hint}")
    try:
        with Image.open(path) as file:
            if numbers and len(file.getbands()) > 1:
                raise ValueError(f"it has the colours {file.mode}, expected numbers of objects in a palette or in grey")
            plain = file if numbers else (to_rgb(file) if file.mode[0] in "IF" else file).convert("L")
            values = torch.from_numpy(np.array(plain))
    except Exception as error:  # of a damaged file, Pillow's decoders raise almost anything
        raise ValueError(f"segmentation {path} does not decode: {error}") from None
    if values.shape != size:
        raise ValueError(f"{path} has {values.shape[1]} x {values.shape[0]} pixels, its image {size[1]} x {size[0]}")
    return values


def read_column(path: Path, columns: int = 2) -> dict[str, str]:
    """A text file with a key and a value (the rest of the line, `columns` - 1 words or more) in each line."""
    return {key: value for _, key, value in _columns(path, columns)}


def _columns(path: Path, columns: int) -> Iterator[tuple[int, str, str]]:
    """Number, key and value of every line; no key may come twice."""
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: expected a text file with {columns} columns")
    seen: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        count = len(line.split())
        if count < columns:
            raise ValueError(f"{path}, line {number}: {line!r} has {count} columns, expected {columns}")
        key, value = line.strip().split(maxsplit=1)
        if key in seen:
            raise ValueError(f"{path}, line {number}: {key!r} stands there twice, first in line {seen[key]}")
        seen[key] = number
        yield number, key, value


def read_box_column(path: Path) -> dict[str, list[float]]:
    """A text file with the key of an image and four numbers in each line."""
    table = {}
    for number, key, value in _columns(path, 5):
        texts = value.split()
        try:
            table[key] = [float(text) for text in texts]
        except ValueError:
            table[key] = []
        if len(table[key]) != 4 or not all(map(math.isfinite, table[key])):
            raise ValueError(f"{path}, line {number}: image {key} has the box {texts}, expected 4 numbers")
    return table


def parse_xml(path: str | Path) -> ElementTree.Element:
    """The root of an XML file of annotations, in any encoding that Python knows, without namespaces."""
    try:
        try:
            root = ElementTree.parse(path).getroot()
        except ElementTree.ParseError:
            raise
        except (ValueError, LookupError):  # an encoding that the parser lacks, such as those with several bytes
            root = _decoded_xml(Path(path).read_bytes())
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"{path} is not XML: {error}") from None
    if "}" in root.tag:
        for node in root.iter():
            node.tag = node.tag.rpartition("}")[2]
    if root.tag != "annotation":
        raise ValueError(f"{path} holds <{root.tag}>, expected <annotation>: is it another kind of XML?")
    return root


def _decoded_xml(data: bytes) -> ElementTree.Element:
    declared = re.match(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([\w.:-]+)[^>]*\?>", data)
    if declared is None:
        raise ValueError("its encoding is not known")
    name = declared[1].decode().lower()
    encoding = "gb18030" if name in ("gb2312", "gbk") else name  # which the other two are part of
    return ElementTree.fromstring(data[declared.end() :].decode(encoding))


def xml_objects(path: str | Path, root: ElementTree.Element) -> list[Object]:
    """Objects of an annotation in VOC's or ImageNet's XML, in its order."""
    objects: list[Object] = []
    for number, node in enumerate(root.iter("object"), start=1):
        name = (node.findtext("name") or "").strip()
        box = node.find("bndbox")
        texts = [None if box is None else box.findtext(corner) for corner in ("xmin", "ymin", "xmax", "ymax")]
        try:
            left, top, right, bottom = (float(text or "") for text in texts)
        except ValueError:
            left = top = right = bottom = math.nan
        if not math.isfinite(left + top + right + bottom):
            raise ValueError(f"{path}: object {number} ({name}) has the corners {texts}, expected 4 numbers")
        flag = node.findtext("difficult") or ""
        difficult = _FLAGS.get(flag.strip().lower())
        if difficult is None:
            raise ValueError(f"{path}: object {number} ({name}) is marked as difficult {flag!r}, expected 0 or 1")
        objects.append((name, (left, top, right, bottom), difficult))
    return objects


def stated_size(path: str | Path, root: ElementTree.Element) -> tuple[int, int] | None:
    """Height and width that an annotation states for its image; None where one is missing or not positive."""
    texts = [root.findtext(f"size/{side}") or "0" for side in ("height", "width")]
    try:
        height, width = (float(text) for text in texts)
        if not (height.is_integer() and width.is_integer()):
            raise ValueError
    except ValueError:
        raise ValueError(f"{path}: the image's height and width are {texts}, expected 2 numbers") from None
    return (int(height), int(width)) if height > 0 and width > 0 else None


def stretch(stated: tuple[int, int], size: tuple[int, int], source: str) -> tuple[float, float]:
    """Vertical and horizontal factor from the size (height, width) that `source` states for an image to its own.

    An image that was resized keeps its shape, up to rounding of its sides. Another shape is refused: it is the stated
    one turned, or that of another image.

    >>> stretch((60, 100), (30, 50), "sizes.txt")
    (0.5, 0.5)
    """
    for (height, width), (rows, columns) in ((stated, size), (size, stated)):
        if (columns - 1) * height < (rows + 1) * width and (rows - 1) * width < (columns + 1) * height:
            return size[0] / stated[0], size[1] / stated[1]
    turned = "; width and height change places" if size == stated[::-1] else ""
    raise ValueError(
        f"{source} states {stated[1]} x {stated[0]} pixels, the image has {size[1]} x {size[0]}, another shape"
        f"{turned}: correct the size, or give the image as it is stored, without EXIF rotation"
    )


def imagenet_boxes(path: str | Path, size: tuple[int, int]) -> tuple[Tensor, list[str]]:
    """Boxes of an image of ImageNet or Stanford Dogs, float32 (n, 4) xyxy in pixels as stored, and n names of objects.

    ImageNet's XML counts pixels from 0 and names the last pixel of a box: 1 is added to the far corner. Some files were
    made for a copy of the image in another size, which they state; their boxes are scaled. Some corners lie beyond the
    border or on the wrong side of each other; boxes are clipped, and those without extent left out. A corner that lies
    beyond by more than the image's own size is refused.
    """
    root = parse_xml(path)
    objects = xml_objects(path, root)
    height, width = stated = stated_size(path, root) or size
    rows, columns = stretch(stated, size, str(path))
    corners = np.array([[x0, y0, x1 + 1, y1 + 1] for _, (x0, y0, x1, y1), _ in objects], np.float64).reshape(-1, 4)
    far = np.array([width, height] * 2)
    if (wrong := ((corners < -far) | (corners > 2 * far)).any(1)).any():
        k = int(wrong.argmax())
        raise ValueError(
            f"{path}: object {k + 1} ({objects[k][0]}) has the corners {objects[k][1]}, far outside its image of "
            f"{width} x {height} pixels: correct the annotation"
        )
    boxes = torch.from_numpy(corners).float() * torch.tensor([columns, rows] * 2)
    boxes = boxes.clamp(min=0).minimum(torch.tensor([*reversed(size)] * 2, dtype=torch.float32))
    kept = ((boxes[:, 2:] > boxes[:, :2]).all(dim=1)).nonzero()[:, 0].tolist()
    return boxes[kept], [objects[k][0] for k in kept]
