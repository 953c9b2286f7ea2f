"""The table of official sources: addresses, sizes, checksums, licences, and what the readers must find afterwards."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml

TABLE = Path(__file__).parent / "sources.yaml"


@dataclass(frozen=True)
class Remote:
    """A file at its source.

    Args:
        name: Name on disk.
        size: Bytes, or None if unknown.
        checksum: `sha256:...` or `md5:...`, or "" if none is published.
        into: Folder below the data root for its content, or for the file itself if it is no archive.
        nested: Whether it is an archive of one archive per class.
    """

    url: str
    name: str
    size: int | None = None
    checksum: str = ""
    into: str = ""
    nested: bool = False


@dataclass(frozen=True)
class Source:
    """A data set at its source.

    Args:
        licence: Terms of use, in one line.
        by_hand: How to download the files if a program cannot; else "".
        reader: Name for `wsolnb.data.readers.open.open_split`, or "".
        classes: Number of classes, or 0.
        splits: Number of images in each split.
    """

    key: str
    title: str
    homepage: str
    licence: str
    files: tuple[Remote, ...]
    by_hand: str = ""
    reader: str = ""
    classes: int = 0
    splits: dict[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files whose size is known."""
        return sum(file.size or 0 for file in self.files)


def read_sources(path: str | Path = TABLE) -> dict[str, Source]:
    """Read a table of sources, a YAML file: the package's own, or one of mirrors.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not parse or an entry lacks a part.

    >>> source = read_sources()["voc2012"]
    >>> source.title, source.size
    ('PASCAL VOC 2012, trainval', 1999639040)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no table of sources {path}")
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {key: _source(key, entry) for key, entry in table.items()}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no table of sources: {type(error).__name__} {error}") from None


def find(name: str, sources: dict[str, Source]) -> Source:
    """A source by its name; ValueError if there is none.

    >>> find("coco2017", read_sources()).classes
    80
    """
    if name not in sources:
        close = difflib.get_close_matches(name.lower(), sources, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"unknown data set {name!r}{hint}; known: {', '.join(sources)}")
    return sources[name]


def human(size: int | None) -> str:
    """A number of bytes in readable units.

    >>> human(1150585339), human(None)
    ('1.2 GB', 'size unknown')
    """
    if size is None:
        return "size unknown"
    power = min(3, (len(str(size)) - 1) // 3)
    return f"{size / 1000**power:.1f} {('kB', 'MB', 'GB')[power - 1]}" if power else f"{size} B"


def _source(key: str, entry: dict[str, Any]) -> Source:
    files = []
    for row in entry["files"]:
        name = PurePosixPath(urlsplit(row["url"]).path).name
        files.append(Remote(**{"name": name} | _given(Remote, row)))
    return Source(**_given(Source, entry) | {"key": key, "files": tuple(files)})


def _given(kind: type, row: dict[str, Any]) -> dict[str, Any]:
    return {field.name: row[field.name] for field in fields(kind) if row.get(field.name) is not None}
