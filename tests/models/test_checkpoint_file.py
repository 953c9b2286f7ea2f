"""Checkpoints as people have them: the weights found, all else skipped, and no code run."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import enum
import functools
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from wsolnb.models.checkpoint_file import SUFFIXES, read_weights

RAN: list[str] = []


@dataclasses.dataclass
class Config:
    """As people keep beside their weights."""

    lr: float = 0.1

    def __setstate__(self, state: dict[str, Any]) -> None:
        RAN.append("setstate")


class Stage(enum.Enum):
    LAST = 3


class Hyper(dict):
    """A dictionary with a class of its own, as Lightning's."""


class Losses(list):
    """A list with a class of its own."""


class Reducing:
    """Calls something when it is read."""

    def __init__(self, call: Any, *args: Any) -> None:
        self.call = (call, args)

    def __reduce__(self) -> Any:
        return self.call


def run(word: str) -> str:
    RAN.append(word)
    return word


@pytest.fixture
def state() -> dict[str, Tensor]:
    RAN.clear()
    return {"conv.weight": torch.arange(24.0).view(2, 3, 2, 2), "fc.bias": torch.tensor([1.0, 2, 3])}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_is_read(state: dict[str, Tensor], suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    assert same(read_weights(path), state)
    with pytest.raises(
        ValueError, match=r"weights '.*net\.h5': expected a file ending in .*\.pth\.tar, \.bin, \.ckpt$"
    ):
        read_weights(tmp_path / "net.h5")


NESTED = {
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {0: {"step": 1}}}},
    "model": lambda s: {"model": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
    "net": lambda s: {"net": s, "acc": 93.1},
    "averaged first": lambda s: {
        "state_dict": {k: v + 1 for k, v in s.items()},
        "state_dict_ema": s,
        "arch": "resnet18",
    },
    "no average": lambda s: {"state_dict": s, "state_dict_ema": None},
    "twice": lambda s: {"model": {"state_dict": s}},
    "its own key": lambda s: {"generator": s, "epoch": 1},
    "beside numbers": lambda s: s | {"epoch": 3, "lr": 0.1},
    "ordered": lambda s: {"state_dict": collections.OrderedDict(s)},
    "parameters": lambda s: {"state_dict": {k: nn.Parameter(v) for k, v in s.items()}},
}


