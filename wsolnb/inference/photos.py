"""Localize classes in photo files: an overlay for each photo, and the boxes in COCO format."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from wsolnb._utils.cache import fingerprint
from wsolnb._utils.files import write_atomic
from wsolnb._utils.progress import track
from wsolnb.boxes import BoxRule
from wsolnb.data.readers.images import to_rgb
from wsolnb.inference.found import claimed, require_free
from wsolnb.inference.linear_head import read_linear
from wsolnb.inference.localize import localize
from wsolnb.models.pretrained import PretrainedClassifier
from wsolnb.plots.images import overlay

_PANELS = 5  # classes that an overlay shows at most
_LONGEST = 16  # of a photo's longer side, in shorter ones: features of a longer one could fill the memory


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
    """Localize classes in photos, and write overlays and boxes into a new folder, or go on in one left behind.

    Photos are turned as their EXIF data say, and resized so that their shorter side has the size that the network was
    tested with (both sides, where it takes no other shape). A photo that is given twice, also by another path, counts
    once. Boxes are in pixels of the photo. The folder gets `overlays/NAME.png`; `results.json`, detections for
    `COCO.loadRes` (`bbox` is x, y, width, height; `category_id` is the index of the network's output); and
    `images.json`, their images and categories, for `COCO`. Until the end what was found stands in `unfinished.jsonl`, a
    line for each photo: a call that was stopped or killed goes on from there when it is given again with the same
    photos, weights and settings (device and `batch_size` may be others).

    A photo that does not decode, or is more than 16 times as long as wide, is listed as unread, and the rest is done.

    Args:
        paths: Photo files.
        out: Folder, new or empty, or left behind by the same call.
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
        FileExistsError: The folder is not empty, or of another call; nothing is overwritten.
        BlockingIOError: Another process works in the folder.
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
    require_free(folder)

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
    preparation = [model.size, list(model.mean), list(model.std), model.square]
    files = [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in photos]
    settings = [method, classes, rule, head, list(names), preparation]
    with claimed(folder, fingerprint(model.net.state_dict(), settings, files)) as found:
        (folder / "overlays").mkdir(exist_ok=True)
        stems = dict(zip(photos, _stems(photos), strict=True))
        done = found.photos()
        missing = [path for path in photos if str(path) not in done]
        for path, result in track(_localized(missing, model, batch_size, run), "photos", total=len(missing)):
            if isinstance(result, str):
                found.add({"photo": str(path), "unread": result})
                continue
            photo, rows = result
            picture = _overlay(photo, rows, names)
            picture.save(stream := io.BytesIO(), format="png")
            write_atomic(folder / "overlays" / f"{stems[path]}.png", stream.getvalue())
            boxes = _detections(rows)
            empty = len(rows["labels"]) - len(boxes)
            size = {"width": photo.width, "height": photo.height}
            found.add({"photo": str(path), **size, "boxes": boxes, "empty": empty})
        return Localized(folder, *found.finish(names), repeated)


def _detections(rows: dict[str, Tensor]) -> list[dict[str, Any]]:
    """The boxes of a photo in the format of COCO, without those of classes in whose map there is nothing."""
    detections = []
    columns = (rows[key].tolist() for key in ("boxes", "labels", "scores"))
    for (x0, y0, x1, y1), label, score in zip(*columns, strict=True):
        if not math.isnan(x0):
            box = [round(x0, 2), round(y0, 2), round(x1 - x0, 2), round(y1 - y0, 2)]
            detections.append({"category_id": label, "bbox": box, "score": round(score, 6)})
    return detections


def _overlay(photo: Image.Image, rows: dict[str, Tensor], names: Sequence[str]) -> Image.Image:
    """The photo with maps and boxes of its first classes."""
    labels, scores = rows["labels"].tolist(), rows["scores"].tolist()
    captions = [f"{names[label]} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
    shown = int(rows["labels"].unique_consecutive(return_counts=True)[1][:_PANELS].sum())
    return overlay(photo, rows["boxes"][:shown], rows["maps"][:shown], captions[:shown])


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
        except Image.DecompressionBombError:
            continue  # a photo, but one that will not be read
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


_Rows = tuple[Image.Image, dict[str, Tensor]]  # a photo, and its results with boxes in its own pixels


def _localized(
    photos: Sequence[Path],
    model: PretrainedClassifier,
    batch_size: int,
    run: Callable[[list[Tensor]], list[dict[str, Tensor]]],
) -> Iterator[tuple[Path, _Rows | str]]:
    """Every photo with its results on the CPU, or with the reason why it cannot be read."""
    for start in range(0, len(photos), batch_size):
        opened: dict[Path, Image.Image] = {}
        inputs: list[Tensor] = []
        for path in photos[start : start + batch_size]:
            try:
                with Image.open(path) as file:
                    photo = to_rgb(ImageOps.exif_transpose(file))
                inputs.append(_prepared(photo, model))
            except Exception as error:  # of a damaged file, Pillow's decoders raise almost anything
                yield path, str(error)
            else:
                opened[path] = photo
        for (path, photo), pixels, result in zip(opened.items(), inputs, run(inputs), strict=True):
            scale = torch.tensor([photo.width / pixels.shape[2], photo.height / pixels.shape[1]] * 2)
            rows = {name: values.cpu() for name, values in result.items()}
            yield path, (photo, rows | {"boxes": rows["boxes"] * scale})


def _prepared(photo: Image.Image, model: PretrainedClassifier) -> Tensor:
    """The input of the network: resized and normalised; ValueError for a photo that would be too long."""
    short, long = sorted(photo.size)
    if not model.square and long > _LONGEST * short:
        raise ValueError(
            f"{photo.width} x {photo.height} pixels: with {model.size} on its shorter side it would have "
            f"{model.size * long // short} on the longer one, at most {_LONGEST * model.size} are read: cut it"
        )
    pixels = transforms.to_dtype(transforms.pil_to_tensor(photo), torch.float32, scale=True)
    size = [model.size, model.size] if model.square else [model.size]
    resized = transforms.resize(pixels, size, antialias=True)
    normalised: Tensor = transforms.normalize(resized, list(model.mean), list(model.std))
    return normalised
