"""Boxes of photos as annotation tools and trainers read them: COCO, YOLO, Pascal VOC, Label Studio, CSV.

Boxes are read and written a few photos at a time, so that memory does not grow with the number of photos.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
import yaml

from wsolnb._utils.files import write_atomic
from wsolnb.inference.photo_files import open_photo, unique_stems

_CHUNK = 64  # photos whose boxes are handed to supervision at once
_READ_BY_ALL = (".jpg", ".jpeg", ".png", ".webp", ".bmp")  # by OpenCV, too, and turned as EXIF data say


@dataclass(frozen=True)
class FoundBoxes:
    """Boxes to export.

    Args:
        root: Folder of the photos.
        classes: Names of all classes.
        made_by: Network and method.
        read: Gives the photos anew with each call: `id` from 1, `photo` (path below the root), `width`, `height` and
            `boxes`, each with `label` (an index), `box` (xyxy in pixels, far corner exclusive) and `score`.
    """

    root: Path
    classes: Sequence[str]
    made_by: str
    read: Callable[[], Iterator[Mapping[str, Any]]]

    @property
    def names(self) -> list[str]:
        """Names of all classes, with the number of the class after one that several share."""
        counts = Counter(self.classes)
        return [name if counts[name] == 1 else f"{name} ({k})" for k, name in enumerate(self.classes)]


def require_formats(formats: Sequence[str]) -> None:
    """Refuse formats that are not known, or need a package that is not installed.

    Raises:
        ValueError: Which one, and what to do.

    Example:
        >>> require_formats(["coco", "excel"])
        Traceback (most recent call last):
        ValueError: no format 'excel': choose among coco, yolo, voc, label-studio, csv
    """
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"no format {name!r}: choose among {', '.join(FORMATS)}")
        if name in ("yolo", "voc"):
            try:
                import supervision  # noqa: F401
            except ModuleNotFoundError:
                raise ValueError(
                    f"format {name!r} needs the package supervision: pip install 'wsolnb[export]'"
                ) from None


def export(found: FoundBoxes, folder: Path, formats: Sequence[str]) -> dict[str, Path]:
    """Write boxes into a folder, in each format.

    - ``coco``: `coco.json` with images, categories and annotations, `score` being a field of its own; category ids are
      those of the classes plus one, as COCO's begin with 1, and some tools keep 0 for the background.
    - ``yolo``: `yolo/` with `images/`, `labels/` and `data.yaml`; both its splits are all photos.
    - ``voc``: `voc/` with `JPEGImages/` and `Annotations/`.
    - ``label-studio``: `label-studio.json`, tasks with predictions, and the labelling interface that they belong to,
      `label-studio.xml`. Photos are served from disk: `LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT` is the folder above the
      photos' folder.
    - ``csv``: `boxes.csv`, a row per box.

    `yolo` and `voc` have copies of all photos in a single folder; what is not JPEG, PNG, WebP or BMP becomes PNG. Their
    boxes are rounded by supervision, which writes them: to 5 digits of the photo's sides, and to whole pixels.

    Returns:
        What to open, by format.

    Raises:
        ValueError: As `require_formats`.
        OSError: Something cannot be written.

    Example:
        >>> import tempfile
        >>> row = {"label": 1, "box": [2.0, 1.0, 6.0, 4.0], "score": 0.75}
        >>> photo = {"id": 1, "photo": "cats/1.jpg", "width": 8, "height": 6, "boxes": [row]}
        >>> found = FoundBoxes(Path("photos"), ["dog", "cat"], "resnet50, cam", lambda: iter([photo]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = export(found, Path(folder), ["coco"])["coco"]
        ...     json.loads(path.read_text())["annotations"]  # doctest: +ELLIPSIS
        [{'id': 1, 'image_id': 1, 'category_id': 2, 'bbox': [2.0, 1.0, 4.0, 3.0], 'area': 12.0, ...
    """
    require_formats(formats)
    return {name: FORMATS[name](found, folder) for name in dict.fromkeys(formats)}


def _coco(found: FoundBoxes, folder: Path) -> Path:
    def images() -> Iterator[str]:
        for photo in found.read():
            size = {"width": photo["width"], "height": photo["height"]}
            yield json.dumps({"id": photo["id"], "file_name": photo["photo"], **size})

    def annotations() -> Iterator[str]:
        number = 0
        for photo in found.read():
            for each in photo["boxes"]:
                number += 1
                left, top, width, height = _corner_and_size(each["box"])
                row = {"id": number, "image_id": photo["id"], "category_id": each["label"] + 1}
                row |= {"bbox": [left, top, width, height], "area": round(width * height, 2), "iscrowd": 0}
                yield json.dumps(row | {"score": each["score"]})

    categories = [json.dumps({"id": k, "name": name}) for k, name in enumerate(found.names, start=1)]
    parts = chain(
        ['{"images": '], _list(images()), [', "categories": '], _list(categories), [', "annotations": '],
        _list(annotations()), ["}\n"],
    )  # fmt: skip
    path = folder / "coco.json"
    write_atomic(path, map(str.encode, parts))
    return path


def _label_studio(found: FoundBoxes, folder: Path) -> Path:
    names, above = found.names, found.root.resolve().name

    def tasks() -> Iterator[str]:
        for photo in found.read():
            size = {"original_width": photo["width"], "original_height": photo["height"], "image_rotation": 0}
            regions = []
            for number, each in enumerate(photo["boxes"], start=1):
                sides = photo["width"], photo["height"]
                left, top, width, height = (
                    round(100 * value / side, 4)
                    for value, side in zip(_corner_and_size(each["box"]), sides * 2, strict=True)
                )
                value = {"x": left, "y": top, "width": width, "height": height, "rotation": 0}
                score = min(max(each["score"], 0.0), 1.0)
                named = {"id": f"{photo['id']}-{number}", "from_name": "label", "to_name": "image", "score": score}
                value |= {"rectanglelabels": [names[each["label"]]]}
                regions.append(named | {"type": "rectanglelabels", **size, "value": value})
            prediction: dict[str, Any] = {"model_version": found.made_by, "result": regions}
            if regions:
                prediction["score"] = max(region["score"] for region in regions)
            address = "/data/local-files/?d=" + quote(f"{above}/{photo['photo']}")
            yield json.dumps({"data": {"image": address}, "predictions": [prediction]})

    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    labels = ElementTree.SubElement(view, "RectangleLabels", name="label", toName="image")
    for name in names:
        ElementTree.SubElement(labels, "Label", value=name)
    ElementTree.indent(view)
    write_atomic(folder / "label-studio.xml", ElementTree.tostring(view, encoding="utf-8") + b"\n")
    path = folder / "label-studio.json"
    write_atomic(path, map(str.encode, chain(_list(tasks()), ["\n"])))
    return path


def _csv(found: FoundBoxes, folder: Path) -> Path:
    names = found.names
    header = ("photo", "width", "height", "class", "score", "x0", "y0", "x1", "y1")

    def rows() -> Iterator[Sequence[Any]]:
        yield header
        for photo in found.read():
            for each in photo["boxes"]:
                start = photo["photo"], photo["width"], photo["height"]
                yield *start, names[each["label"]], each["score"], *each["box"]

    def lines() -> Iterator[bytes]:
        for row in rows():
            csv.writer(text := io.StringIO(), lineterminator="\n").writerow(row)
            yield text.getvalue().encode()

    path = folder / "boxes.csv"
    write_atomic(path, lines())
    return path


def _yolo(found: FoundBoxes, folder: Path) -> Path:
    place, path = _emptied(folder / "yolo"), folder / "yolo" / "data.yaml"
    for dataset in _datasets(found, place / "images"):
        dataset.as_yolo(annotations_directory_path=str(place / "labels"), data_yaml_path=str(path))
    about = yaml.safe_load(path.read_text(encoding="utf-8")) | {"train": "images", "val": "images"}
    path.write_text(yaml.safe_dump(about, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def _voc(found: FoundBoxes, folder: Path) -> Path:
    place = _emptied(folder / "voc")
    for dataset in _datasets(found, place / "JPEGImages"):
        dataset.as_pascal_voc(annotations_directory_path=str(place / "Annotations"))
    return place


FORMATS: dict[str, Callable[[FoundBoxes, Path], Path]] = {
    "coco": _coco,
    "yolo": _yolo,
    "voc": _voc,
    "label-studio": _label_studio,
    "csv": _csv,
}
"""The formats, and what writes them."""


def _datasets(found: FoundBoxes, images: Path) -> Iterator[Any]:
    """Data sets of supervision with a few photos each, which are put into a folder; at least one, for the classes."""
    import supervision as sv

    images.mkdir(parents=True)
    names = found.names
    photos = zip(found.read(), unique_stems([photo["photo"] for photo in found.read()]), strict=True)
    while True:
        annotations = {}
        for photo, stem in islice(photos, _CHUNK):
            file = _placed(found.root / photo["photo"], images, stem)
            labels = np.array([each["label"] for each in photo["boxes"]], dtype=int)
            boxes = np.array([each["box"] for each in photo["boxes"]], dtype=np.float32).reshape(-1, 4)
            annotations[str(file)] = sv.Detections(boxes, class_id=labels)
        yield sv.DetectionDataset(names, list(annotations), annotations)
        if len(annotations) < _CHUNK:
            return


def _placed(photo: Path, folder: Path, stem: str) -> Path:
    """Copy a photo into a folder under another name."""
    if photo.suffix.lower() not in _READ_BY_ALL:
        place = folder / f"{stem}.png"
        open_photo(photo).save(place)
        return place
    place = folder / f"{stem}{photo.suffix}"
    shutil.copyfile(photo, place)  # a link would expose the photo to trainers that repair files in place
    return place


def _emptied(folder: Path) -> Path:
    """A folder without what an export that was stopped left there."""
    if folder.exists():
        shutil.rmtree(folder)
    return folder


def _corner_and_size(box: Sequence[float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    return x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)


def _list(items: Iterable[str]) -> Iterator[str]:
    yield "["
    for number, item in enumerate(items):
        yield f"{', ' if number else ''}{item}"
    yield "]"
