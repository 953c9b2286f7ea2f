"""Load weights by name or from a file into a network, with errors that name the keys that do not fit."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import torchvision
from torch import Tensor, nn

from wsolnb.models.checkpoint_file import SUFFIXES, read_weights

_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")  # of DataParallel, torch.compile, Lightning and people


def weights_for(net: nn.Module, path: str | Path) -> dict[str, Tensor]:
    """Read a file of weights, with the keys of a network: without the prefix that stands before all of them, if any.

    Prefixes are those of DataParallel, `torch.compile` and Lightning (`module.`, `_orig_mod.`, `model.`, `net.`), one
    after the other too, else whatever one prefix stands before most keys of the network. What has another one, such as
    the weights of a loss, is left out.

    Raises:
        ValueError: As `read_weights`, or several prefixes fit equally well (they are named).
        FileNotFoundError: If there is no such file.

    Example:
        >>> import tempfile, torch
        >>> net = nn.Linear(2, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "net.pth.tar"
        ...     torch.save({"state_dict": {f"module.{key}": value for key, value in net.state_dict().items()}}, path)
        ...     list(weights_for(net, path))
        ['weight', 'bias']
    """
    state = read_weights(path)
    expected = [key for key in net.state_dict() if not key.endswith("num_batches_tracked")]
    prefixes = {key.removesuffix(own) for own in expected[:1] + expected[-1:] for key in state if key.endswith(own)}
    fits = {prefix: sum(prefix + own in state for own in expected) for prefix in prefixes | {""}}
    best = [prefix for prefix in fits if fits[prefix] == max(fits.values())]
    if "" in best:
        return state
    if len(best) > 1:
        best = [prefix for prefix in best if not _unwrapped(prefix)] or best
    if len(best) > 1:
        raise ValueError(
            f"{path} holds weights of several networks that fit, under {', '.join(map(repr, sorted(best)))}: "
            "save those of one in a file of their own"
        )
    return {key.removeprefix(best[0]): value for key, value in state.items() if key.startswith(best[0])}


def _unwrapped(prefix: str) -> str:
    """What is left of a prefix without those of wrappers."""
    while prefix.startswith(_WRAPPERS):
        prefix = prefix.partition(".")[2]
    return prefix


def load_into(net: nn.Module, name: str, weights: str | None, heads: tuple[str, ...]) -> None:
    """Load weights into a network in place, but for its classifier.

    `name` is the network's in torchvision and in errors; `weights` is None (the network stays as it is), one of
    torchvision's names, or a file's path. Keys that begin with `heads`, those of the classifier, may be missing, left
    over or of another shape.

    Raises:
        ValueError: If torchvision has no weights of that name, or keys or shapes do not fit (the first are named).
        FileNotFoundError: If `weights` is a path without a file.
        ConnectionError: If they cannot be downloaded.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(nn.Linear(4, 3).state_dict(), Path(folder) / "net.pth")
        ...     load_into(nn.Linear(5, 3), "head", str(Path(folder) / "net.pth"), ())
        Traceback (most recent call last):
        ValueError: weights ... do not fit head: 1 keys of another shape: weight (3, 4) instead of (3, 5); name the ...
    """
    if not weights:
        return
    local = weights.endswith(SUFFIXES) or "/" in weights
    state = weights_for(net, weights) if local else _from_torchvision(name, weights)
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
        remedy = "name the network that they were saved from"
        raise ValueError(f"weights {weights!r} do not fit {name}: {'; '.join(problems)}; {remedy}")
    net.load_state_dict({k: state[k].to(current[k].dtype) for k in body if k in state}, strict=False)


def _from_torchvision(name: str, weights: str) -> dict[str, Tensor]:
    try:
        available = torchvision.models.get_model_weights(name)
    except ValueError as error:
        raise ValueError(f"torchvision has no weights for {name}; give a file ({', '.join(SUFFIXES)})") from error
    if weights not in available.__members__:
        raise ValueError(f"{name} has no weights {weights!r}; known: {', '.join(available.__members__)}, or a file")
    try:
        state: dict[str, Tensor] = available[weights].get_state_dict(progress=True, check_hash=True)
    except URLError as error:
        url = available[weights].url
        raise ConnectionError(
            f"{url} cannot be downloaded ({error.reason}): fetch it elsewhere and give the file"
        ) from None
    return state
