"""Localize classes in photo files: an overlay for each photo, and the boxes in COCO format."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from wsolnb._utils.progress import track
from wsolnb.boxes import BoxRule
from wsolnb.data.readers.images import to_rgb
from wsolnb.inference.linear_head import read_linear
from wsolnb.inference.localize import localize
from wsolnb.models.pretrained import PretrainedClassifier
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
    repeated: dict[str, str]  # paths that lead to a photo that was given before, and its path; they count once


def localize_photos(
    paths: Sequence[str | Path],
    out: str | Path,
    model: PretrainedClassifier,
    *,
    method: str = "cam",
    classes: str | int | Sequence[int] = 1,
    rule: BoxRule | str | None = None,
    head: str | None = None,
    names: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
    batch_size: int = 8,
) -> Localized:
    """Localize classes in photos, and write overlays and boxes into a new folder.

    Photos are turned as their EXIF data say, and resized so that their shorter side has the size that the network was
    tested with (both sides, where it takes no other shape). A photo that is given twice, also by another path, counts
    once. Boxes are in pixels of the photo. The folder gets `overlays/NAME.png`; `results.json`, detections for
    `COCO.loadRes` (`bbox` is x, y, width, height; `category_id` is the index of the network's output); and
    `images.json`, their images and categories, for `COCO`.

    Args:
        paths: Photo files.
        out: Folder, new or empty.
        model: See `wsolnb.models.pretrained.pretrained_classifier`.
        method: As for `wsolnb.inference.localize.localize`.
        classes: As for `localize`, the same for all photos.
        rule: As for `localize`.
        head: As for `localize`.
        names: Class names; by default those of the weights, or their indices.
        device: The network is moved there.
        batch_size: Photos in one pass.

    Raises:
        FileNotFoundError: A photo does not exist.
        FileExistsError: The folder is not empty; nothing is overwritten.
        ValueError: No photos, a file that is no photo, too few names; and what `localize` raises.

    Example:
        >>> import tempfile, torchvision
        >>> net = torchvision.models.resnet18(num_classes=3).eval()
        >>> model = PretrainedClassifier(net, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), ["cat", "dog", "bird"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.effect_noise((160, 120), 90).convert("RGB").save(f"{folder}/noise.png")
        ...     done = localize_photos([f"{folder}/noise.png"], f"{folder}/out", model, classes=2)
        ...     sorted(path.name for path in done.folder.iterdir())
        ['images.json', 'overlays', 'results.json']
    """
    photos, folder = [Path(path) for path in paths], Path(out)
    _check_files(photos)
    photos, repeated = _once(photos)
    require_new_folder(folder)

    def run(inputs: Tensor | list[Tensor]) -> list[dict[str, Tensor]]:
        return localize(model.net, inputs, method, classes, rule, head=head)

    # a blank image brings out wrong arguments before anything is written
    blank = torch.zeros(1, 3, model.size, model.size, device=device)
    with torch.no_grad():
        count = len(read_linear(model.net.to(device), blank, head).weight)
    run(blank)
    names = model.names if names is None else names
    names = [str(k) for k in range(count)] if names is None else names
    if len(names) != count:
        raise ValueError(f"{len(names)} names for a network with {count} classes")
    (folder / "overlays").mkdir(parents=True)
    stems = dict(zip(photos, _stems(photos), strict=True))
    images: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    unread: dict[str, str] = {}
    empty = 0
    results = _localized(photos, model, batch_size, unread, run)
    for path, photo, result in track(results, "photos", total=len(photos)):
        images.append({"id": len(images) + 1, "file_name": str(path), "width": photo.width, "height": photo.height})
        boxes, labels, scores = result["boxes"], result["labels"].tolist(), result["scores"].tolist()
        for (x0, y0, x1, y1), label, score in zip(boxes.tolist(), labels, scores, strict=True):
            if math.isnan(x0):  # nothing in the class's map
                empty += 1
                continue
            box = [round(x0, 2), round(y0, 2), round(x1 - x0, 2), round(y1 - y0, 2)]
            detections.append({"image_id": len(images), "category_id": label, "bbox": box, "score": round(score, 6)})
        captions = [f"{names[label]} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
        shown = int(result["labels"].unique_consecutive(return_counts=True)[1][:_PANELS].sum())
        picture = overlay(photo, boxes[:shown], result["maps"][:shown], captions[:shown])
        with (folder / "overlays" / f"{stems[path]}.png").open("xb") as png:
            picture.save(png, format="png")
    categories = [{"id": k, "name": name} for k, name in enumerate(names)]
    described = {"images": images, "categories": categories, "annotations": []}
    for name, content in (("results.json", detections), ("images.json", described)):
        with (folder / name).open("x", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1) + "\n")
    return Localized(folder, len(images), len(detections), empty, unread, repeated)


def require_new_folder(folder: Path) -> None:
    """Refuse a folder that holds something already, or a file in its place (FileExistsError).

    Example:
        >>> require_new_folder(Path("a folder that does not exist"))
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is no empty folder: nothing is overwritten, give a new folder")


def _check_files(photos: Sequence[Path]) -> None:
    """Read the files' headers before anything is computed."""
    if not photos:
        raise ValueError("no photos given")
    for path in photos:
        if not path.exists():
            raise FileNotFoundError(f"no photo {path}")
        if path.is_dir():
            raise ValueError(f"{path} is a folder; give the photos in it, such as {path}/*.jpg")
        try:
            Image.open(path).close()
        except Exception as error:  # of a damaged file, Pillow's decoders raise almost anything
            raise ValueError(f"{path} cannot be read as a photo: {error}") from None


def _once(photos: Sequence[Path]) -> tuple[list[Path], dict[str, str]]:
    """Every file once, and the other paths that lead to one of them."""
    first: dict[tuple[int, int], Path] = {}
    repeated: dict[str, str] = {}
    for path in photos:
        about = path.stat()
        known = first.setdefault((about.st_dev, about.st_ino), path)
        if known is not path:
            repeated[str(path)] = str(known)
    return list(first.values()), repeated


def _stems(photos: Sequence[Path]) -> list[str]:
    """Stems of the photos, numbered where several are the same."""
    names: dict[str, str] = {}
    for path in photos:
        name, number = path.stem, 1
        while name.lower() in names:
            number += 1
            name = f"{path.stem}-{number}"
        names[name.lower()] = name
    return list(names.values())


def _localized(
    photos: Sequence[Path],
    model: PretrainedClassifier,
    batch_size: int,
    unread: dict[str, str],
    run: Callable[[list[Tensor]], list[dict[str, Tensor]]],
) -> Iterator[tuple[Path, Image.Image, dict[str, Tensor]]]:
    """Every photo that can be read, with its results on the CPU and its boxes in its own pixels."""
    for start in range(0, len(photos), batch_size):
        opened: dict[Path, Image.Image] = {}
        for path in photos[start : start + batch_size]:
            try:
                with Image.open(path) as file:
                    opened[path] = to_rgb(ImageOps.exif_transpose(file))
            except Exception as error:  # of a damaged file, Pillow's decoders raise almost anything
                unread[str(path)] = str(error)
        inputs = [_prepared(photo, model) for photo in opened.values()]
        for (path, photo), pixels, result in zip(opened.items(), inputs, run(inputs), strict=True):
            scale = torch.tensor([photo.width / pixels.shape[2], photo.height / pixels.shape[1]] * 2)
            result = {name: values.cpu() for name, values in result.items()}
            yield path, photo, result | {"boxes": result["boxes"] * scale}


def _prepared(photo: Image.Image, model: PretrainedClassifier) -> Tensor:
    pixels = transforms.to_dtype(transforms.pil_to_tensor(photo), torch.float32, scale=True)
    size = [model.size, model.size] if model.square else [model.size]
    resized = transforms.resize(pixels, size, antialias=True)
    normalised: Tensor = transforms.normalize(resized, list(model.mean), list(model.std))
    return normalised
