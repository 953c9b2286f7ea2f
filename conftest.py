"""What every doctest gets: a cache folder of its own, and no figure that another one left open."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

collect_ignore = ["conftest.py"]


@pytest.fixture(autouse=True)
def _tidy_examples(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Examples in docstrings train, remember and draw as a reader's own code would; here, nothing of it stays."""
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
