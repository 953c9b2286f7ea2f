"""Fingerprints of whatever determines a result, and results cached under them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import PIL
import torch
from platformdirs import user_cache_path
from safetensors import safe_open
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

    Tensors are hashed by content; modules by structure, weights, which of them learn, and every setting; mappings and
    sequences item by item; in-memory data sets whole, others by length, description and a fixed sample of items;
    functions by name; anything else by its JSON or `repr`. Classes and functions of this package bring their source
    code, with that of all modules that theirs import.

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


def _parts(thing: Any, above: tuple[int, ...] = ()) -> Iterator[bytes]:
    if type(thing) in (int, float, str):  # an image's seed is a fingerprint of two of these
        yield json.dumps(thing).encode()
        return
    if id(thing) in above:  # it holds itself
        yield str(len(above) - above.index(id(thing))).encode()
        return
    inner = (*above, id(thing))
    if isinstance(thing, Tensor):
        tensor = thing.detach().cpu().contiguous()
        yield f"{tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    elif isinstance(thing, nn.Module):
        for name, module in thing.named_modules():
            yield f"{name} {_named(type(module))}".encode()
            unhashed = _TORCHS_OWN.union(getattr(module, "epoch_state", ()))
            yield from _parts({key: value for key, value in vars(module).items() if key not in unhashed}, inner)
        yield str([name for name, parameter in thing.named_parameters() if parameter.requires_grad]).encode()
        yield from _parts(dict(thing.named_parameters()) | dict(thing.named_buffers()))
    elif isinstance(thing, np.ndarray):
        yield from _parts(torch.from_numpy(thing))
    elif isinstance(thing, set | frozenset):
        yield from _parts(sorted(thing, key=str), inner)
    elif isinstance(thing, Mapping):
        yield f"{len(thing)} keys".encode()
        for key in sorted(thing, key=str):
            yield str(key).encode()
            yield from _parts(thing[key], inner)
    elif isinstance(thing, list | tuple):
        yield str(len(thing)).encode()
        for item in thing:
            yield from _parts(item, inner)
    elif isinstance(thing, Dataset):
        yield from _dataset_parts(thing)
    elif isinstance(thing, torch.Generator):
        yield from _parts(thing.get_state())
    elif isinstance(thing, np.random.Generator):
        yield from _parts(thing.bit_generator.state, inner)
    elif isinstance(thing, MethodType):
        yield from _parts([thing.__func__, thing.__self__], inner)
    elif isinstance(thing, partial):
        yield from _parts([thing.func, thing.args, thing.keywords], inner)
    elif isinstance(thing, type) or hasattr(thing, "__qualname__"):
        yield _named(thing).encode()
    elif is_dataclass(thing):
        yield _named(type(thing)).encode()
        yield from _parts({field.name: getattr(thing, field.name) for field in fields(thing)}, inner)
    elif type(thing).__repr__ is object.__repr__:  # its repr would be an address in memory
        yield _named(type(thing)).encode()
        slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        values = {name: getattr(thing, name) for name in slots if hasattr(thing, name)}
        yield from _parts(values | getattr(thing, "__dict__", {}), inner)
    else:
        yield json.dumps(thing, sort_keys=True, default=repr).encode()


# State that torch keeps in every module, hashed by other means (weights) or of no consequence (hooks).
_TORCHS_OWN = frozenset(vars(nn.Module())) - {"training"} | {"_compiled_call_impl"}


def _named(thing: Any) -> str:
    """Name of a class or function, with the code that it runs where that is this package's."""
    module = getattr(thing, "__module__", None) or ""
    return f"{module}.{thing.__qualname__} {source_digest(module) if module.split('.')[0] == 'wsolnb' else ''}"


_IMPORT = re.compile(r"^\s*(?:from (wsolnb[\w.]*) import (\([^)]*\)|[^\n(]+)|import (wsolnb[\w.]*))", re.MULTILINE)


