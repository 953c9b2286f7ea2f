"""Fixtures and rules of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

REPO = Path(__file__).resolve().parents[1]

collect_ignore_glob = ["conftest.py", "*/conftest.py", "gpu/parts/*.py"]  # modules of one name; scripts that measure


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures that also count outside of this folder: examples stand in the package."""
    config.pluginmanager.import_plugin("everywhere")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a bench that is marked slow too: `-m slow` decides whether a change lands, and no ratio of speeds may."""
    both = [item.nodeid for item in items if {"slow", "bench"} <= {mark.name for mark in item.iter_markers()}]
    if both:
        raise pytest.UsageError(f"marked both slow and bench: {', '.join(both)}")


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
