"""Files that are written atomically and verified when read."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
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


def require_new_folder(folder: Path, but: Collection[str] = ()) -> None:
    """Refuse a folder for new results that holds anything already, except for files of the given names.

    Example:
        >>> require_new_folder(Path("new-folder"))
    """
    if folder.exists() and (not folder.is_dir() or any(path.name not in but for path in folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is no empty folder: nothing is overwritten, give a new folder")


def write_atomic(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write to a temporary file, flush it to disk and rename it, so that no reader ever sees half of it.

    Data may come in parts, which need not fit into memory together.

    If it cannot be written (OSError, which names the file), the previous file stays.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomic(Path(folder) / "a.txt", b"one")
        ...     [path.name for path in Path(folder).iterdir()]
        ['a.txt']
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            for part in [data] if isinstance(data, bytes) else data:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno not in _FULL:
            raise OSError(error.errno, f"{path} cannot be written: {error.strerror}") from error
        free = shutil.disk_usage(path.parent).free
        size = f"it takes {len(data) / 1e6:.1f} MB, " if isinstance(data, bytes) else ""
        message = f"no room for {path}: {size}{free / 1e6:.1f} MB are free"
        raise OSError(error.errno, f"{message}; what was saved before is untouched") from error
