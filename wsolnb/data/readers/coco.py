"""Read scenes from COCO's official layout: a folder of images and a JSON file of annotations."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from torch import Tensor

from wsolnb.data.readers._files import all_there, checked_boxes
from wsolnb.data.readers.scenes import Scenes, Transform

_NEEDED = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}


class CocoScenes(Scenes):
    """Scenes of an annotation file in COCO's format, whole or a subset.

    COCO stores boxes as (left, top, width, height) in pixels that count from 0, so the far corner, left + width,
    is exclusive, as ours. A box that leaves its image by up to 2 px counts as rounded and is clipped.

    Args:
        images_dir: folder of the images.
        annotation_file: JSON with the lists "images", "annotations" and "categories".
        classes: names to keep, in the order of the labels (default: all, in the order of their ids); images stay.
        min_boxes: leave out classes with fewer boxes (crowds do not count). Decide that on the training images and
            pass `train.classes` as `classes` for the test images.
        masks: also give masks, from polygons and run lengths; crowd regions without an object are to be ignored.

    Raises:
        FileNotFoundError: the folder, the JSON file or an image that it lists is missing.
        ValueError: the file is no JSON or lacks a part; a category, image or class is unknown; a box is impossible.

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
        coco = _read(path)
        images = list(coco.imgs.values())
        all_there(folder, [image["file_name"] for image in images], path)
        label = {category: k for k, category in enumerate(sorted(coco.cats))}
        pairs = [(k, a) for k, image in enumerate(images) for a in coco.imgToAnns[image["id"]]]
        for _, a in pairs:
            if a["category_id"] not in label:
                raise ValueError(
                    f"{path}: annotation {a['id']} has category id {a['category_id']}, but the file's "
                    f"{len(label)} categories have the ids {min(label)} to {max(label)} without it"
                )
            if len(a["bbox"]) != 4:
                raise ValueError(f"{path}: annotation {a['id']} has the bbox {a['bbox']}, expected 4 numbers")
        sizes = np.array([(image["height"], image["width"]) for image in images], dtype=np.int64)
        rows = np.array([k for k, _ in pairs], dtype=np.int64)
        boxes = np.array([a["bbox"] for _, a in pairs], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        super().__init__(
            [folder / image["file_name"] for image in images],
            [image["id"] for image in images],
            sizes,
            images=rows,
            boxes=checked_boxes(
                boxes,
                sizes[rows],
                lambda k: f"{path}: annotation {pairs[k][1]['id']} of {images[pairs[k][0]]['file_name']}",
            ),
            labels=np.array([label[a["category_id"]] for _, a in pairs], dtype=np.int64),
            crowd=np.array([bool(a.get("iscrowd", 0)) for _, a in pairs], dtype=bool),
            classes=[coco.cats[category]["name"] for category in label],
            transform=transform,
        )
        self._coco = coco if masks else None
        self._annotations = [a for _, a in pairs] if masks else []
        if classes is not None:
            self._keep(classes, str(path))
        if min_boxes:
            self._keep(self.frequent_classes(min_boxes), str(path))

    def _masks(self, index: int) -> tuple[Tensor, Tensor] | None:
        if self._coco is None:
            return None
        rows = self._span(index)
        height, width = self.sizes[index].tolist()
        masks = torch.zeros(rows.stop - rows.start, height, width, dtype=torch.bool)
        for k, number in enumerate(self._numbers[rows].tolist()):
            annotation = self._annotations[number]
            if not annotation.get("segmentation"):
                raise ValueError(f"annotation {annotation['id']} of {self.files[index].name} has no segmentation")
            with warnings.catch_warnings():  # pycocotools' arrays predate NumPy 2
                warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
                masks[k] = torch.from_numpy(self._coco.annToMask(annotation)).bool()
        crowd = self._crowd[rows]
        objects = masks[~crowd].any(dim=0, keepdim=True)
        return masks, masks[crowd].any(dim=0, keepdim=True) & ~objects


def _read(path: Path) -> COCO:
    """Load and index an annotation file, without pycocotools' prints."""
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file {path}: expected COCO's JSON, such as instances_train2017.json")
    try:
        data: Any = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    for part, fields in _NEEDED.items():
        rows = data.get(part) if isinstance(data, dict) else None
        if not isinstance(rows, list) or not (rows or part == "annotations"):
            raise ValueError(f'{path} has no list "{part}"; COCO\'s annotation files have {list(_NEEDED)}')
        for row in rows:
            if missing := [field for field in fields if field not in row]:
                raise ValueError(f'{path}: an entry of "{part}" lacks {missing}: {str(row)[:120]}')
    coco = COCO()
    coco.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    if unknown := sorted(set(coco.imgToAnns) - set(coco.imgs)):
        annotation = coco.imgToAnns[unknown[0]][0]["id"]
        raise ValueError(f'{path}: annotation {annotation} has image id {unknown[0]}, which "images" does not list')
    return coco
