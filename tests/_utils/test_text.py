from __future__ import annotations

from pathlib import Path

import pytest

from wsolnb._utils.text import read_lines


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_any_system(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(end.join(["käse", "", "a b\x85c", "", ""]).encode(encoding))
    assert read_lines(path) == ["käse", "", "a b\x85c"]
    path.write_bytes(b"")
    assert read_lines(path) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("cat\nkäse\n".encode("cp1252"), r"a\.txt, line 2: byte 0xe4 is no UTF-8: save it as UTF-8"),
        ("cat\ndog".encode("utf-16-le"), r"a\.txt, line 1 has a byte 0, as UTF-16 without a mark has"),
        ("cat".encode("utf-16")[:-1], r"a\.txt, line 1: byte 0x74 is no UTF-16"),
    ],
)
def test_other_encodings_are_named(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_lines(tmp_path / "a.txt")
