"""A fingerprint depends on whatever determines a result, and on nothing else."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn
from torch.utils.data import TensorDataset

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
