"""Read scenes from COCO's official layout: a folder of images and a JSON file of annotations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsolnb.data.readers._files import all_there, checked_boxes
from wsolnb.data.readers._segmentations import fill, read_segmentations
from wsolnb.data.readers.images import stored_size
from wsolnb.data.readers.scenes import Scenes, Transform

_NEEDED = {
    "images": {"id", "file_name"},
    "annotations": {"id", "image_id", "category_id", "bbox"},
    "categories": {"id", "name"},
}
_INT64 = range(-(2**63), 2**63)
_LONGEST = 2**24  # pixels of a side; more is no image
_CROWD = {0: False, 1: True, None: False, "0": False, "1": True, "": False}


class CocoScenes(Scenes):
    """Scenes of an annotation file in COCO's format, whole or a subset.

    COCO stores boxes as (left, top, width, height) in pixels that count from 0, so the far corner, left + width,
    is exclusive, as ours. A box that leaves its image by up to 2 px counts as rounded and is clipped. Where an image's
    size is missing or not positive, it is read from the image. `image_id` is the file's, or counts the images from 0
    where one of the file's ids is text or negative.

    Args:
        images_dir: folder of the images.
        annotation_file: JSON with the lists "images", "annotations" and "categories".
        classes: names to keep, in the order of the labels (default: all, in the order of their ids); images stay.
        min_boxes: leave out classes with fewer boxes (crowds do not count). Decide that on the training images and
            pass `train.classes` as `classes` for the test images.
        masks: also give masks, from polygons and run lengths; crowd regions without an object are to be ignored.

    Raises:
        FileNotFoundError: the folder, the JSON file or an image that it lists is missing.
        ValueError: the file is no JSON or lacks a part; an id or name that must be unique comes twice; a category,
            image or class is unknown; a box or, with `masks`, a segmentation is impossible.

    >>> CocoScenes("coco/val2017", "coco/annotations/instances_val2017.json")  # doctest: +SKIP
    CocoScenes(5000 images, 36781 boxes, 80 classes)
    """

    def __init__(
        self,
        images_dir: str | Path,
        annotation_file: str | Path,
        *,
        classes: Sequence[str] | None = None,
        min_boxes: int = 0,
        masks: bool = False,
        transform: Transform | None = None,
    ) -> None:
        folder, path = Path(images_dir), Path(annotation_file)
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder of images {folder}: expected COCO's images there, such as train2017/")
        images, annotations, categories = _read(path)
        files = [image["file_name"] for image in images]
        if odd := [image for image in images if not isinstance(image["file_name"], str)]:
            raise ValueError(f"{path}: image {odd[0]['id']!r} has the file_name {odd[0]['file_name']!r:.40}, not text")
        all_there(folder, files, path)
        image_ids = _unique(path, "images", images)
        known = all(isinstance(number, int) and number >= 0 for number in image_ids)
        ids: Sequence[Any] = image_ids if known else range(len(images))
        sizes = np.array([_size(path, folder, image) for image in images], dtype=np.int64)
        names = _names(path, categories)
        rows = _numbers_of(path, annotations, "image_id", image_ids, 'which "images" does not list')
        among = f"but the file's {len(names)} categories have the ids {min(names)!r} to {max(names)!r} without it"
        label = _numbers_of(path, annotations, "category_id", list(names), among)
        _refuse_repeated(path, annotations)
        boxes = _boxes(path, annotations)
        order = np.argsort(rows, kind="stable")
        rows, annotations = rows[order], [annotations[k] for k in order]
        super().__init__(
            [folder / file for file in files],
            ids,
            sizes,
            images=rows,
            boxes=checked_boxes(
                boxes[order], sizes[rows], lambda k: f"{path}: annotation {annotations[k]['id']} of {files[rows[k]]}"
            ),
            labels=label[order],
            crowd=np.array([_is_crowd(path, a) for a in annotations], dtype=bool),
            classes=list(names.values()),
            transform=transform,
        )
        self._segmentations = read_segmentations(path, annotations, sizes[rows]) if masks else None
        if classes is not None:
            self._keep(classes, str(path))
        if min_boxes:
            self._keep(self.frequent_classes(min_boxes), str(path))

    def _masks(self, index: int) -> tuple[Tensor, Tensor] | None:
        if self._segmentations is None:
            return None
        rows = self._span(index)
        height, width = self.sizes[index].tolist()
        masks = torch.zeros(rows.stop - rows.start, height, width, dtype=torch.bool)
        for k, number in enumerate(self._numbers[rows].tolist()):
            masks[k] = torch.from_numpy(fill(self._segmentations[number], height, width))
        crowd = self._crowd[rows]
        objects = masks[~crowd].any(dim=0, keepdim=True)
        return masks, masks[crowd].any(dim=0, keepdim=True) & ~objects


_Rows = list[dict[str, Any]]


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, unless it has a field twice, of which Python would keep the last."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {name!r} stands twice in an object: {str(fields)[:120]}")
    return fields


def _read(path: Path) -> tuple[_Rows, _Rows, _Rows]:
    """Images, annotations and categories of a file, each entry with the fields that are needed."""
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file {path}: expected COCO's JSON, such as instances_train2017.json")
    try:
        data: Any = json.loads(path.read_bytes(), object_pairs_hook=_fields)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None
    parts = []
    for part, needed in _NEEDED.items():
        rows = data.get(part) if isinstance(data, dict) else None
        if not isinstance(rows, list) or not (rows or part == "annotations"):
            raise ValueError(f'{path} has no list "{part}"; COCO\'s annotation files have {list(_NEEDED)}')
        for row in rows:
            if not (isinstance(row, dict) and needed <= row.keys()):
                missing = sorted(needed - set(row if isinstance(row, dict) else ()))
                raise ValueError(f'{path}: an entry of "{part}" lacks {missing}: {str(row)[:120]}')
        parts.append(rows)
    return parts[0], parts[1], parts[2]


def _unique(path: Path, part: str, rows: _Rows) -> list[int] | list[str]:
    """The ids of a part of the file, all text or all whole numbers, none twice."""
    ids = [row["id"] for row in rows]
    kind = str if isinstance(ids[0], str) else int
    if kind is int:
        ids = [int(number) if isinstance(number, float) and number.is_integer() else number for number in ids]
    if odd := [number for number in ids if type(number) is not kind or (kind is int and number not in _INT64)]:
        expected = "text, as the first one is" if kind is str else "whole numbers of 64 bits"
        raise ValueError(f'{path}: an entry of "{part}" has the id {odd[0]!r:.40}, expected {expected}')
    if len(set(ids)) < len(ids):
        twice = next(number for number, count in Counter(ids).items() if count > 1)
        raise ValueError(f'{path}: the id {twice!r} stands twice in "{part}": number merged files anew')
    return ids


def _names(path: Path, categories: _Rows) -> dict[Any, str]:
    """Names of the categories by their ids, in the order of the ids."""
    names: dict[Any, str] = {}
    for number, row in sorted(zip(_unique(path, "categories", categories), categories, strict=True), key=itemgetter(0)):
        name = str(row["name"]) if type(row["name"]) is int else row["name"]
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{path}: category {number!r} has the name {name!r:.40}, expected text")
        if name in names.values():
            raise ValueError(f"{path}: the categories {list(names)} and {number!r} share the name {name!r}")
        names[number] = name
    return names


def _size(path: Path, folder: Path, image: dict[str, Any]) -> tuple[int, int]:
    """Height and width of an image as stated, or from the image's header where one is missing or not positive."""
    stated = [image.get("height"), image.get("width")]
    try:
        height, width = (0.0 if value is None else float(value) for value in stated)
        if not (height.is_integer() and width.is_integer() and max(height, width) < _LONGEST):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        name = f"{image['id']!r:.40} ({image['file_name']!r:.80})"
        message = f"{path}: image {name} has the height and width {stated!r:.80}, expected whole numbers"
        raise ValueError(message) from None
    return (int(height), int(width)) if height > 0 and width > 0 else stored_size(folder / image["file_name"])


