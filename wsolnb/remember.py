"""Results that take long to compute and little room, kept on disk beside the trained weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import PIL
import torch
from torch import Tensor

from wsolnb.checkpoints import read_tensors, tensor_bytes, write_whole
from wsolnb.fingerprints import cache_folder, fingerprint


def remembered(
    kind: str, parts: Sequence[Any], compute: Callable[[], dict[str, Tensor]], *, fresh: bool = False
) -> dict[str, Tensor]:
    """Take tensors from the cache if the very same ones were computed before, else compute and keep them.

    Args:
        kind: Name of the folder in `wsolnb.fingerprints.cache_folder`.
        parts: Everything that the result depends on, as for `wsolnb.fingerprints.fingerprint`; the versions of this
            package, PyTorch and Pillow are added.
        compute: Gives the tensors.
        fresh: Compute them anyway.

    Returns:
        The tensors, on the CPU where they come from the cache.

    Raises:
        ValueError: If the file in the cache is damaged.

    Example:
        >>> remembered("examples", ["two and two"], lambda: {"sum": torch.tensor(4)})["sum"]
        tensor(4)
    """
    from wsolnb import __version__

    key = fingerprint(list(parts), f"wsolnb {__version__}, torch {torch.__version__}, pillow {PIL.__version__}")
    path = cache_folder() / kind / f"{key}.safetensors"
    if path.is_file() and not fresh:
        return read_tensors(path, None, "delete it")
    found = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, tensor_bytes(found))
    except OSError as error:
        warnings.warn(f"not kept for the next run: {error}", stacklevel=2)
    return found
