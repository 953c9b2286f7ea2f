"""What other frameworks saved: score maps, one for each image of a split, and class scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wsolnb._utils.progress import headless
from wsolnb.data.readers.protocol import ProtocolSplit
from wsolnb.localization.maps import stretched

_COARSEST = 64  # cells of a side: on coarser maps even noise scores, as the true boxes are truncated to whole cells
_BATCH_PIXELS = 64 * 224 * 224
_Read = Callable[[str], Tensor]  # from image id to map


def read_scores(path: str | Path, split: ProtocolSplit) -> Tensor:
    """Class scores of all images of a split, float64 ``(images, classes)``; only their order in an image matters.

    Args:
        path: A ``.npy`` file ``(images, classes)`` with rows in the order of ``image_ids.txt``, or a ``.safetensors``
            file with one vector ``(classes,)`` for each image id.
        split: The images and their classes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file does not load, has another shape or values that are not finite, lacks an image or has
            one too many, or has no column for the class of an image.

    Example:
        >>> import tempfile
        >>> split = ProtocolSplit(("a.jpg", "b.jpg"), torch.tensor([2, 0]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder) / "logits.npy", np.array([[0.1, 0.2, 0.7], [0.5, 0.2, 0.3]]))
        ...     read_scores(Path(folder) / "logits.npy", split).argmax(dim=1)
        tensor([2, 0])
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no scores at {path}: give a .npy file or a .safetensors file")
    if path.suffix == ".safetensors":
        tensors = _opened(path)
        _match({image: image for image in split.image_ids}, set(tensors.keys()), path, "scores")
        try:
            rows = [tensors.get_tensor(image) for image in split.image_ids]
        except Exception as error:  # of a damaged file, safetensors and torch raise several kinds
            raise ValueError(f"scores {path} do not load: {error}") from None
        for image, row in zip(split.image_ids, rows, strict=True):
            if row.ndim != 1 or row.shape != rows[0].shape:
                shape = f"{tuple(row.shape)} of {image!r}, {tuple(rows[0].shape)} of {split.image_ids[0]!r}"
                raise ValueError(f"scores in {path} must be one vector per image, all of one length, not {shape}")
        scores = torch.stack(rows)
    else:
        try:
            values = np.load(path, allow_pickle=False)
            scores = torch.from_numpy(values.astype(values.dtype.newbyteorder("=")))
        except Exception as error:  # of a damaged file, NumPy raises almost anything
            raise ValueError(f"scores {path} do not load: {error}") from None
    if scores.ndim != 2 or len(scores) != len(split):
        raise ValueError(
            f"scores in {path} must have shape ({len(split)}, classes), a row for each line of image_ids.txt, "
            f"not {tuple(scores.shape)}"
        )
    if scores.dtype == torch.bool or scores.is_complex():
        raise ValueError(f"scores in {path} must be real numbers, not {scores.dtype}")
    scores = scores.double()
    if not bool(scores.isfinite().all()):
        image = split.image_ids[int((~scores.isfinite()).any(dim=1).nonzero()[0])]
        raise ValueError(f"scores in {path} of {image!r} are NaN or infinite")
    if (highest := int(split.labels.max())) >= scores.shape[1]:
        image = split.image_ids[int(split.labels.argmax())]
        raise ValueError(
            f"scores in {path} have {scores.shape[1]} classes (0 to {scores.shape[1] - 1}), but {image!r} is of class "
            f"{highest} in class_labels.txt"
        )
    return scores


def score_in_batches(
    maps: str | Path, split: ProtocolSplit, enlarge: int | None, update: Callable[[Tensor, list[int]], None]
) -> None:
    """Read the maps of a split, and score each batch in a thread while the next one is read.

    A map with a side of fewer than 64 cells, and fewer than its image has pixels, is too coarse for boxes in whole
    cells, and refused unless it is enlarged.

    Args:
        maps: A folder of ``<image id>.npy`` (or with ``.npy`` in place of the image's suffix), or a ``.safetensors``
            file whose keys are the image ids. One map ``(H, W)`` in [0, 1] per image of the split.
        split: The images, and the sizes that maps are compared with.
        enlarge: Side in pixels, 64 or more, of the squares to which all maps are enlarged first: bicubic, and each
            stretched to [0, 1], as the protocol does (224); None for maps as they are.
        update: Called with maps ``(B, H, W)`` of one size and the indices of their images, batch by batch.

    Raises:
        FileNotFoundError: If there are no maps.
        ValueError: If maps and images do not match one to one, or a map is malformed (which one).

    Example:
        >>> import tempfile
        >>> split = ProtocolSplit(("1.jpg",), torch.tensor([0]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder) / "1.npy", np.ones((64, 80), dtype=np.float32))
        ...     score_in_batches(folder, split, None, lambda maps, indices: print(maps.shape, indices))
        torch.Size([1, 64, 80]) [0]
    """
    if enlarge is not None and enlarge < _COARSEST:
        raise ValueError(f"enlarge maps to {_COARSEST} pixels a side or more (--enlarge 224), not to {enlarge}")
    read = _sized(_reader(Path(maps), split), split, enlarge)
    with ThreadPoolExecutor(1) as worker:
        pending = None
        for maps_of_batch, indices in _batches(read, split):
            if pending is not None:
                pending.result()
            pending = worker.submit(update, maps_of_batch, indices)
        if pending is not None:
            pending.result()