def _numbers_of(path: Path, annotations: _Rows, field: str, ids: list[int] | list[str], unknown: str) -> np.ndarray:
    """The positions of the ids that annotations have in a field."""
    position: dict[Any, int] = {number: k for k, number in enumerate(ids)}
    kinds = (int, float) if isinstance(ids[0], int) else (str,)
    numbers = [position.get(a[field], -1) if type(a[field]) in kinds else -1 for a in annotations]
    if -1 in numbers:
        a = annotations[numbers.index(-1)]
        raise ValueError(f"{path}: annotation {a['id']!r} has {field.replace('_', ' ')} {a[field]!r:.40}, {unknown}")
    return np.array(numbers, dtype=np.int64)


def _refuse_repeated(path: Path, annotations: _Rows) -> None:
    """Refuse an annotation that comes twice; in merged files, those of different images may share an id."""
    try:
        counts = Counter([(a["id"], a["image_id"]) for a in annotations])
    except TypeError:
        a = next(a for a in annotations if isinstance(a["id"], list | dict))
        raise ValueError(f"{path}: an annotation has the id {a['id']!r:.40}, expected a number or text") from None
    if len(counts) < len(annotations):
        number, image = max(counts, key=counts.__getitem__)
        raise ValueError(f"{path}: annotation {number!r} of image {image!r} stands there twice: count every box once")


def _boxes(path: Path, annotations: _Rows) -> np.ndarray:
    """Boxes (N, 4) xyxy, float64."""
    stated = [a["bbox"] for a in annotations]
    try:
        boxes = np.array(stated or np.empty((0, 4)), dtype=np.float64)
        if boxes.shape != (len(stated), 4):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        k = next((k for k, box in enumerate(stated) if not _four_numbers(box)), 0)
        raise ValueError(
            f"{path}: annotation {annotations[k]['id']!r} has the bbox {stated[k]!r:.80}, expected 4 numbers"
        ) from None
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _four_numbers(box: Any) -> bool:
    try:
        return isinstance(box, list) and len([float(value) for value in box]) == 4
    except (TypeError, ValueError, OverflowError):
        return False


def _is_crowd(path: Path, annotation: dict[str, Any]) -> bool:
    flag = annotation.get("iscrowd")
    if isinstance(flag, list | dict) or flag not in _CROWD:
        raise ValueError(f"{path}: annotation {annotation['id']!r} has iscrowd {flag!r:.40}, expected 0 or 1")
    return _CROWD[flag]
