"""A fingerprint depends on whatever determines a result, and on nothing else."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Subset, TensorDataset
from torchvision.transforms import v2

from wsolnb._utils import cache
from wsolnb._utils.cache import fingerprint
from wsolnb.data.critters import World


def test_modules_count_by_structure_and_weights() -> None:
    a, b = nn.Linear(2, 3), nn.Linear(2, 3)
    assert fingerprint(a) != fingerprint(b)
    b.load_state_dict(a.state_dict())
    assert fingerprint(a) == fingerprint(b)
    assert fingerprint(nn.Sequential(nn.ReLU())) != fingerprint(nn.Sequential(nn.GELU()))


def test_tensors_count_by_type_shape_and_value() -> None:
    variants = [
        torch.zeros(6),
        torch.zeros(2, 3),
        torch.zeros(6).int(),
        torch.ones(6),
        torch.tensor(0.0),
        torch.zeros(0),
    ]
    assert len({fingerprint(v) for v in variants}) == len(variants)


def test_parts_do_not_run_together() -> None:
    assert fingerprint({"a": {"b": 1}, "c": 2}) != fingerprint({"a": {"b": 1, "c": 2}})
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint([1, 2], 3) != fingerprint([1], 2, 3)


def test_data_sets_count_by_their_images() -> None:
    images = torch.zeros(20, 3, 4, 4, dtype=torch.uint8)
    other = images.clone()
    other[13, 1, 2, 2] = 1
    labels = torch.zeros(20)
    assert fingerprint(TensorDataset(images, labels)) != fingerprint(TensorDataset(other, labels))
    world = World(size=32)
    assert fingerprint(world.singles(5)) == fingerprint(world.singles(5))
    assert len({fingerprint(d) for d in (world.singles(5), world.singles(6), world.singles(5, seed=1))}) == 3


def test_the_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    fingerprint(World(size=32).singles(3))
    assert torch.equal(before, torch.get_rng_state())


def test_it_is_the_same_in_every_process() -> None:
    code = "from wsolnb._utils.cache import fingerprint; print(fingerprint({'b': 1.5, 'a': ['x', None]}))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert printed == fingerprint({"a": ["x", None], "b": 1.5})


def test_settings_that_no_repr_shows_count() -> None:
    class Scaled(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.linear, self.scale = nn.Linear(2, 2), scale
            self.register_buffer("hidden", torch.full((1,), scale), persistent=False)

    torch.manual_seed(0)
    a = Scaled(1.0)
    b = copy.deepcopy(a)
    assert repr(a) == repr(b)
    assert fingerprint(a) == fingerprint(b)
    b.scale = 2.0
    assert fingerprint(a) != fingerprint(b)
    b.scale = 1.0
    b.hidden += 1
    assert fingerprint(a) != fingerprint(b)
    b.hidden -= 1
    b.linear.bias.requires_grad_(False)
    assert fingerprint(a) != fingerprint(b)


def test_objects_without_a_repr_count_by_what_they_hold() -> None:
    class Holder:
        def __init__(self, value: Any) -> None:
            self.value, self.itself = value, self

    assert fingerprint(Holder(1)) == fingerprint(Holder(1))
    assert fingerprint(Holder(1)) != fingerprint(Holder(2))
    assert fingerprint(Holder(np.zeros(5000))) != fingerprint(Holder(np.arange(5000)))  # whose repr is cut
    assert fingerprint({"b", "a"}) == fingerprint({"a", "b"})
    assert fingerprint(partial(max, 1)) != fingerprint(partial(max, 2))


def test_code_counts_and_what_it_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "wsolnb"
    (package / "room").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "room" / "__init__.py").write_text("from wsolnb.room.deep import value as value\n")
    (package / "room" / "deep.py").write_text("value = 1\n")
    (package / "loss.py").write_text("from wsolnb.room import (\n    value,\n)\n")
    (package / "other.py").write_text("x = 1\n")
    monkeypatch.setattr(cache, "_SOURCES", cache._sources(package))
    cache.source_digest.cache_clear()
    try:
        loss, other = cache.source_digest("wsolnb.loss"), cache.source_digest("wsolnb.other")
        (package / "room" / "deep.py").write_text("value = 2\n")
        cache.source_digest.cache_clear()
        assert cache.source_digest("wsolnb.loss") == loss  # what is imported is what runs
        monkeypatch.setattr(cache, "_SOURCES", cache._sources(package))
        cache.source_digest.cache_clear()
        assert cache.source_digest("wsolnb.loss") != loss
        assert cache.source_digest("wsolnb.other") == other
    finally:
        cache.source_digest.cache_clear()


def test_data_sets_count_by_what_they_wrap() -> None:
    class Images(TensorDataset):
        def __init__(self, transform: Any) -> None:
            super().__init__(torch.zeros(4, 3, 4, 4))
            self.transform = transform

    class Other(Images):
        """The same images by other code."""

    erase = [v2.RandomErasing(p) for p in (0.5, 0.501)]
    assert fingerprint(Images(erase[0])) == fingerprint(Images(v2.RandomErasing(0.5)))
    assert fingerprint(Images(erase[0])) != fingerprint(Images(erase[1]))
    assert fingerprint(Images(None)) != fingerprint(Other(None))
    assert fingerprint(Subset(Images(erase[0]), [0, 1])) != fingerprint(Subset(Images(erase[1]), [0, 1]))


def test_odd_objects_have_a_key_that_every_process_shares() -> None:
    @dataclass(frozen=True)
    class Long:
        values: torch.Tensor

    class Slotted:
        __slots__ = ("value",)

        def __init__(self, value: int) -> None:
            self.value = value

        def method(self) -> int:
            return self.value

    assert fingerprint(Long(torch.zeros(5000))) != fingerprint(Long(torch.arange(5000.0)))  # whose repr is cut
    assert fingerprint(Slotted(1)) == fingerprint(Slotted(1))
    assert fingerprint(Slotted(1)) != fingerprint(Slotted(2))
    assert fingerprint(Slotted(1).method) != fingerprint(Slotted(2).method)
    assert fingerprint(torch.Generator().manual_seed(1)) != fingerprint(torch.Generator().manual_seed(2))
    assert fingerprint(np.random.default_rng(1)) == fingerprint(np.random.default_rng(1))
    assert fingerprint(object()) == fingerprint(object())
