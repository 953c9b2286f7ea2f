"""Archives that try to leave their folder, and damaged ones."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from wsolnb.data.download.archives import extract, is_archive


def tar_with(path: Path, *members: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for member in members:
            content = f"content of {member.name}".encode()
            member.size = len(content) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def device(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.CHRTYPE
    return member


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz")])
def test_tar(tmp_path: Path, name: str, mode: str) -> None:
    members = tarfile.TarInfo("b/1.txt"), tarfile.TarInfo("b/c/2.txt"), link("b/here", "c/2.txt")
    archive = tar_with(tmp_path / name, *members, mode=mode)
    assert extract(archive, tmp_path / "out") == 3
    assert (tmp_path / "out/b/c/2.txt").read_text() == (tmp_path / "out/b/here").read_text() == "content of b/c/2.txt"


def test_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.mkdir("b")
        packed.writestr("b/1.txt", "one")
    assert extract(tmp_path / "a.zip", tmp_path / "out") == 1
    assert (tmp_path / "out/b/1.txt").read_text() == "one"


def test_nested_archives_become_folders(tmp_path: Path) -> None:
    inner = [
        tar_with(tmp_path / f"{name}.tar", tarfile.TarInfo(f"{name}_1.JPEG")) for name in ("n01440764", "n01443537")
    ]
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for path in inner:
            tar.add(path, path.name)
    assert extract(tmp_path / "train.tar", tmp_path / "out" / "train", nested=True) == 2
    assert (tmp_path / "out/train/n01443537/n01443537_1.JPEG").is_file()
    escaping = tar_with(tmp_path / "n02085620.tar", tarfile.TarInfo("../../x"))
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        tar.add(escaping, "n02085620.tar")
    with pytest.raises(ValueError, match=r"n02085620\.tar: refused '\.\./\.\./x'"):
        extract(tmp_path / "bad.tar", tmp_path / "out", nested=True)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (lambda: tarfile.TarInfo("/etc/x"), "refused '/etc/x', which would be written outside"),
        (lambda: tarfile.TarInfo("a/../../x"), "refused 'a/../../x'"),
        (lambda: tarfile.TarInfo("..\\x"), "refused"),
        (lambda: tarfile.TarInfo("C:/x"), "refused 'C:/x'"),
        (lambda: link("a", "/etc/passwd"), "refused the link 'a', which points out, to '/etc/passwd'"),
        (lambda: link("b/a", "../../x"), "refused the link 'b/a'"),
        (lambda: link("a", "../x", tarfile.LNKTYPE), "refused the link 'a'"),
        (lambda: link("b/a", "../x", tarfile.LNKTYPE), "refused the link 'b/a'"),
        (lambda: device("null"), "refused 'null'"),
    ],
)
def test_tar_members_that_would_leave(tmp_path: Path, member: Callable[[], tarfile.TarInfo], message: str) -> None:
    archive = tar_with(tmp_path / "a.tar", tarfile.TarInfo("fine.txt"), member())
    with pytest.raises(ValueError, match=message.replace("\\", "\\\\").replace(".", r"\.")):
        extract(archive, tmp_path / "box" / "out")
    assert {path.name for path in (tmp_path / "box").rglob("*")} == {"out", "fine.txt"}
    assert not (tmp_path / "x").exists()


def test_writing_through_a_link(tmp_path: Path) -> None:
    """Each link stays inside by its words; together they lead out, which the data filter notices."""
    members = link("a", "b/c"), link("b", "."), link("d", "a/.."), link("e", "d/../.."), tarfile.TarInfo("e/x")
    archive = tar_with(tmp_path / "a.tar", *members)
    with pytest.raises(ValueError, match="refused"):
        extract(archive, tmp_path / "box" / "out")
    assert not list(tmp_path.rglob("x"))


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "..\\x", "C:\\x"])
def test_zip_members_that_would_leave(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(zipfile.ZipInfo(name), "out")
    with pytest.raises(ValueError, match="which would be written outside of the folder"):
        extract(tmp_path / "a.zip", tmp_path / "box" / "out")
    assert not list((tmp_path / "box" / "out").iterdir())


def test_zip_links_and_encrypted_members(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("here")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(info, "../../x")
    with pytest.raises(ValueError, match="refused the link 'here'"):
        extract(tmp_path / "a.zip", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as packed:
        packed.writestr("secret", "text")
    data = bytearray((tmp_path / "b.zip").read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    (tmp_path / "b.zip").write_bytes(data)
    with pytest.raises(ValueError, match="'secret' is encrypted"):
        extract(tmp_path / "b.zip", tmp_path / "out")


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    whole = tar_with(tmp_path / "a.tar.gz", *(tarfile.TarInfo(f"{k}.txt") for k in range(50)), mode="w:gz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("1.txt", "one" * 100)
    zipped = (tmp_path / "a.zip").read_bytes()
    two = tar_with(tmp_path / "c.tar", tarfile.TarInfo("1.txt"), tarfile.TarInfo("2.txt"))
    bad = {
        "cut.tar.gz": whole[:-30],
        "trailer.tgz": whole[:-12],  # all members are there, not the checksum
        "sum.tgz": whole[:-8] + bytes(4) + whole[-4:],
        "member.tar": two.read_bytes()[:1024],  # the first of two members is whole
        "page.tgz": b"<html>Sign in</html>",
        "cut.zip": zipped[:-30],
        "flipped.zip": zipped.replace(b"oneoneone", b"oneXneone", 1),
        "cut.tar": tar_with(tmp_path / "b.tar", tarfile.TarInfo("1.txt")).read_bytes()[:520],
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} is damaged or cut short"):
            extract(tmp_path / name, tmp_path / "out")
    (tmp_path / "a.rar").touch()
    assert not is_archive("a.rar")
    with pytest.raises(ValueError, match=r"a\.rar is no archive that can be extracted; known: \.zip"):
        extract(tmp_path / "a.rar", tmp_path / "out")


@pytest.mark.parametrize("name", ["a.zip", "a.tgz"])
def test_an_archive_that_would_fill_the_disk_is_refused(tmp_path: Path, name: str) -> None:
    """150 MB of zeros, packed a thousandfold; as many of them without compression are fine."""
    content = bytes(150_000_000)
    if name == "a.zip":
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
            packed.writestr("zeros", content)
    else:
        member = tarfile.TarInfo("zeros")
        member.size = len(content)
        with tarfile.open(tmp_path / name, "w:gz", compresslevel=1) as tar:
            tar.addfile(member, io.BytesIO(content))
    with pytest.raises(ValueError, match=rf"{name}: refused: [\d,]+ bytes would become 150,000,000 or more"):
        extract(tmp_path / name, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
