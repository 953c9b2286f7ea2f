"""Checkpoints that a kill at any moment cannot break: written under another name first, verified when loaded."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file of tensors of any device and memory layout."""
    return safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})


def read_tensors(path: Path, sha256: str | None, remedy: str) -> dict[str, Tensor]:
    """Read a safetensors file and verify it.

    Args:
        path: The file.
        sha256: What its content must have; None if that is not known.
        remedy: What to do if it is damaged.

    Raises:
        ValueError: If it is missing or damaged.
    """
    try:
        data = path.read_bytes()
        if sha256 is not None and (found := hashlib.sha256(data).hexdigest()) != sha256:
            raise ValueError(f"its SHA-256 is {found[:16]}…, it should be {sha256[:16]}…")
        return safetensors.torch.load(data)
    except (FileNotFoundError, ValueError, SafetensorError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}): {remedy}") from None


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under another name first and put it on the disk, so that nobody ever sees half of it.

    Raises:
        OSError: If it cannot be written; what stood there before stays.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno not in _FULL:
            raise
        free = shutil.disk_usage(path.parent).free
        said = f"no room for {path}: it takes {len(data) / 1e6:.1f} MB, {free / 1e6:.1f} MB are free"
        raise OSError(error.errno, f"{said}; what was saved before is untouched") from error
