"""Splits on disk with score maps."""

from __future__ import annotations

import pytest
from saved_splits import write_boxed, write_masked, write_two_splits


@pytest.fixture
def boxed(tmp_path):
    return write_boxed(tmp_path)


@pytest.fixture
def masked(tmp_path):
    return write_masked(tmp_path)


@pytest.fixture
def two_splits(tmp_path):
    return write_two_splits(tmp_path / "two")
