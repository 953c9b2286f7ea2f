"""Downloads from a server that cuts, truncates, corrupts, changes its files and ignores ranges."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from flaky_server import Server, flaky_server

from wsolnb.data.download.http import digest, download

CONTENT = bytes((k * k + k // 251) % 256 for k in range(100_000))
SHA = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def server() -> Iterator[Server]:
    with flaky_server() as running:
        yield running


def fetch(url: str, path: Path, **how: object) -> str:
    return download(url, path, pause=0.0, **how)  # type: ignore[arg-type]


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_arrives_once(server: Server, tmp_path: Path) -> None:
    url = server.add("/a.bin", CONTENT)
    assert fetch(url, tmp_path / "a.bin", size=len(CONTENT), checksum=SHA) == SHA
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert fetch(url, tmp_path / "a.bin") == SHA
    assert len(server.log) == 1
    assert left(tmp_path) == {"a.bin"}


def test_md5_and_no_checksum(server: Server, tmp_path: Path) -> None:
    md5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    assert fetch(server.add("/a", CONTENT), tmp_path / "a", checksum=md5.upper().replace("MD5", "md5")) == md5
    assert fetch(server.add("/b", CONTENT), tmp_path / "b") == SHA
    assert digest(tmp_path / "a", "md5") == md5


@pytest.mark.parametrize("tag", [None, ""])
def test_cut_connections_are_resumed(server: Server, tmp_path: Path, tag: str | None) -> None:
    url = server.add("/a", CONTENT, cut_after=[30_000, 0, 50_000], tag=tag)
    said: list[str] = []
    assert fetch(url, tmp_path / "a", checksum=SHA, say=said.append) == SHA
    assert [line.split(":")[0] for line in said] == ["a"] * 3
    assert all(line.endswith("again in 0 s") for line in said)
    assert server.ranges("/a") == ["", "bytes=30000-", "bytes=30000-", "bytes=80000-"]
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_without_checksum_and_validator_nothing_is_pieced_together(server: Server, tmp_path: Path) -> None:
    url = server.add("/a", CONTENT, cut_after=[30_000], tag="")
    assert fetch(url, tmp_path / "a") == SHA
    assert server.ranges("/a") == ["", ""]


def test_a_weak_tag_is_no_validator_but_a_date_is(server: Server, tmp_path: Path) -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    url = server.add("/a", CONTENT, cut_after=[30_000], tag='W/"1"', modified=date)
    assert fetch(url, tmp_path / "a") == SHA
    assert server.ranges("/a") == ["", "bytes=30000-"]


def test_a_later_call_goes_on_and_a_dead_server_is_told(server: Server, tmp_path: Path) -> None:
    url = server.add("/a", CONTENT, cut_after=[40_000, 0, 0, 0])
    with pytest.raises(OSError, match=r"cannot be downloaded now .*40,000 bytes are kept in .*a\.part: run the same"):
        fetch(url, tmp_path / "a", checksum=SHA, attempts=2)
    assert left(tmp_path) == {"a.part", "a.part.json"}
    assert fetch(url, tmp_path / "a", checksum=SHA) == SHA
    assert server.ranges("/a")[-1] == "bytes=40000-"
    assert left(tmp_path) == {"a"}


def test_a_server_that_ignores_ranges(server: Server, tmp_path: Path) -> None:
    url = server.add("/a", CONTENT, cut_after=[30_000], ranges=False)
    assert fetch(url, tmp_path / "a", checksum=SHA) == SHA
    assert [status for *_, status in server.log] == [200, 200]
    always = server.add("/b", CONTENT, cut_after=[30_000] * 9, ranges=False)
    with pytest.raises(OSError, match="30,000 bytes are kept"):
        fetch(always, tmp_path / "b", attempts=3)


def test_a_range_that_begins_earlier(server: Server, tmp_path: Path) -> None:
    url = server.add("/a", CONTENT, cut_after=[30_000], shift=1000)
    assert fetch(url, tmp_path / "a", checksum=SHA) == SHA


def test_a_file_that_changed_in_between_starts_again(server: Server, tmp_path: Path) -> None:
    url = server.add("/a", CONTENT, cut_after=[30_000] + [0] * 3)
    with pytest.raises(OSError, match="30,000 bytes are kept"):
        fetch(url, tmp_path / "a", attempts=2)
    other = bytes(reversed(CONTENT))
    server.add("/a", other)
    fetch(url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == other
    assert server.log[-1][2] == 200  # If-Range told the server which version the first half is of


def test_a_complete_part_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    url = server.add("/a", CONTENT, cut_after=[30_000] + [0] * 3)
    with pytest.raises(OSError, match="are kept"):
        fetch(url, tmp_path / "a", attempts=2)
    (tmp_path / "a.part").write_bytes(CONTENT)
    assert fetch(url, tmp_path / "a", checksum=SHA) == SHA
    assert server.log[-1][2] == 416


def test_a_part_that_is_too_long_is_thrown_away(server: Server, tmp_path: Path) -> None:
    url = server.add("/a", CONTENT, cut_after=[30_000] + [0] * 3)
    with pytest.raises(OSError, match="are kept"):
        fetch(url, tmp_path / "a", attempts=2)
    (tmp_path / "a.part").write_bytes(CONTENT * 2)
    assert fetch(url, tmp_path / "a", checksum=SHA) == SHA


def test_a_corrupt_part_is_thrown_away_and_a_corrupt_file_refused(server: Server, tmp_path: Path) -> None:
    url = server.add("/a", CONTENT, cut_after=[30_000] + [0] * 3)
    with pytest.raises(OSError, match="are kept"):
        fetch(url, tmp_path / "a", attempts=2)
    (tmp_path / "a.part").write_bytes(b"?" * 30_000)
    assert fetch(url, tmp_path / "a", checksum=SHA) == SHA
    bad = server.add("/b", CONTENT[:-1] + b"?")
    with pytest.raises(ValueError, match=r"the file has sha256:\w+, expected sha256:\w+; it was removed"):
        fetch(bad, tmp_path / "b", size=len(CONTENT), checksum=SHA)
    assert left(tmp_path) == {"a"}


def test_a_file_of_another_size_is_refused_before_it_is_downloaded(server: Server, tmp_path: Path) -> None:
    url = server.add("/a", CONTENT[:-1])
    with pytest.raises(ValueError, match="has 99,999 bytes now, expected 100,000"):
        fetch(url, tmp_path / "a", size=len(CONTENT), checksum=SHA)
    assert left(tmp_path) == set()


def test_a_truncated_answer_without_length_is_noticed(server: Server, tmp_path: Path) -> None:
    url = server.add("/a", CONTENT, cut_after=[30_000], length=False)
    assert fetch(url, tmp_path / "a", size=len(CONTENT), checksum=SHA) == SHA
    endless = server.add("/b", CONTENT, length=False)
    with pytest.raises(OSError, match="the server sent more than the 90,000 bytes"):
        fetch(endless, tmp_path / "b", size=90_000, attempts=2)


def test_busy_and_refusing_servers(server: Server, tmp_path: Path) -> None:
    url = server.add("/a", CONTENT, statuses=[503, 429, 500])
    assert fetch(url, tmp_path / "a") == SHA
    with pytest.raises(OSError, match="the server answers 404 Not Found; was the file moved"):
        fetch(server.address + "/none", tmp_path / "none")
    with pytest.raises(OSError, match="the server answers 403"):
        fetch(server.add("/b", CONTENT, statuses=[403]), tmp_path / "b")
    with pytest.raises(OSError, match=r"cannot be downloaded now .*ConnectionError: .*refused"):
        fetch("http://127.0.0.1:1/a", tmp_path / "c", attempts=2)
    assert left(tmp_path) == {"a"}


def test_bytes_are_kept_as_stored_whatever_the_server_calls_them(server: Server, tmp_path: Path) -> None:
    url = server.add("/a.tgz", CONTENT, encoding="gzip")
    assert fetch(url, tmp_path / "a.tgz", checksum=SHA) == SHA
