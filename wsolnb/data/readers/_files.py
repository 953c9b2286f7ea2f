"""What several readers share: text tables, XML files, and checks of files, class names and boxes."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_OVERSHOOT = 2.0  # pixels by which a box may leave its image and still count as rounded
Object = tuple[str, tuple[float, float, float, float], bool]  # name, corners as stated, difficult


def all_there(root: Path, names: Sequence[str], listed_in: Path) -> None:
    """Refuse a list of images of which some are missing; lists every folder once instead of testing every file."""
    folders = {os.path.dirname(name) for name in names}
    listed = {folder: set(os.listdir(root / folder)) for folder in folders if (root / folder).is_dir()}
    missing = [name for name in names if os.path.basename(name) not in listed.get(os.path.dirname(name), ())]
    if missing:
        raise FileNotFoundError(
            f"{root} lacks {len(missing)} of the {len(names)} images that {listed_in} lists, the first is {missing[0]}"
        )


def check_names(names: Sequence[str], known: Sequence[str], source: str) -> None:
    """Refuse a list of classes that is empty, repeats a name, or has a name that the source does not know."""
    if not names:
        raise ValueError(f"no classes left: the list of classes is empty, {source} has {len(known)}")
    if len(set(names)) < len(names):
        raise ValueError(f"every class may be named once, got {list(names)}")
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


def read_values(path: Path, size: tuple[int, int], *, mode: str | None, hint: str) -> Tensor:
    """The values of a segmentation file, (H, W), which must have the size of its image."""
    if not path.is_file():
        raise FileNotFoundError(f"no segmentation {path}{hint}")
    try:
        with Image.open(path) as file:
            values = torch.from_numpy(np.array(file.convert(mode) if mode else file))
    except OSError as error:
        raise ValueError(f"segmentation {path} does not decode: {error}") from None
    if values.shape != size:
        raise ValueError(f"{path} has {values.shape[1]} x {values.shape[0]} pixels, its image {size[1]} x {size[0]}")
    return values


def read_column(path: Path, columns: int = 2) -> dict[str, str]:
    """A text file with a key and a value (the rest of the line, `columns` - 1 words or more) in each line."""
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: expected a text file with {columns} columns")
    table = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        count = len(line.split())
        if count < columns:
            raise ValueError(f"{path}, line {number}: {line!r} has {count} columns, expected {columns}")
        key, value = line.strip().split(maxsplit=1)
        table[key] = value
    return table


def read_box_column(path: Path) -> dict[str, list[float]]:
    """A text file with the key of an image and four numbers in each line."""
    table = {}
    for key, value in read_column(path, columns=5).items():
        texts = value.split(maxsplit=3)
        try:
            table[key] = [float(text) for text in texts]
        except ValueError:
            raise ValueError(f"{path}: image {key} has the box {texts}, expected 4 numbers") from None
    return table


def parse_xml(path: str | Path) -> ElementTree.Element:
    """The root of an XML file; the file is named if it is no XML."""
    try:
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is not XML: {error}") from None


def xml_objects(path: str | Path, root: ElementTree.Element) -> list[Object]:
    """Objects of an annotation in VOC's or ImageNet's XML, in its order."""
    objects: list[Object] = []
    for number, node in enumerate(root.iter("object"), start=1):
        name = (node.findtext("name") or "").strip()
        texts = [node.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
        try:
            left, top, right, bottom = (float(text or "") for text in texts)
        except ValueError:
            raise ValueError(f"{path}: object {number} ({name}) has the corners {texts}, expected 4 numbers") from None
        difficult = (node.findtext("difficult") or "0").strip() == "1"
        objects.append((name, (left, top, right, bottom), difficult))
    return objects


def imagenet_boxes(path: str | Path, size: tuple[int, int]) -> tuple[Tensor, list[str]]:
    """Boxes of an image of ImageNet or Stanford Dogs, float32 (n, 4) xyxy in pixels as stored, and n names of objects.

    ImageNet's XML counts pixels from 0 and names the last pixel of a box: 1 is added to the far corner. Some files were
    made for a copy of the image in another size, which they state; their boxes are scaled. Some corners lie beyond the
    border or on the wrong side of each other; boxes are clipped, and those without extent left out.
    """
    root = parse_xml(path)
    objects = xml_objects(path, root)
    scale = []
    for side, pixels in zip(("width", "height"), reversed(size), strict=True):
        text = root.findtext(f"size/{side}") or "0"  # 0 or nothing: the size of the image itself
        stated = float(text) if text.replace(".", "", 1).isdigit() else 0.0
        scale.append(pixels / (stated or pixels))
    corners = [[left, top, right + 1, bottom + 1] for _, (left, top, right, bottom), _ in objects]
    boxes = torch.tensor(corners, dtype=torch.float32).reshape(-1, 4) * torch.tensor(scale).repeat(2)
    boxes = boxes.clamp(min=0).minimum(torch.tensor([*reversed(size)] * 2, dtype=torch.float32))
    kept = ((boxes[:, 2:] > boxes[:, :2]).all(dim=1)).nonzero()[:, 0].tolist()
    return boxes[kept], [objects[k][0] for k in kept]
