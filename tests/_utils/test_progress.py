"""The time left of a long command: what is known before, counted, and printed."""

from __future__ import annotations

import time

import pytest

from wsolnb._utils import progress
from wsolnb._utils.progress import Outlook, skip, time_left, track


def test_the_rest_is_as_fast_as_what_is_done() -> None:
    with Outlook(10) as outlook:
        assert outlook.left() == time_left() == ""
        for _ in track("ab", "two", 2, units=2):
            time.sleep(0.05)
        assert outlook.started is not None
        outlook.started = time.monotonic() - 60
        assert time_left() == "  about 4:00 left"  # 60 s for two of ten
        skip(6)
        assert outlook.left() == "about 1:00 left"
        assert outlook.left(7200) == "about 2:01:00 left"
    skip(1)
    assert (time_left(), outlook.units) == ("", 4)


def test_headless_work_that_is_not_counted_tells_its_own_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WSOLNB_HEADLESS", "1")
    monkeypatch.setattr(progress, "_SAY_EVERY", 0)
    with Outlook(1):
        for _ in track("abc", "held-out photos", 3):
            time.sleep(0.4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "held-out photos: 1 of 3  about 0:01 left"
    assert lines[2] == "held-out photos: 3 of 3  about 0:00 left" or lines[2] == "held-out photos: 3 of 3  "
    assert list(track("ab", "letters")) == ["a", "b"]
    assert capsys.readouterr().out == ""
