"""Fixtures of all tests, and of the examples in docstrings: a pytest plugin that tests/conftest.py loads."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _empty_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start with an empty cache: weights in the user's own would answer in place of the code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSOLNB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _tidy_examples(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Give every example an empty cache, and close the figures that it leaves open."""
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
