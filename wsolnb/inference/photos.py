"""Localize classes in photo files: an overlay for each photo, and the boxes in the formats of annotation tools."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wsolnb._utils.cache import fingerprint
from wsolnb._utils.files import require_new_folder, write_atomic
from wsolnb._utils.progress import track
from wsolnb.boxes.quantise import minmax_normalise
from wsolnb.inference.export import FoundBoxes, export, require_formats
from wsolnb.inference.found import LINES, claimed, require_free
from wsolnb.inference.localizer import Localizer, class_named
from wsolnb.inference.photo_files import PhotoFiles, find_photos, open_photo, unique_stems
from wsolnb.plots.images import overlay

_PANELS = 5  # classes that an overlay shows at most


@dataclass(frozen=True)
class Localized:
    """What `localize_photos` wrote."""

    folder: Path
    photos: int  # read
    boxes: int  # written
    empty: int  # classes in whose map the rule found nothing: they have no box
    unread: dict[str, str]  # broken photos, with the error
    files: PhotoFiles
    exports: dict[str, Path]  # by format


def localize_photos(
    paths: Sequence[str | Path],
    out: str | Path,
    localizer: Localizer,
    *,
    classes: str | int | Sequence[int] = 1,
    by_folder: bool = False,
    formats: Sequence[str] = ("coco",),
    save_maps: str | Path | None = None,
    batch_size: int = 8,
) -> Localized:
    """Localize classes in photos, and write overlays and boxes into a new folder, or go on in one left behind.

    Photos are turned as their EXIF data say, and resized so that their shorter side has the size that the network was
    tested with (both sides, where it takes no other shape). A photo that is given twice, also by another path, counts
    once. Boxes are in pixels of the photo. The folder gets `overlays/NAME.png`, and what `wsolnb.inference.export`
    writes in each format. Until the end what was found stands in `unfinished.jsonl`, a line for each photo: a call that
    was stopped or killed goes on from there when it is given again with the same photos, weights and settings (device,
    formats and `batch_size` may be others).

    A photo that does not decode, or is more than 16 times as long as wide, is listed as unread, and the rest is done.

    Args:
        paths: Photo files, and folders, of which all photos are taken: see `wsolnb.inference.photo_files.find_photos`.
        out: Folder, new or empty, or left behind by the same call.
        localizer: A classifier or model: see `wsolnb.inference.localizer`.
        classes: As for `wsolnb.inference.localize.localize`, the same for all photos.
        by_folder: The class of each photo is known, and has the name of its sub-folder; `classes` is not used.
        formats: Some of `wsolnb.inference.export.FORMATS`.
        save_maps: Also write maps there, a new folder: `PHOTO.npy`, float32 at feature resolution, and `classes.json`
            with the classes of each. Maps of several classes are `(classes, h, w)` as the method makes them; the only
            map of a photo is `(h, w)` and stretched to [0, 1], as `wsolnb eval --enlarge 224` reads it.
        batch_size: Photos in one pass.

    Raises:
        FileNotFoundError: A photo does not exist.
        FileExistsError: A folder is not empty, or of another call; nothing is overwritten.
        BlockingIOError: Another process works in the folder.
        ValueError: No photos, a file that is no photo, a sub-folder that is no class; and what `localize` raises.

    Example:
        >>> import tempfile, torchvision
        >>> from wsolnb.inference.localizer import classifier_localizer
        >>> from wsolnb.models.pretrained import PretrainedClassifier
        >>> net = torchvision.models.resnet18(num_classes=3).eval()
        >>> model = PretrainedClassifier(net, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), ["cat", "dog", "bird"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.effect_noise((160, 120), 90).convert("RGB").save(f"{folder}/noise.png")
        ...     done = localize_photos([folder], f"{folder}/out", classifier_localizer(model), classes=2)
        ...     sorted(path.name for path in done.folder.iterdir())
        ['coco.json', 'overlays']
    """
    folder, maps = Path(out), None if save_maps is None else Path(save_maps)
    require_formats(formats)
    files = find_photos(paths)
    require_free(folder)
    if maps is not None and not (folder / LINES).is_file():
        require_new_folder(maps)
    known = _by_name(files, localizer.names) if by_folder else []

    def choose(photos: Sequence[int]) -> Any:
        return [[known[k]] for k in photos] if by_folder else classes

    # a blank image brings out wrong arguments before anything is written
    blank = torch.zeros(3, localizer.size, localizer.size)
    localizer.run([blank], choose([0]), localizer.rule)
    about = [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in files.paths()]
    settings = [known or classes, localizer.rule, list(localizer.names), localizer.preparation, str(maps)]
    with claimed(folder, fingerprint(localizer.key, settings, about)) as found:
        done = found.photos()
        (folder / "overlays").mkdir(exist_ok=True)
        stems = dict(zip(files.names, unique_stems(files.names), strict=True))
        missing = [k for k, name in enumerate(files.names) if name not in done]
        batches = _localized(files, missing, localizer, batch_size, choose)
        for name, result in track(batches, "photos", total=len(missing)):
            if isinstance(result, str):
                found.add({"photo": name, "unread": result})
                continue
            photo, rows = result
            picture = _overlay(photo, rows, localizer.names)
            picture.save(stream := io.BytesIO(), format="png")
            write_atomic(folder / "overlays" / f"{stems[name]}.png", stream.getvalue())
            if maps is not None:
                _save_maps(maps / f"{name}.npy", rows)
            boxes = _detections(rows)
            empty = len(rows["labels"]) - len(boxes)
            line = {"photo": name, "width": photo.width, "height": photo.height, "boxes": boxes, "empty": empty}
            found.add(line | {"classes": rows["labels"].unique_consecutive().tolist()})
        made_by = localizer.made_by
        exports = export(FoundBoxes(files.root, localizer.names, made_by, found.read), folder, formats)
        if maps is not None:
            named = {line["photo"]: [localizer.names[k] for k in line["classes"]] for line in found.read()}
            write_atomic(maps / "classes.json", (json.dumps(named, indent=1, ensure_ascii=False) + "\n").encode())
        counts = found.counts()
        found.finish()
        return Localized(folder, *counts, files, exports)


def _by_name(files: PhotoFiles, names: Sequence[str]) -> list[int]:
    """The class of each photo by the name of its sub-folder."""
    found: dict[str, int] = {}
    for photo, folder in zip(files.paths(), files.folders, strict=True):
        if folder not in found:
            try:
                found[folder] = class_named(folder, names)
            except ValueError as error:
                raise ValueError(f"the folder of {photo} is to be its class, but {error}: rename the folder") from None
    return [found[folder] for folder in files.folders]


def _save_maps(path: Path, rows: dict[str, Tensor]) -> None:
    """Write the maps of a photo, one per class."""
    labels, counts = rows["labels"].unique_consecutive(return_counts=True)
    maps = rows["maps"][counts.cumsum(0) - counts].float()
    values = minmax_normalise(maps)[0] if len(labels) == 1 else maps
    np.save(stream := io.BytesIO(), values.numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, stream.getvalue())


def _detections(rows: dict[str, Tensor]) -> list[dict[str, Any]]:
    """The boxes of a photo, without those of classes in whose map there is nothing."""
    columns = (rows[key].tolist() for key in ("boxes", "labels", "scores"))
    return [
        {"label": label, "box": [round(value, 2) for value in box], "score": round(score, 6)}
        for box, label, score in zip(*columns, strict=True)
        if not math.isnan(box[0])
    ]


def _overlay(photo: Image.Image, rows: dict[str, Tensor], names: Sequence[str]) -> Image.Image:
    """The photo with maps and boxes of its first classes."""
    labels, scores = rows["labels"].tolist(), rows["scores"].tolist()
    captions = [f"{names[label]} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
    shown = int(rows["labels"].unique_consecutive(return_counts=True)[1][:_PANELS].sum())
    return overlay(photo, rows["boxes"][:shown], rows["maps"][:shown], captions[:shown])


_Rows = tuple[Image.Image, dict[str, Tensor]]  # a photo, and its results with boxes in its own pixels


def _localized(
    files: PhotoFiles,
    indices: Sequence[int],
    localizer: Localizer,
    batch_size: int,
    choose: Callable[[Sequence[int]], Any],
) -> Iterator[tuple[str, _Rows | str]]:
    """Every photo with its results on the CPU, or with the reason why it cannot be read; `choose` gives classes."""
    for start in range(0, len(indices), batch_size):
        opened: dict[int, Image.Image] = {}
        inputs: list[Tensor] = []
        for index in indices[start : start + batch_size]:
            try:
                photo = open_photo(files.root / files.names[index])
                inputs.append(localizer.prepare(photo))
            except Exception as error:  # of a damaged file, Pillow's decoders raise almost anything
                yield files.names[index], str(error)
            else:
                opened[index] = photo
        results = localizer.run(inputs, choose(list(opened)), localizer.rule) if inputs else []
        for (index, photo), pixels, result in zip(opened.items(), inputs, results, strict=True):
            scale = torch.tensor([photo.width / pixels.shape[2], photo.height / pixels.shape[1]] * 2)
            rows = {key: values.cpu() for key, values in result.items()}
            yield files.names[index], (photo, rows | {"boxes": rows["boxes"] * scale})
