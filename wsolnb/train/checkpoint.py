"""Checkpoints that survive a kill at any moment: written atomically, verified when loaded."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wsolnb._utils.files import read_verified, to_bytes, write_atomic

_FORMAT = 1
_MANIFEST = "manifest.json"


class Checkpoint:
    """The state of a training in a folder: tensors in a safetensors file, everything else in a manifest that names it.

    The manifest is replaced atomically once its tensors are on disk, so it always describes a complete checkpoint.
    One with another key (the fingerprint of the training) or of other versions of the libraries is refused. `training`
    is the fingerprint of what is trained, and `how` it is: on how many processes, say.

    Example:
        >>> import tempfile
        >>> checkpoint = Checkpoint(Path(tempfile.mkdtemp()) / "net.checkpoint", "a1", "1.0")
        >>> checkpoint.save({"weight": torch.ones(2)}, {"epoch": 3})
        >>> checkpoint.load()
        ({'weight': tensor([1., 1.])}, {'epoch': 3})
    """

    def __init__(
        self, folder: Path, key: str, version: str, *, training: str = "", how: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self.key, self.version = folder, key, version
        self.training, self.how = training, dict(how or {})

    def save(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Replace the checkpoint by these tensors and JSON values.

        Raises:
            OSError: If it cannot be written, for example on a full disk; the previous checkpoint stays.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        data = to_bytes(tensors)
        digest = hashlib.sha256(data).hexdigest()
        name = f"{digest[:16]}.safetensors"
        head = {"format": _FORMAT, "key": self.key, "version": self.version, "training": self.training, "how": self.how}
        content = json.loads(json.dumps({**head, "tensors": name, "sha256": digest, "values": dict(values)}))
        write_atomic(self.folder / name, data)
        write_atomic(self.folder / _MANIFEST, json.dumps({**content, "digest": _digest(content)}).encode())
        for path in self.folder.iterdir():
            if path.name not in (name, _MANIFEST):
                path.unlink(missing_ok=True)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Read and verify the tensors and values; None if nothing was saved.

        Raises:
            ValueError: If it is damaged, or of another training or other versions; nothing is changed.
        """
        path = self.folder / _MANIFEST
        if not path.is_file():
            return None
        remedy = f"delete {self.folder} to train from the start"
        try:
            content = json.loads(path.read_bytes())
            digest = content.pop("digest")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error!r}): {remedy}") from None
        if digest != _digest(content):
            raise ValueError(f"{path} is damaged: its content does not have the digest it names; {remedy}")
        if content["format"] != _FORMAT:
            raise ValueError(f"{path} has format {content['format']}, this version reads {_FORMAT}: {remedy}")
        if content["key"] != self.key:
            raise ValueError(
                f"{path} belongs to another training (key {content['key']}, this one has {self.key}): another model, "
                f"data set, objective or plan; {remedy}"
            )
        if content["version"] != self.version:
            raise ValueError(f"{path} was saved by {content['version']}, this is {self.version}: {remedy}")
        return read_verified(self.folder / content["tensors"], content["sha256"], remedy), content["values"]

    def passed_over(self) -> list[str]:
        """A line for each checkpoint beside this one, of the same training made in another way, if this is not there.

        Example:
            >>> Checkpoint(Path("net.checkpoint"), "a1", "1.0", training="b2").passed_over()
            []
        """
        if (self.folder / _MANIFEST).is_file():
            return []
        lines = []
        for path in sorted(self.folder.parent.glob(f"*{self.folder.suffix}/{_MANIFEST}")):
            try:
                content = json.loads(path.read_bytes())
                how, epochs = dict(content["how"]), len(content["values"]["history"])
                same = content["training"] == self.training
            except (OSError, ValueError, KeyError, TypeError):
                continue  # damaged, or of a version that did not say
            if same:
                made = (f"{name} {how.get(name)}, here {now}" for name, now in self.how.items() if how.get(name) != now)
                lines.append(
                    f"passed over {path.parent}, {epochs} epochs of this training, made with {'; '.join(made)}"
                )
        return lines

    def remove(self) -> None:
        """Delete it, the manifest first."""
        (self.folder / _MANIFEST).unlink(missing_ok=True)
        if self.folder.is_dir():
            shutil.rmtree(self.folder)


def optimizer_parts(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of an optimizer as named tensors and JSON values.

    Example:
        >>> optimizer_parts(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5))[1]["groups"][0]["lr"]
        0.5
    """
    state = optimizer.state_dict()
    entries = {f"{index}.{name}": entry for index, slot in state["state"].items() for name, entry in slot.items()}
    tensors = {name: entry for name, entry in entries.items() if isinstance(entry, Tensor)}
    rest = {name: entry for name, entry in entries.items() if name not in tensors}
    return tensors, {"groups": state["param_groups"], "rest": rest}


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Restore what :func:`optimizer_parts` returned, in the memory layout of the parameters.

    Example:
        >>> optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5)
        >>> restore_optimizer(optimizer, *optimizer_parts(optimizer))
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, entry in {**values["rest"], **tensors}.items():
        index, _, name = key.partition(".")
        if isinstance(entry, Tensor):
            parameter = parameters[int(index)]
            like = parameter if entry.shape == parameter.shape else entry
            entry = torch.empty_like(like, dtype=entry.dtype, requires_grad=False).copy_(entry)
        state.setdefault(int(index), {})[name] = entry
    optimizer.load_state_dict({"state": state, "param_groups": values["groups"]})


def random_states() -> dict[str, Any]:
    """The states of all random number generators of this process, as JSON values.

    Example:
        >>> sorted(random_states())
        ['cuda', 'numpy', 'python', 'torch']
    """
    name, keys, *rest = np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "torch": to_text(torch.get_rng_state()),
        "cuda": [to_text(state) for state in cuda],
        "python": random.getstate(),
        "numpy": [name, np.asarray(keys).tolist(), *rest],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Restore what :func:`random_states` returned.

    Example:
        >>> restore_random_states(random_states())
    """
    torch.set_rng_state(from_text(states["torch"]))
    if states["cuda"] and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all([from_text(text) for text in states["cuda"]])
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))


def restore_module(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load weights that were read from `path` into a module; names or shapes that do not fit raise ValueError.

    Example:
        >>> restore_module(nn.Linear(1, 1), nn.Linear(1, 1).state_dict(), Path("net.safetensors"))
    """
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise ValueError(f"{path} holds the weights of another model: {error}") from None


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def to_text(state: Tensor) -> str:
    """The state of a generator, bytes, as a JSON value.

    Example:
        >>> to_text(torch.tensor([0, 1, 255], dtype=torch.uint8))
        'AAH/'
    """
    return base64.b64encode(state.cpu().numpy().tobytes()).decode()


def from_text(text: str) -> Tensor:
    """What :func:`to_text` was given.

    Example:
        >>> from_text("AAH/")
        tensor([  0,   1, 255], dtype=torch.uint8)
    """
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