def _batches(read: _Read, split: ProtocolSplit) -> Iterator[tuple[Tensor, list[int]]]:
    """Checked maps of one size in batches of bounded memory, and the indices of their images."""
    batch: list[Tensor] = []
    indices: list[int] = []
    for index, image in track(enumerate(split.image_ids), "scoring maps", total=len(split), disable=headless()):
        values = read(image)
        if batch and (values.shape != batch[0].shape or (len(batch) + 1) * values.numel() > _BATCH_PIXELS):
            yield torch.stack(batch), indices
            batch, indices = [], []
        batch.append(values)
        indices.append(index)
    yield torch.stack(batch), indices


def _sized(read: _Read, split: ProtocolSplit, enlarge: int | None) -> _Read:
    """A function from image id to its map, enlarged if asked; a coarse one, or one on its side, is refused."""
    stated = {} if split.sizes is None else dict(zip(split.image_ids, split.sizes.tolist(), strict=True))

    def sized(image: str) -> Tensor:
        values = read(image)
        rows, columns = values.shape
        height, width = stated.get(image, (_COARSEST, _COARSEST))
        if (rows, columns) == (width, height) and rows != columns:
            raise ValueError(
                f"the map of {image!r} has {columns} x {rows} pixels, image_sizes.txt states {width} x {height}: width "
                "and height change places in one of them"
            )
        if enlarge is not None:
            return stretched(values[None], (enlarge, enlarge))[0]
        if rows < min(_COARSEST, height) or columns < min(_COARSEST, width):
            raise ValueError(
                f"the map of {image!r} has {columns} x {rows} pixels, too coarse for its boxes or masks: give enlarge "
                "(--enlarge 224, as the protocol does), or save larger maps"
            )
        return values

    return sized


def _reader(maps: Path, split: ProtocolSplit) -> _Read:
    """A function from image id to its checked map, after maps and images have been matched one to one."""
    if maps.is_dir():
        names = {path.relative_to(maps).as_posix() for path in maps.rglob("*.npy")}
        files = {image: f"{image}.npy" if f"{image}.npy" in names else Path(image).with_suffix(".npy").as_posix()
                 for image in split.image_ids}  # fmt: skip
        _match(files, names, maps, "maps")

        def from_folder(image: str) -> Tensor:
            path = maps / files[image]
            try:
                values = np.load(path, allow_pickle=False)
                return _checked(torch.from_numpy(values.astype(values.dtype.newbyteorder("="))), f"map {path}")
            except Exception as error:  # of a damaged file, NumPy raises almost anything
                message = str(error) if str(path) in str(error) else f"map {path} does not load: {error}"
                raise ValueError(message) from None

        return from_folder
    if not maps.is_file():
        raise FileNotFoundError(f"no maps at {maps}: give a folder of .npy files or a .safetensors file")
    tensors = _opened(maps)
    _match({image: image for image in split.image_ids}, set(tensors.keys()), maps, "maps")

    def from_tensors(image: str) -> Tensor:
        try:
            values = tensors.get_tensor(image)
        except Exception as error:  # of a damaged file, safetensors and torch raise several kinds
            raise ValueError(f"map {image!r} in {maps} does not load: {error}") from None
        return _checked(values, f"map {image!r} in {maps}")

    return from_tensors


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from None


def _match(files: dict[str, str], names: set[str], where: Path, what: str) -> None:
    """Refuse maps (or scores) without an image and images without a map."""
    one = what.removesuffix("s")
    missing = [image for image, file in files.items() if file not in names]
    extra = sorted(names - set(files.values()))
    twice = len(files) - len(set(files.values()))
    if missing or extra or twice:
        problems = [f"{len(names)} {what} in {where} for {len(files)} images"]
        problems += [f"{len(missing)} images have no {one}, the first is {missing[0]!r}"] if missing else []
        problems += [f"{len(extra)} {what} belong to no image, the first is {extra[0]!r}"] if extra else []
        problems += [f"{twice} images share a {one} with another: name the files <image id>.npy"] if twice else []
        raise ValueError("; ".join(problems))


def _checked(values: Tensor, what: str) -> Tensor:
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{what} must have shape (height, width), got {tuple(values.shape)}")
    if not values.is_floating_point():
        raise ValueError(f"{what} must be floating point in [0, 1], not {values.dtype}")
    values = values.float() if values.element_size() < 4 else values
    low, high = torch.aminmax(values)
    if not bool((low >= 0) & (high <= 1)):
        if not bool(values.isfinite().all()):
            raise ValueError(f"{what} holds NaN or infinite values")
        raise ValueError(f"{what} has values from {low:g} to {high:g}, outside of [0, 1]")
    return values
