"""Extract archives from the internet safely: no member may be written outside of the folder."""

from __future__ import annotations

import gzip
import posixpath
import re
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path

from tqdm import tqdm

from wsolnb._utils.progress import headless

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
_DAMAGED = (tarfile.ReadError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error)
_RATIO, _SMALL = 100, 100 * 10**6  # photos hardly shrink, JSON to a tenth; bytes that may come from whatever


def is_archive(path: str | Path) -> bool:
    """Whether `extract` knows the suffix of a file.

    >>> is_archive("a.tar.gz"), is_archive("a.txt")
    (True, False)
    """
    return str(path).endswith(SUFFIXES)


def extract(archive: str | Path, into: str | Path, *, nested: bool = False) -> int:
    """Extract an archive into a folder; returns the number of files written.

    Absolute names, names with `..`, links that point out of the folder, links in zip files, devices and encrypted
    members are refused, not renamed, and so is an archive that grows more than a hundredfold. Members of tar files also
    pass Python's `data` filter.

    Args:
        archive: A .zip, .tar, .tar.gz or .tgz file.
        into: Folder; it is created if necessary.
        nested: Also extract the tar files in the archive, each into a folder of its name (ImageNet's training images).

    Raises:
        ValueError: If a member is refused, or the archive is damaged, truncated or of another kind.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.zip"
    ...     with zipfile.ZipFile(path, "w") as made:
    ...         made.writestr("photos/1.txt", "one")
    ...     extract(path, Path(folder) / "out"), (Path(folder) / "out" / "photos" / "1.txt").read_text()
    (1, 'one')
    """
    archive, into = Path(archive), Path(into)
    into.mkdir(parents=True, exist_ok=True)
    bar = tqdm(desc=f"extracting {archive.name}", unit=" files", disable=headless(), leave=False)
    try:
        with bar:
            if archive.name.endswith(".zip"):
                return _unzip(archive, into, bar)
            if is_archive(archive):
                with tarfile.open(archive) as tar:
                    return _untar(tar, archive, into, bar, archive.stat().st_size, nested=nested)
    except _DAMAGED as error:
        raise ValueError(f"{archive} is damaged or cut short: {error or type(error).__name__}") from None
    raise ValueError(f"{archive} is no archive that can be extracted; known: {', '.join(SUFFIXES)}")


def _untar(tar: tarfile.TarFile, archive: Path, into: Path, bar: tqdm, packed: int, *, nested: bool = False) -> int:
    if not hasattr(tarfile, "data_filter"):
        raise ValueError("this Python cannot extract tar files safely: take 3.11.4 or later")
    count = size = 0
    for member in tar:
        size += member.size
        _check_ratio(size, packed, archive)
        _check_name(member.name, archive)
        if member.issym() or member.islnk():
            base = posixpath.dirname(member.name) if member.issym() else ""
            target = posixpath.normpath(posixpath.join(base, member.linkname))
            if posixpath.isabs(member.linkname) or target.split("/")[0] == "..":
                raise ValueError(
                    f"{archive}: refused the link {member.name!r}, which points out, to {member.linkname!r}"
                )
        if nested and member.isfile() and member.name.endswith(".tar"):
            with tar.extractfile(member) as file, tarfile.open(fileobj=file) as inner:  # type: ignore[union-attr]
                count += _untar(inner, archive / member.name, into / Path(member.name).stem, bar, packed)
            continue
        try:
            tar.extract(member, into, filter="data")
        except tarfile.FilterError as error:
            raise ValueError(f"{archive}: refused {member.name!r}: {error}") from None
        count += not member.isdir()
        bar.update(not member.isdir())
    _check_end(tar)
    return count


def _check_end(tar: tarfile.TarFile) -> None:
    """Refuse a tar file that is cut between two members, or in front of the checksum that gzip has at its end."""
    file = tar.fileobj
    assert file is not None
    if file.tell() <= tar.offset:  # the block of zeros after the last member has not been read: there is none
        raise EOFError("it has no end-of-archive block")
    while file.read(2**20):  # gzip compares its checksum
        pass


def _unzip(archive: Path, into: Path, bar: tqdm) -> int:
    count = 0
    with zipfile.ZipFile(archive) as packed:
        _check_ratio(sum(info.file_size for info in packed.infolist()), archive.stat().st_size, archive)
        for info in packed.infolist():
            _check_name(info.filename, archive)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise ValueError(f"{archive}: refused the link {info.filename!r}")
            if info.flag_bits & 1:
                raise ValueError(f"{archive}: {info.filename!r} is encrypted")
            packed.extract(info, into)
            count += not info.is_dir()
            bar.update(not info.is_dir())
    return count


def _check_ratio(size: int, packed: int, archive: Path) -> None:
    """Refuse an archive that fills the disk with next to nothing."""
    if size > _SMALL and size > _RATIO * packed:
        raise ValueError(
            f"{archive}: refused: {packed:,} bytes would become {size:,} or more, over {_RATIO} times as many: no data "
            "set is packed so tightly"
        )


def _check_name(name: str, archive: Path) -> None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise ValueError(f"{archive}: refused {name!r}, which would be written outside of the folder")
