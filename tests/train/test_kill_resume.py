"""A training that is killed, interrupted or out of disk space resumes to the same bits as one that was not."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from trained_apart import Server, result

KILLS = 20


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.close()


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, float]], str]:
    """Result of an uninterrupted training that saves only at the end of epochs."""
    cache = tmp_path_factory.mktemp("whole")
    assert server.train(cache, every=1e9) == 0
    history, digest = result(cache)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert len({row["loss"] for row in history}) == 3
    return history, digest


def saved(cache: Path) -> dict[str, str]:
    (folder,) = cache.rglob("*.checkpoint")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def position(cache: Path) -> tuple[int, int]:
    (manifest,) = cache.rglob("manifest.json")
    values = json.loads(manifest.read_text())["values"]
    return len(values["history"]), values["done"]


def until(condition: object, *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "timed out"
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_at_twenty_random_moments(
    server: Server, whole: tuple[list[dict[str, float]], str], tmp_path: Path
) -> None:
    generator, kills, finished, positions = random.Random(0), 0, 0, []
    while kills < KILLS:
        cache = tmp_path / str(finished)
        process = server.start(cache)
        time.sleep(generator.uniform(0, 0.3))
        os.kill(process, signal.SIGKILL)  # a process that has ended but was not waited for still accepts it
        if server.wait(process) == 0:
            assert result(cache) == whole
            finished += 1
        else:
            kills += 1
            positions.append(position(cache) if list(cache.rglob("manifest.json")) else (0, 0))
    last = tmp_path / str(finished)
    assert server.train(last) == 0
    assert result(last) == whole
    assert any(done for _, done in positions), "no checkpoint within an epoch was resumed from"


@pytest.mark.slow
@pytest.mark.parametrize(
    "die",
    ["torn 1", "replace 2", "torn 7", "torn 8", "replace 9", "replaced 9", "replaced 37", "torn 38", "replaced 38"],
)
def test_killed_while_it_writes(
    server: Server, whole: tuple[list[dict[str, float]], str], tmp_path: Path, die: str
) -> None:
    assert server.train(tmp_path, die=die) == -signal.SIGKILL
    assert server.train(tmp_path) == 0
    assert result(tmp_path) == whole


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_tells_how_to_resume(
    server: Server, whole: tuple[list[dict[str, float]], str], tmp_path: Path, number: signal.Signals
) -> None:
    process = server.start(tmp_path, every=1e9, slow=0.02)
    until(lambda: list(tmp_path.rglob("manifest.json")))  # the first epoch is over
    time.sleep(0.1)
    os.kill(process, number)
    assert server.wait(process) == (-number if number == signal.SIGTERM else 1)
    log = (tmp_path / "log.txt").read_text()
    assert f"{number.name}: training stopped; epoch 2 up to batch" in log
    assert "run the same again to go on from there" in log
    assert position(tmp_path) > (1, 0)
    assert server.train(tmp_path, every=1e9) == 0
    assert result(tmp_path) == whole


@pytest.mark.slow
def test_a_full_disk_is_reported_and_loses_nothing(
    server: Server, whole: tuple[list[dict[str, float]], str], tmp_path: Path
) -> None:
    assert server.train(tmp_path, die="replaced 8") == -signal.SIGKILL
    before = saved(tmp_path)
    assert server.train(tmp_path, every=1e9, room=5000) == 1
    log = (tmp_path / "log.txt").read_text()
    assert "no checkpoint was saved, training goes on: [Errno 27] no room for" in log
    assert "OSError: [Errno 27] no room for" in log
    assert saved(tmp_path) == before
    assert not list(tmp_path.rglob("*.partial"))
    assert server.train(tmp_path) == 0
    assert result(tmp_path) == whole


@pytest.mark.slow
def test_the_second_of_two_waits_and_takes_the_weights_of_the_first(
    server: Server, whole: tuple[list[dict[str, float]], str], tmp_path: Path
) -> None:
    first = server.start(tmp_path, slow=0.02)
    until(lambda: list(tmp_path.rglob("manifest.json")))
    second = server.start(tmp_path)
    assert (server.wait(first), server.wait(second)) == (0, 0)
    log = (tmp_path / "log.txt").read_text()
    assert log.count("another process is training the same configuration; waiting for its lock") == 1
    assert log.count("epoch   3/3") == 1
    assert result(tmp_path) == whole
