"""The XML files with ImageNet's boxes, which Stanford Dogs uses too."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import torch
from torch import Tensor


def read_boxes(path: str | Path, size: tuple[int, int]) -> tuple[Tensor, list[str]]:
    """Boxes of an image, in pixels of the image as it is stored, and the names of the objects.

    ImageNet's XML counts pixels from 0 and names the last pixel of a box: 1 is added to the far corner. Some files were
    made for a copy of the image in another size, which they state; their boxes are scaled. Some corners lie beyond the
    border or on the wrong side of each other; boxes are clipped, and those without extent left out.

    Args:
        path: The XML file.
        size: Height and width of the image.

    Returns:
        float32 ``(n, 4)`` xyxy, and n names.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no XML, or a corner is no number.

    Example:
        >>> import tempfile
        >>> box = "<bndbox><xmin>2</xmin><ymin>1</ymin><xmax>5</xmax><ymax>3</ymax></bndbox>"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.xml"
        ...     _ = path.write_text(f"<annotation><object><name>n01440764</name>{box}</object></annotation>")
        ...     read_boxes(path, (6, 10))
        (tensor([[2., 1., 6., 4.]]), ['n01440764'])
    """
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is not XML: {error}") from None
    boxes, names = [], []
    for number, node in enumerate(root.iter("object"), start=1):
        texts = [node.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
        try:
            left, top, right, bottom = (float(text or "") for text in texts)
        except ValueError:
            raise ValueError(f"{path}: object {number} has the corners {texts}, expected 4 numbers") from None
        boxes.append([left, top, right + 1, bottom + 1])
        names.append((node.findtext("name") or "").strip())
    found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) * _scale(root, size)
    height, width = size
    found = found.clamp(min=0).minimum(torch.tensor([width, height, width, height], dtype=torch.float32))
    kept = ((found[:, 2:] > found[:, :2]).all(dim=1)).nonzero()[:, 0].tolist()
    return found[kept], [names[k] for k in kept]


def read_names(path: str | Path) -> list[str]:
    """Names of the objects in an XML file, in its order.

    Raises:
        ValueError: If it is no XML.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is not XML: {error}") from None
    return [(node.findtext("name") or "").strip() for node in root.iter("object")]


def _scale(root: ElementTree.Element, size: tuple[int, int]) -> Tensor:
    """From the size that the file states (0 or nothing: the image's own) to the image's."""
    stated = []
    for side, own in zip(("width", "height"), reversed(size), strict=True):
        text = root.findtext(f"size/{side}") or "0"
        stated.append(float(text) if text.replace(".", "", 1).isdigit() and float(text) > 0 else float(own))
    return torch.tensor([size[1] / stated[0], size[0] / stated[1]]).repeat(2)
