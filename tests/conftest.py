"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

REPO = Path(__file__).resolve().parents[1]

collect_ignore = ["conftest.py", "browser/conftest.py"]  # two modules of one name; neither holds a doctest


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photos, annotations and weights, where the machine has them."""
    root = Path(os.environ.get("WSOLNB_SHARED_DATA", REPO.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data at {root}: set WSOLNB_SHARED_DATA to a folder that has it")
    return root