def _sources(package: Path) -> dict[str, str]:
    """Every module of a package with its source."""
    paths = {path: path.relative_to(package.parent).with_suffix("").parts for path in package.rglob("*.py")}
    return {".".join(parts).removesuffix(".__init__"): path.read_text("utf-8") for path, parts in paths.items()}


_SOURCES = _sources(Path(__file__).resolve().parents[1])
"""Read now: what a running process executes is not what somebody has written to the files since."""


@cache
def source_digest(module: str) -> str:
    """Hash the source of a module of this package and of all that it imports from the package, directly or not.

    Example:
        >>> source_digest("wsolnb.losses") == source_digest("wsolnb.boxes.rule")
        False
    """
    found, waiting = {}, [module]
    while waiting:
        name = waiting.pop()
        source = _SOURCES.get(name)
        if name in found or source is None:  # None: a name that a module defines, not a module
            continue
        found[name] = source
        for origin, names, imported in _IMPORT.findall(source):
            parts = [part.split()[0] for part in names.strip("()").split(",") if part.strip()]
            waiting += [imported] if imported else [origin, *(f"{origin}.{part}" for part in parts)]
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:16]


def machine(device: torch.device) -> str:
    """What decides how a device rounds: the model of a GPU, the threads and instructions of a processor.

    Example:
        >>> machine(torch.device("cpu")).startswith("cpu, ")
        True
    """
    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}"
    if device.type != "cpu":
        return device.type
    return f"cpu, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


def _description(dataset: Dataset[Any]) -> Iterator[bytes]:
    """Class, classes, transform, length and stated `contents` of a data set, and the same of those that it wraps."""
    length: int = len(dataset)  # type: ignore[arg-type]
    yield f"{_named(type(dataset))} {length}".encode()
    yield from _parts([getattr(dataset, name, None) for name in ("classes", "transform", "contents")])
    for name, value in sorted(vars(dataset).items()):
        if isinstance(value, Dataset):
            yield name.encode()
            yield from _description(value)


def _dataset_parts(dataset: Dataset[Any]) -> Iterator[bytes]:
    yield from _description(dataset)
    tensors = getattr(dataset, "tensors", None)
    if isinstance(tensors, tuple):
        yield from _parts(tensors)
        return
    length: int = len(dataset)  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for index in sorted({round(i * (length - 1) / (_SAMPLES - 1)) for i in range(_SAMPLES)} if length else ()):
            yield from _parts(dataset[index])


def cached(
    kind: str, parts: Sequence[Any], compute: Callable[[], dict[str, Tensor]], *, fresh: bool = False
) -> dict[str, Tensor]:
    """Take named tensors from the folder `kind` of the cache (on the CPU), or compute and cache them.

    `parts` is everything that determines them, as for `wsolnb._utils.cache.fingerprint`; the versions of this package,
    PyTorch and Pillow and the code of `compute` are added. If `fresh`, they are computed even if they are cached. A
    damaged file is an error: each carries a digest of its tensors.

    Example:
        >>> cached("examples", ["two and two"], lambda: {"sum": torch.tensor(4)})["sum"]
        tensor(4)
    """
    versions = f"wsolnb {version('wsolnb')}, torch {torch.__version__}, pillow {PIL.__version__}"
    path = cache_folder() / kind / f"{fingerprint(list(parts), versions, compute)}.safetensors"
    if path.is_file() and not fresh:
        tensors = read_verified(path, None, "delete it")
        with safe_open(path, framework="pt") as file:
            stated = (file.metadata() or {}).get("sha256")
        if stated != hashlib.sha256(to_bytes(tensors)).hexdigest():
            raise ValueError(f"{path} is damaged (its tensors are not those that were written): delete it")
        return tensors
    tensors = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, to_bytes(tensors, {"sha256": hashlib.sha256(to_bytes(tensors)).hexdigest()}))
    except OSError as error:
        warnings.warn(f"not kept for the next run: {error}", stacklevel=2)
    return tensors
