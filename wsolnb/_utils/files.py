"""Files that are written atomically and verified when read."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

if TYPE_CHECKING:
    from torch import Tensor

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def to_bytes(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Serialize tensors of any device and memory layout to safetensors."""
    import safetensors.torch

    return safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata)


def read_verified(path: Path, sha256: str | None, remedy: str) -> dict[str, Tensor]:
    """Read a safetensors file and check its SHA-256, if given; the error for a damaged one ends with the remedy."""
    import safetensors.torch

    try:
        data = path.read_bytes()
        if sha256 is not None and (digest := hashlib.sha256(data).hexdigest()) != sha256:
            raise ValueError(f"its SHA-256 is {digest[:16]}…, it should be {sha256[:16]}…")
        return safetensors.torch.load(data)
    except (FileNotFoundError, ValueError, SafetensorError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}): {remedy}") from None


def write_atomic(path: Path, data: bytes) -> None:
    """Write to a temporary file, flush it to disk and rename it, so that no reader ever sees half of it.

    If it cannot be written (OSError), the previous file stays.
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
        message = f"no room for {path}: it takes {len(data) / 1e6:.1f} MB, {free / 1e6:.1f} MB are free"
        raise OSError(error.errno, f"{message}; what was saved before is untouched") from error