@pytest.mark.parametrize("nest", NESTED)
@pytest.mark.parametrize("old", [False, True], ids=["zip", "format before 1.6"])
def test_weights_are_found_where_they_stand(state: dict[str, Tensor], nest: str, old: bool, tmp_path: Path) -> None:
    torch.save(NESTED[nest](state), tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
    assert same(read_weights(tmp_path / "w.pth"), state)


BESIDE = {
    "Namespace": argparse.Namespace(lr=1, path=Path("runs")),
    "NumPy scalar": np.float64(0.7),
    "NumPy array": np.arange(3),
    "dataclass": Config(),
    "enum": Stage.LAST,
    "dictionary of its own": Hyper(lr=Hyper(start=1)),
    "list of its own": Losses([1.0, 2.0]),
    "date": datetime.datetime(2020, 1, 2),
    "set": {1, 2},
    "defaultdict": collections.defaultdict(list, a=[1]),
    "deque": collections.deque([1, 2], maxlen=4),
    "partial": functools.partial(run, "partial"),
    "a function's result": Reducing(run, "reduce"),
    "network": nn.Linear(2, 2),
}


@pytest.mark.parametrize("kind", BESIDE)
@pytest.mark.parametrize("old", [False, True], ids=["zip", "format before 1.6"])
def test_what_stands_beside_is_skipped_and_nothing_of_it_runs(
    state: dict[str, Tensor], kind: str, old: bool, tmp_path: Path
) -> None:
    content = {"args": BESIDE[kind], "state_dict": state, "more": [BESIDE[kind]]}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
    RAN.clear()
    trusted = set(torch.serialization.get_safe_globals())
    if kind == "network" and old:  # torch does not read networks in it
        with pytest.raises(ValueError, match=r"w\.pth cannot be read as weights \(.*\): save net.state_dict\(\) again"):
            read_weights(tmp_path / "w.pth")
    else:
        assert same(read_weights(tmp_path / "w.pth"), state)
    assert RAN == []
    assert set(torch.serialization.get_safe_globals()) == trusted


@pytest.mark.parametrize("old", [False, True], ids=["zip", "format before 1.6"])
@pytest.mark.parametrize("call", ["exec", "eval", "__import__", "getattr", "system", "Popen", "run_path"])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(
    state: dict[str, Tensor], call: str, old: bool, tmp_path: Path
) -> None:
    import os
    import runpy
    import subprocess

    mark = tmp_path / "ran"
    (tmp_path / "code.py").write_text(f"open({str(mark)!r}, 'w')")
    harm = {
        "exec": Reducing(exec, f"open({str(mark)!r}, 'w')"),
        "eval": Reducing(eval, f"open({str(mark)!r}, 'w')"),
        "__import__": Reducing(__import__, "code"),
        "getattr": Reducing(getattr, argparse.Namespace(a=1), "a"),
        "system": Reducing(os.system, f"touch {mark}"),
        "Popen": Reducing(subprocess.Popen, ["touch", str(mark)]),
        "run_path": Reducing(runpy.run_path, str(tmp_path / "code.py")),
    }[call]
    for content in ({"state_dict": state, "args": harm}, harm, {"fc.bias": harm}):
        torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
        with pytest.raises(
            ValueError, match=rf"w\.pth names \S+\.{call}, code that no weights need: not loaded"
        ) as info:
            read_weights(tmp_path / "w.pth")
        assert "\n" not in str(info.value)
        assert not mark.exists()


def test_a_plain_pickle_that_calls_something_does_not_run(tmp_path: Path) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "w.bin").write_bytes(pickle.dumps(Reducing(run, "pickle"), protocol))
        with pytest.raises(ValueError, match=r"w\.bin "):
            read_weights(tmp_path / "w.bin")
    assert "pickle" not in RAN


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no dictionary of tensors: save net.state_dict() in a file of its own"),
        ({"epoch": 3, "best": 0.5}, "holds no dictionary of tensors (its keys: epoch, best): save"),
        ([torch.ones(2)], "holds no dictionary of tensors: save"),
        (torch.ones(2), "holds no dictionary of tensors: save"),
        (nn.Linear(2, 2), "holds a whole object (torch.nn.modules.linear.Linear): save net.state_dict()"),
        ({"model": nn.Linear(2, 2)}, "holds a whole object (torch.nn.modules.linear.Linear): save"),
        (
            {"generator": {"w": torch.ones(1)}, "critic": {"w": torch.ones(1)}, "epoch": 2},
            "holds several dictionaries of tensors (generator, critic): save",
        ),
    ],
)  # fmt: skip
def test_what_holds_no_weights_is_named_in_one_line(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'w.pt'} {message}")) as info:
        read_weights(tmp_path / "w.pt")
    assert "\n" not in str(info.value)


def test_damaged_files_are_named_in_one_line(state: dict[str, Tensor], tmp_path: Path) -> None:
    for old in (False, True):
        torch.save(state, tmp_path / "whole.pth", _use_new_zipfile_serialization=not old)
        data = (tmp_path / "whole.pth").read_bytes()
        for cut in (b"", data[:7], data[: len(data) // 2], data[:-9], b"\x80\x02garbage", b"<html>not found</html>"):
            (tmp_path / "cut.pth").write_bytes(cut)
            with pytest.raises(ValueError, match=r"cut\.pth (cannot be read as weights|holds no dictionary)") as info:
                read_weights(tmp_path / "cut.pth")
            assert "\n" not in str(info.value)
    assert "code" not in sys.modules or not str(getattr(sys.modules["code"], "__file__", "")).startswith(str(tmp_path))
