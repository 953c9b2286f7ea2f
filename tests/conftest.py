"""Fixtures that every test may use, and what every doctest gets."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

REPO = Path(__file__).resolve().parents[1]

collect_ignore_glob = ["conftest.py", "*/conftest.py"]  # modules of one name; none holds a doctest


def pytest_configure(config: pytest.Config) -> None:
    """Make the fixture below known outside of this folder: doctests stand in the package."""
    config.pluginmanager.register(_Doctests())


class _Doctests:
    @pytest.fixture(autouse=True)
    def _tidy_examples(
        self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[None]:
        """A cache folder of its own, and no figure that another example left open."""
        if not isinstance(request.node, pytest.DoctestItem):
            yield
            return
        monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path_factory.mktemp("cache")))
        monkeypatch.setenv("WSOLNB_HEADLESS", "1")
        if "matplotlib" in sys.modules:
            sys.modules["matplotlib"].use("agg")
        yield
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")


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
