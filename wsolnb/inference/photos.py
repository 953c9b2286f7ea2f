"""Photos in files, localized with a trained classifier: an overlay for each, and the boxes as COCO reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from wsolnb._utils.progress import track
from wsolnb.boxes import BoxRule
from wsolnb.inference.linear_head import read_linear
from wsolnb.inference.localize import box_rule, choose_classes, localize
from wsolnb.models.pretrained import PretrainedClassifier
from wsolnb.plots.overlay import overlay

PANELS = 5
"""Classes that an overlay shows at most."""


@dataclass(frozen=True)
class Localized:
    """What `localize_photos` wrote.

    Args:
        folder: Where.
        photos: Number of photos read.
        boxes: Number of boxes written.
        empty: Number of classes in whose map the rule found nothing; they have no box.
        unread: Photos that turned out to be broken, and why.
    """

    folder: Path
    photos: int
    boxes: int
    empty: int
    unread: dict[str, str]


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

    Photos are turned as their EXIF data say, and brought whole to the network: their shorter side gets the size that
    the network was tested with (both sides, where it takes no other shape). Boxes are in pixels of the photo. The
    folder gets `overlays/NAME.png`; `results.json`, a list of detections as `COCO.loadRes` takes it (`bbox` is x, y,
    width, height; `category_id` counts the network's outputs from 0); and `images.json`, the images and categories that
    they refer to, as `COCO` takes it.

    Args:
        paths: Files of photos.
        out: Folder, new or empty.
        model: See `wsolnb.models.pretrained.pretrained_classifier`.
        method: As for `wsolnb.inference.localize.localize`.
        classes: As for `localize`, the same for all photos.
        rule: As for `localize`.
        head: As for `localize`.
        names: Of the classes; by default those of the weights, or their numbers.
        device: Where to run; the network is moved there.
        batch_size: Photos in one pass.

    Returns:
        Counts, and the photos that could not be read.

    Raises:
        FileNotFoundError: A photo is not there.
        FileExistsError: The folder holds something; nothing is overwritten.
        ValueError: No photos, one that is none or is given twice, too few names; and what `localize` raises.

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
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} is there already and holds something: nothing is overwritten, give a new folder"
        )
    blank = torch.zeros(1, 3, model.size, model.size, device=device)
    with torch.no_grad():
        outputs = read_linear(model.net.to(device), blank, head).outputs
    choose_classes(classes, outputs)
    rule = box_rule(method, rule)
    names = model.names if names is None else names
    names = [str(k) for k in range(outputs.shape[1])] if names is None else names
    if len(names) != outputs.shape[1]:
        raise ValueError(f"{len(names)} names for a network with {outputs.shape[1]} classes")
    (folder / "overlays").mkdir(parents=True)
    stems = dict(zip(photos, _stems(photos), strict=True))
    images: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    unread: dict[str, str] = {}
    empty = 0
    found = _found(photos, model, batch_size, unread, classes, method, rule, head)
    for path, photo, each in track(found, "photos", total=len(photos)):
        images.append({"id": len(images) + 1, "file_name": str(path), "width": photo.width, "height": photo.height})
        there = each["boxes"].isfinite().all(dim=1)
        empty += int((~there).sum())
        results += _results(len(images), each, there)
        rows = zip(each["labels"].tolist(), each["scores"].tolist(), strict=True)
        captions = [f"{names[label]} {score:.2f}" for label, score in rows]
        shown = _first(each["labels"], PANELS)
        picture = overlay(photo, each["boxes"][:shown], each["maps"][:shown], captions[:shown])
        with (folder / "overlays" / f"{stems[path]}.png").open("xb") as file:
            picture.save(file, format="png")
    categories = [{"id": k, "name": name} for k, name in enumerate(names)]
    described = {"images": images, "categories": categories, "annotations": []}
    for name, content in (("results.json", results), ("images.json", described)):
        with (folder / name).open("x", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1) + "\n")
    return Localized(folder, len(images), len(results), empty, unread)


def _check_files(photos: Sequence[Path]) -> None:
    """Look at the files' heads before anything is computed."""
    if not photos:
        raise ValueError("no photos given")
    for index, path in enumerate(photos):
        if path in photos[:index]:
            raise ValueError(f"{path} is given twice")
        if not path.exists():
            raise FileNotFoundError(f"no photo {path}")
        if path.is_dir():
            raise ValueError(f"{path} is a folder; give the photos in it, such as {path}/*.jpg")
        try:
            Image.open(path).close()
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} cannot be read as a photo: {error}") from None


def _stems(photos: Sequence[Path]) -> list[str]:
    """Stems of the photos, numbered where several are the same."""
    taken: set[str] = set()
    names = []
    for path in photos:
        name, number = path.stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name.lower())
        names.append(name)
    return names


def _found(
    photos: Sequence[Path],
    model: PretrainedClassifier,
    batch_size: int,
    unread: dict[str, str],
    classes: Any,
    method: str,
    *rest: Any,
) -> Iterator[tuple[Path, Image.Image, dict[str, Tensor]]]:
    """Every photo with what is found in it, on the CPU and in its own pixels."""
    rule, head = rest
    for start in range(0, len(photos), batch_size):
        opened: dict[Path, Image.Image] = {}
        for path in photos[start : start + batch_size]:
            try:
                with Image.open(path) as file:
                    opened[path] = ImageOps.exif_transpose(file).convert("RGB")
            except (OSError, SyntaxError) as error:
                unread[str(path)] = str(error)
        inputs = [_prepared(photo, model) for photo in opened.values()]
        every = localize(model.net, inputs, method, classes, rule, head=head)
        for (path, photo), given, each in zip(opened.items(), inputs, every, strict=True):
            stretch = torch.tensor([photo.width / given.shape[2], photo.height / given.shape[1]] * 2)
            boxes = each["boxes"].cpu() * stretch
            yield path, photo, {name: values.cpu() for name, values in each.items()} | {"boxes": boxes}


def _prepared(photo: Image.Image, model: PretrainedClassifier) -> Tensor:
    pixels = transforms.to_dtype(transforms.pil_to_tensor(photo), torch.float32, scale=True)
    size = [model.size, model.size] if model.square else [model.size]
    resized = transforms.resize(pixels, size, antialias=True)
    normalised: Tensor = transforms.normalize(resized, list(model.mean), list(model.std))
    return normalised


def _results(image: int, found: dict[str, Tensor], there: Tensor) -> list[dict[str, Any]]:
    rows = zip(
        found["boxes"][there].tolist(), found["scores"][there].tolist(), found["labels"][there].tolist(), strict=True
    )
    return [
        {
            "image_id": image,
            "category_id": label,
            "bbox": [round(x0, 2), round(y0, 2), round(x1 - x0, 2), round(y1 - y0, 2)],
            "score": round(score, 6),
        }
        for (x0, y0, x1, y1), score, label in rows
    ]


def _first(labels: Tensor, classes: int) -> int:
    """Number of rows that belong to the first classes."""
    changes = torch.cat([labels.new_ones(1), (labels[1:] != labels[:-1]).long()]).cumsum(0)
    return int((changes <= classes).sum())
