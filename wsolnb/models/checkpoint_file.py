"""Read the weights in a checkpoint as people have them, and run no code in it.

A checkpoint of `torch.save` is a pickle, and a pickle may name any class or function to be called while it is read.
`torch.load(weights_only=True)` knows those of tensors. Whatever else the file names, such as the class of a training's
arguments, is exchanged for an empty class of ours before it is read: it is neither imported nor called.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NoReturn

import torch
from safetensors.torch import load_file
from torch import Tensor

SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar", ".bin", ".ckpt")
_NESTED = ("state_dict_ema", "state_dict", "model_state_dict", "model", "net")  # timm, too, prefers averaged weights
_CODE = {"os", "posix", "nt", "sys", "subprocess", "commands", "shutil", "socket", "importlib", "runpy",
         "pty", "ctypes", "pickle"}  # fmt: skip
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # in pickles that Python 2 reads, too
_DEPTH = 4  # of dictionaries in each other
_VALUES = {"set", "frozenset", "slice", "range", "complex", "bytearray", "object", "list", "dict", "tuple", "int",
           "float", "str", "bytes", "bool"}  # fmt: skip


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dictionary from a file, without running any code in it.

    Files end in `.safetensors`, or are of `torch.save` and end in `.pth`, `.pt`, `.pth.tar`, `.bin` or `.ckpt`. The
    weights may stand under `state_dict_ema`, `state_dict`, `model_state_dict`, `model`, `net` (the first there is), or
    another key if only one holds tensors. All else in the file is skipped.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: An unknown suffix; a file that is damaged, holds no or several dictionaries of tensors, a whole
            network, or names code to be run.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": {"fc.bias": torch.zeros(3)}, "epoch": 9}, Path(folder) / "net.pth")
        ...     read_weights(Path(folder) / "net.pth")
        {'fc.bias': tensor([0., 0., 0.])}
    """
    path = Path(path)
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"weights {str(path)!r}: expected a file ending in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    code: list[str] = []
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            names = _foreign_names(path)
            code = [name for name in names if _is_code(name)]
            content = None if code else _load(path, names)
    except Exception as error:  # a damaged pickle may raise anything
        line = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{path} cannot be read as weights ({line[0][:160]}): save net.state_dict() again") from error
    if code:
        raise ValueError(f"{path} names {code[0]}, code that no weights need: not loaded, get the file from elsewhere")
    return _state(content, path)


class _Skipped:
    """Stands for a class or function that a checkpoint names; takes what that is given, and keeps nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class _SkippedDict:
    """Stands for a class that is filled like a dictionary, and makes one."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return OrderedDict()


class _SkippedList:
    """Stands for a class that is filled like a list, and makes one."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return []


def _load(path: Path, foreign_names: list[str]) -> Any:
    kinds: dict[str, type] = dict.fromkeys(foreign_names, _Skipped)
    while True:
        stand_ins: list[Any] = [(type(name, (kind,), {}), name) for name, kind in kinds.items()]
        try:
            with torch.serialization.safe_globals(stand_ins):
                return torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:  # torch says so where something else than its own is filled
            filled = [name for name, kind in kinds.items() if kind is _Skipped and f".{name}'>" in str(error)]
            if not filled:
                raise
            kinds[filled[0]] = _SkippedList if "append to list" in str(error) else _SkippedDict


def _is_code(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    if module == "builtins":
        return attribute not in _VALUES
    return module.partition(".")[0] in _CODE


def _foreign_names(path: Path) -> list[str]:
    """Classes and functions that a checkpoint names beside those that torch trusts (in the old format, these too)."""
    if zipfile.is_zipfile(path):
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    names: dict[str, None] = {}
    with path.open("rb") as file:  # before torch 1.6: pickles of a magic number, the version, the system, the content
        for _ in range(4):
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    module, _, name = str(argument).partition(" ")
                    names[f"{_RENAMED.get(module, module)}.{name}"] = None
    return list(names)


def _state(content: Any, path: Path) -> dict[str, Tensor]:
    """The dictionary of tensors in what a file holds."""
    for _ in range(_DEPTH):
        if not isinstance(content, Mapping):
            break
        inner = [content[key] for key in _NESTED if key in content and not isinstance(content[key], Tensor | None)]
        inner.sort(key=lambda each: not isinstance(each, Mapping))
        if not inner and not _has_tensors(content):
            keys = [key for key, value in content.items() if isinstance(value, Mapping) and _has_tensors(value)]
            if len(keys) > 1:
                _no_weights(path, f"holds several dictionaries of tensors ({', '.join(map(str, keys))})")
            inner = [content[key] for key in keys]
        if not inner:
            break
        content = inner[0]
    if isinstance(content, _Skipped):
        _no_weights(path, f"holds a whole object ({type(content).__name__})")
    content = content if isinstance(content, Mapping) else {}
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        first = ", ".join(map(str, list(content)[:5]))
        _no_weights(path, "holds no dictionary of tensors" + f" (its keys: {first})" * bool(first))
    return state


def _has_tensors(values: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in values.values())


def _no_weights(path: Path, what: str) -> NoReturn:
    raise ValueError(f"{path} {what}: save net.state_dict() in a file of its own")
