"""Fingerprints of whatever determines a result, and results cached under them."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import PIL
import torch
from platformdirs import user_cache_path
from torch import Tensor, nn
from torch.utils.data import Dataset

from wsolnb._utils.files import read_verified, to_bytes, write_atomic

_SAMPLES = 16  # items that stand for a data set


def cache_folder() -> Path:
    """Folder of trained weights and other cached results: `WSOLNB_CACHE`, else the user's cache folder.

    Example:
        >>> from unittest.mock import patch
        >>> with patch.dict(os.environ, WSOLNB_CACHE="cache"):
        ...     print(cache_folder())
        cache
    """
    return Path(os.environ.get("WSOLNB_CACHE") or user_cache_path("wsolnb"))


def fingerprint(*things: Any) -> str:
    """Hash whatever determines a result: 16 hexadecimal digits, the same in every process.

    Tensors are hashed by content, modules by `repr` and weights, mappings and sequences item by item, in-memory data
    sets whole, other data sets by length, description and a fixed sample of items, anything else by its JSON or `repr`.

    Example:
        >>> fingerprint({"lr": 0.1, "epochs": 2}) == fingerprint({"epochs": 2, "lr": 0.1})
        True
        >>> fingerprint(torch.zeros(2)) == fingerprint(torch.zeros(3))
        False
    """
    digest = hashlib.sha256()
    for part in _parts(list(things)):
        digest.update(part)
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def _parts(thing: Any) -> Iterator[bytes]:
    if isinstance(thing, Tensor):
        tensor = thing.detach().cpu().contiguous()
        yield f"{tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    elif isinstance(thing, nn.Module):
        yield repr(thing).encode()
        yield from _parts(thing.state_dict())
    elif isinstance(thing, Mapping):
        for key in sorted(thing, key=str):
            yield str(key).encode()
            yield from _parts(thing[key])
    elif isinstance(thing, list | tuple):
        yield str(len(thing)).encode()
        for item in thing:
            yield from _parts(item)
    elif isinstance(thing, Dataset):
        yield from _dataset_parts(thing)
    else:
        yield json.dumps(thing, sort_keys=True, default=repr).encode()


def _dataset_parts(dataset: Dataset[Any]) -> Iterator[bytes]:
    tensors = getattr(dataset, "tensors", None)
    if isinstance(tensors, tuple):
        yield from _parts(tensors)
        return
    length: int = len(dataset)  # type: ignore[arg-type]
    yield f"{type(dataset).__qualname__} {length}".encode()
    for name in ("classes", "transform"):
        yield repr(getattr(dataset, name, None)).encode()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for index in sorted({round(i * (length - 1) / (_SAMPLES - 1)) for i in range(_SAMPLES)} if length else ()):
            yield from _parts(dataset[index])


def cached(
    kind: str, parts: Sequence[Any], compute: Callable[[], dict[str, Tensor]], *, fresh: bool = False
) -> dict[str, Tensor]:
    """Take named tensors from the folder `kind` of the cache (on the CPU), or compute and cache them.

    `parts` is everything that determines them, as for `wsolnb._utils.cache.fingerprint`; the versions of this package,
    PyTorch and Pillow are added. If `fresh`, they are computed even if they are cached. A damaged file is an error.

    Example:
        >>> cached("examples", ["two and two"], lambda: {"sum": torch.tensor(4)})["sum"]
        tensor(4)
    """
    versions = f"wsolnb {version('wsolnb')}, torch {torch.__version__}, pillow {PIL.__version__}"
    path = cache_folder() / kind / f"{fingerprint(list(parts), versions)}.safetensors"
    if path.is_file() and not fresh:
        return read_verified(path, None, "delete it")
    tensors = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, to_bytes(tensors))
    except OSError as error:
        warnings.warn(f"not kept for the next run: {error}", stacklevel=2)
    return tensors
