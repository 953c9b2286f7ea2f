"""Read scenes from COCO's official layout: a folder of images and a JSON file of annotations."""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from torch import Tensor

from wsolnb.data.readers.scenes import Scenes, Transform, checked_boxes

_NEEDED = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}


class CocoScenes(Scenes):
    """Scenes of a COCO-style annotation file, whole or any subset that is written in the same format.

    COCO stores boxes as (left, top, width, height) in pixels that count from 0, so the far corner, left + width,
    is exclusive, as ours. A box that leaves its image by up to 2 px is taken for rounded and clipped.

    Args:
        images_dir: folder of the images.
        annotation_file: JSON with the lists "images", "annotations" and "categories".
        classes: names to keep, and their order; boxes of other classes are left out, images are not. By default
            all categories in the order of their ids.
        min_boxes: leave classes with fewer boxes (crowds do not count) out. Decide that on the training images
            and pass `train.classes` as `classes` for the test images.
        masks: also give masks, from polygons and run lengths; regions of crowds are ignored where no object is.
        transform: torchvision v2 transform, called as `transform(image, target)`.

    Raises:
        FileNotFoundError: the folder, the JSON file or an image that it lists is missing.
        ValueError: the file is no JSON or lacks a part; an annotation has an unknown category or image; a box
            lies outside its image; a class name is unknown; no class is left. Images that do not decode are named
            when they are asked for.

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
        _all_there(folder, path, [image["file_name"] for image in images])
        label = {category: k for k, category in enumerate(sorted(coco.cats))}
        found = [(k, a) for k, image in enumerate(images) for a in coco.imgToAnns[image["id"]]]
        for _, a in found:
            if a["category_id"] not in label:
                raise ValueError(
                    f"{path}: annotation {a['id']} has category id {a['category_id']}, but the file's "
                    f"{len(label)} categories have the ids {min(label)} to {max(label)} without it"
                )
            if len(a["bbox"]) != 4:
                raise ValueError(f"{path}: annotation {a['id']} has the bbox {a['bbox']}, expected 4 numbers")
        sizes = np.array([(image["height"], image["width"]) for image in images], dtype=np.int64)
        where = np.array([k for k, _ in found], dtype=np.int64)
        boxes = np.array([a["bbox"] for _, a in found], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        super().__init__(
            [folder / image["file_name"] for image in images],
            [image["id"] for image in images],
            sizes,
            images=where,
            boxes=checked_boxes(
                boxes,
                sizes[where],
                lambda k: f"{path}: annotation {found[k][1]['id']} of {images[found[k][0]]['file_name']}",
            ),
            labels=np.array([label[a["category_id"]] for _, a in found], dtype=np.int64),
            crowd=np.array([bool(a.get("iscrowd", 0)) for _, a in found], dtype=bool),
            classes=[coco.cats[category]["name"] for category in label],
            transform=transform,
        )
        self._coco = coco if masks else None
        self._annotations = [a for _, a in found] if masks else []
        if classes is not None:
            self._keep(classes, str(path))
        if min_boxes:
            self._keep(self.frequent_classes(min_boxes), str(path))

    def _masks(self, index: int) -> tuple[Tensor, Tensor] | None:
        if self._coco is None:
            return None
        kept = self._span(index)
        height, width = self.sizes[index].tolist()
        masks = torch.zeros(kept.stop - kept.start, height, width, dtype=torch.bool)
        for k, number in enumerate(self._numbers[kept].tolist()):
            annotation = self._annotations[number]
            if not annotation.get("segmentation"):
                raise ValueError(f"annotation {annotation['id']} of {self.files[index].name} has no segmentation")
            with warnings.catch_warnings():  # pycocotools' arrays are older than NumPy 2's rules
                warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
                masks[k] = torch.from_numpy(self._coco.annToMask(annotation)).bool()
        crowd = self._crowd[kept]
        objects = masks[~crowd].any(dim=0, keepdim=True)
        return masks, masks[crowd].any(dim=0, keepdim=True) & ~objects


def _read(path: Path) -> COCO:
    """Load and index an annotation file without a word on the screen."""
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
    if strangers := sorted(set(coco.imgToAnns) - set(coco.imgs)):
        annotation = coco.imgToAnns[strangers[0]][0]["id"]
        raise ValueError(f'{path}: annotation {annotation} has image id {strangers[0]}, which "images" does not list')
    return coco


def _all_there(folder: Path, path: Path, names: list[str]) -> None:
    """Look at every folder once, not at every file."""
    parents = {os.path.dirname(name) for name in names}
    listed = {parent: set(os.listdir(folder / parent)) for parent in parents if (folder / parent).is_dir()}
    if missing := [name for name in names if os.path.basename(name) not in listed.get(os.path.dirname(name), ())]:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of the {len(names)} images that {path} lists, the first is {missing[0]}"
        )
