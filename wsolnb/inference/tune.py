"""A box threshold chosen on a few boxes that a person drew, and how well it does on photos that it was not chosen on.

drawn boxes, maps of their classes -> boxes at all thresholds -> IoU -> the best threshold; and of all photos but one
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from wsolnb._utils.progress import track
from wsolnb.boxes import BoxRule, iou
from wsolnb.boxes.components import ONE_BOX
from wsolnb.data.readers.coco import CocoScenes
from wsolnb.inference.localizer import Localizer, class_named
from wsolnb.inference.photo_files import open_photo

THRESHOLDS = tuple(i / 100 for i in range(1, 100))
_FEWEST, _RIGHT = 3, 0.5  # photos; IoU from which on a box is right


@dataclass(frozen=True)
class Share:
    """Photos whose box is right, of all, with the 95 % interval of Wilson's score.

    Example:
        >>> print(Share(7, 10))
        7 of 10 (70 %, 95 % interval 40 to 89 %)
    """

    right: int
    photos: int

    @property
    def interval(self) -> tuple[float, float]:
        """Low and high end, in [0, 1]."""
        found = binomtest(self.right, self.photos).proportion_ci(method="wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        share, low, high = (round(100 * value) for value in (self.right / self.photos, *self.interval))
        return f"{self.right} of {self.photos} ({share} %, 95 % interval {low} to {high} %)"


@dataclass(frozen=True)
class Tuned:
    """What `tune` chose, and how well it does.

    Args:
        rule: The rule with the best threshold on all photos.
        before: Photos that were right with the threshold before.
        after: Photos that were right with the threshold that is best on all others.
    """

    rule: BoxRule
    before: Share
    after: Share

    @property
    def chosen(self) -> dict[str, Any]:
        """The same for the card of a model, see `wsolnb.inference.model.store_rule`."""
        about = {"by": "the share of drawn boxes found with IoU 0.5 or more", "boxes": self.after.photos}
        return about | {"found, each photo by the other photos' threshold": str(self.after)}


def tune(localizer: Localizer, photos: str | Path, boxes: str | Path, *, batch_size: int = 8) -> Tuned:
    """Choose the threshold of a localizer's rule on drawn boxes.

    The threshold, of 0.01 to 0.99, finds the most photos with an IoU of at least 0.5; of equally good ones it has the
    largest mean IoU. How well that does is measured by leaving one out: each photo is judged at the threshold that is
    best on the others. The threshold before needs no such care, unless it was chosen on the same boxes.

    Args:
        localizer: Its rule has one box per map.
        photos: Folder of the photos.
        boxes: JSON in COCO's format, with the paths of photos below that folder as file names. Photos without a box are
            left out; one with several boxes of its class is right with any of them. Categories have the classes' names.
        batch_size: Photos in one pass.

    Raises:
        FileNotFoundError: No such file or folder, or photos that are not in it.
        ValueError: Boxes on fewer than three photos, a category that is no class, a photo with boxes of several
            classes, boxes of a photo of another size; or a rule with several boxes per map.

    Example:
        >>> import json, tempfile
        >>> from PIL import Image
        >>> def red(images, classes, rule):
        ...     return [{"maps": image[:1]} for image in images]
        >>> plain = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        >>> localizer = Localizer(red, BoxRule(0.9), ["red"], 32, *plain, True, "red", "")
        >>> file = {"categories": [{"id": 1, "name": "red"}], "images": [], "annotations": []}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for k in range(3):
        ...         photo = Image.new("RGB", (32, 32))
        ...         photo.paste((120, 0, 0), (4, 8, 24, 20))
        ...         photo.paste((255, 0, 0), (8, 8, 16, 16))
        ...         photo.save(Path(folder, f"{k}.png"))
        ...         file["images"].append({"id": k, "file_name": f"{k}.png", "width": 32, "height": 32})
        ...         file["annotations"].append({"id": k, "image_id": k, "category_id": 1, "bbox": [4, 8, 20, 12]})
        ...     _ = Path(folder, "boxes.json").write_text(json.dumps(file))
        ...     tuned = tune(localizer, folder, Path(folder, "boxes.json"))
        >>> tuned.rule.threshold, str(tuned.before), str(tuned.after)
        (0.24, '0 of 3 (0 %, 95 % interval 0 to 56 %)', '3 of 3 (100 %, 95 % interval 44 to 100 %)')
    """
    if localizer.rule.component not in ONE_BOX:
        raise ValueError(f"component {localizer.rule.component!r} gives several boxes per map: tune a rule with one")
    drawn = CocoScenes(photos, boxes)
    labels = _labels(drawn, localizer.names, Path(boxes))
    if len(labels) < _FEWEST:
        raise ValueError(f"{boxes} has boxes on {len(labels)} photos: draw some on {_FEWEST} photos at least")
    indices = list(labels)
    overlaps = []  # (T + 1,) per photo, the last one at the threshold before
    for start in track(range(0, len(indices), batch_size), "drawn boxes"):
        batch = indices[start : start + batch_size]
        opened = [_open(drawn, index, Path(boxes)) for index in batch]
        inputs = [localizer.prepare(photo) for photo in opened]
        rows = localizer.run(inputs, [[labels[index]] for index in batch], localizer.rule)
        for index, photo, pixels, row in zip(batch, opened, inputs, rows, strict=True):
            size = (pixels.shape[1], pixels.shape[2])
            found = localizer.rule.at_thresholds(row["maps"][None, :1], size, [*THRESHOLDS, localizer.rule.threshold])
            scale = torch.tensor([photo.width / size[1], photo.height / size[0]] * 2)
            truth = drawn.target(index)["boxes"].as_subclass(Tensor)
            overlaps.append(iou(found[:, 0, 0].cpu().nan_to_num(0) * scale, truth).amax(dim=1))
    table = torch.stack(overlaps, dim=1).numpy()
    right = table >= _RIGHT
    best = _best(table[:-1])
    others = [_best(np.delete(table[:-1], k, axis=1)) for k in range(len(indices))]
    after = sum(bool(right[threshold, k]) for k, threshold in enumerate(others))
    count = len(indices)
    rule = replace(localizer.rule, threshold=THRESHOLDS[best])
    return Tuned(rule, Share(int(right[-1].sum()), count), Share(after, count))


def _best(overlaps: np.ndarray) -> int:
    """The row of overlaps `(thresholds, photos)` with the most right boxes, then the largest mean, and the middle."""
    shares, means = (overlaps >= _RIGHT).sum(axis=1), overlaps.mean(axis=1).round(9)
    best = np.flatnonzero((shares == shares.max()) & (means == means[shares == shares.max()].max()))
    return int(best[(len(best) - 1) // 2])


def _labels(drawn: CocoScenes, names: Sequence[str], file: Path) -> dict[int, int]:
    """The class of each photo that has boxes."""
    labels: dict[int, int] = {}
    for index in range(len(drawn)):
        categories = {drawn.classes[k] for k in drawn.target(index)["labels"].tolist()}
        if len(categories) > 1:
            several = ", ".join(sorted(categories))
            raise ValueError(f"{file}: {drawn.files[index]} has boxes of {several}: draw those of one class per photo")
        for category in categories:
            try:
                labels[index] = class_named(category, names)
            except ValueError as error:
                raise ValueError(f"{file}: {error}") from None
    return labels


def _open(drawn: CocoScenes, index: int, file: Path) -> Any:
    photo = open_photo(drawn.files[index])
    height, width = drawn.sizes[index].tolist()
    if photo.size != (width, height):
        raise ValueError(
            f"{drawn.files[index]} has {photo.width} x {photo.height} pixels, upright, {file} says {width} x {height}: "
            "draw the boxes on the photo as it is"
        )
    return photo
