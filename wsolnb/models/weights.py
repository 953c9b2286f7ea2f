"""Load weights by name or from a file into a network, with errors that name the keys that do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

SUFFIXES = (".safetensors", ".pth", ".pt")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dictionary from a `.safetensors`, `.pth` or `.pt` file, without running any code in it.

    Files of `torch.save` are read with `weights_only=True`; the weights may stand under a key `state_dict` or `model`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the suffix is unknown or the file cannot be read as weights.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": {"fc.bias": torch.zeros(3)}}, Path(folder) / "net.pth")
        ...     read_weights(Path(folder) / "net.pth")
        {'fc.bias': tensor([0., 0., 0.])}
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"weights {str(path)!r}: expected a file ending in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    safe = path.suffix == ".safetensors"
    state: Any
    try:
        state = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as weights: {error}") from error
    except Exception as error:  # the unpickler's error class differs between versions of torch
        raise ValueError(f"{path} holds more than tensors and was not loaded: {error}") from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path} holds no dictionary of tensors")
    return dict(state)


def load_into(net: nn.Module, name: str, weights: str | None, heads: tuple[str, ...]) -> None:
    """Load weights into a network in place, but for its classifier.

    `name` is the network's in torchvision and in errors; `weights` is None (the network stays as it is), one of
    torchvision's names, or a file's path. Keys that begin with `heads`, those of the classifier, may be missing, left
    over or of another shape.

    Raises:
        ValueError: If torchvision has no weights of that name, or keys or shapes do not fit (the first are named).
        FileNotFoundError: If `weights` is a path without a file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(nn.Linear(4, 3).state_dict(), Path(folder) / "net.pth")
        ...     load_into(nn.Linear(5, 3), "head", str(Path(folder) / "net.pth"), ())
        Traceback (most recent call last):
        ValueError: weights ... do not fit head: 1 keys of another shape: weight (3, 4) instead of (3, 5)
    """
    if not weights:
        return
    local = weights.endswith(SUFFIXES) or "/" in weights
    state = read_weights(weights) if local else _from_torchvision(name, weights)
    current = net.state_dict()
    body = [k for k in current if not k.startswith(heads)] if heads else list(current)
    missing = [k for k in body if k not in state and not k.endswith("num_batches_tracked")]
    extra = [k for k in state if k not in current and not k.startswith(heads or ("\0",))]
    shapes = [
        f"{k} {tuple(state[k].shape)} instead of {tuple(current[k].shape)}"
        for k in body
        if k in state and state[k].shape != current[k].shape
    ]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
        for what, keys in (("missing keys", missing), ("unknown keys", extra), ("keys of another shape", shapes))
        if keys
    ]
    if problems:
        raise ValueError(f"weights {weights!r} do not fit {name}: {'; '.join(problems)}")
    net.load_state_dict({k: state[k].to(current[k].dtype) for k in body if k in state}, strict=False)


def _from_torchvision(name: str, weights: str) -> dict[str, Tensor]:
    try:
        available = torchvision.models.get_model_weights(name)
    except ValueError as error:
        raise ValueError(f"torchvision has no weights for {name}; give a file ({', '.join(SUFFIXES)})") from error
    if weights not in available.__members__:
        raise ValueError(f"{name} has no weights {weights!r}; known: {', '.join(available.__members__)}, or a file")
    state: dict[str, Tensor] = available[weights].get_state_dict(progress=True, check_hash=True)
    return state
