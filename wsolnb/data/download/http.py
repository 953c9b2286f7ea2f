"""Download a file over HTTP, resuming broken connections and verifying the result.

pooch and fsspec verify hashes, but restart a file from the beginning when a connection breaks; for files of 19 GB that
is not enough.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from wsolnb._utils.progress import headless

CHUNK = 1 << 16
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces
_BUSY = (408, 425, 429, 500, 502, 503, 504)


def download(
    url: str,
    path: str | Path,
    *,
    size: int | None = None,
    checksum: str = "",
    attempts: int = 8,
    pause: float = 2.0,
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """Download a file, resuming an interrupted download; returns its checksum (SHA-256 if none is given).

    Bytes are appended to `<path>.part`, which is renamed when it is complete and its checksum is right. If the server
    ignores range requests or has another version by now, the download starts from the beginning.

    Args:
        url: Its address.
        path: The target. If it exists, nothing is downloaded.
        size: Expected number of bytes, if known.
        checksum: `sha256:...` or `md5:...`; "" if none is published.
        attempts: Give up after so many attempts in a row without progress.
        pause: Seconds to wait after the first of them, doubled after each further one, half a minute at most.
        say: Called with a line for every failed attempt.

    Raises:
        ValueError: If the server's file has another size or checksum.
        OSError: If the server refuses or cannot be reached, or the disk is full; downloaded bytes are kept.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:  # a file that exists is not downloaded again
    ...     download("https://example.org/a.zip", file.name, checksum="md5:d41d8cd98f00b204e9800998ecf8427e")
    'md5:d41d8cd98f00b204e9800998ecf8427e'
    """
    path = Path(path)
    algorithm = checksum.partition(":")[0] or "sha256"
    if path.is_file():
        return digest(path, algorithm)
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    for fresh in (False, True):
        if fresh:
            _forget(part)
        resumed = _fill(url, part, size, bool(checksum), attempts, pause, say)
        actual = digest(part, algorithm)
        if not checksum or actual == checksum.lower():
            break
        if fresh or not resumed:
            _forget(part)
            raise ValueError(
                f"{url}: the file has {actual}, expected {checksum}; it was removed. Was it changed at its source, or "
                "on its way?"
            )
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    _note(part).unlink(missing_ok=True)
    return actual


def digest(path: str | Path, algorithm: str = "sha256") -> str:
    """Checksum of a file, as `algorithm:hexadecimal`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "a").write_bytes(b"abc")
    ...     digest(Path(folder) / "a", "md5")
    'md5:900150983cd24fb0d6963f7d28e17f72'
    """
    with open(path, "rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _fill(
    url: str, part: Path, size: int | None, checked: bool, attempts: int, pause: float, say: Callable[[str], None]
) -> bool:
    """Complete `part`; returns whether some of it came with an earlier request."""
    failures, resumed = 0, False
    shown = tqdm(desc=part.stem, total=size, unit="B", unit_scale=True, disable=headless(), leave=False)
    with requests.Session() as session, shown as bar:
        while True:
            before = _length(part)
            try:
                done, continued = _request(session, url, part, size, checked, bar)
                resumed |= continued
                if done:
                    return resumed
                problem = f"the connection broke off after {_length(part):,} bytes"
            except (requests.RequestException, HTTPError) as error:
                problem = f"{type(error).__name__}: {_innermost(error)}"
            failures = 0 if _length(part) > before else failures + 1
            if failures >= attempts:
                raise OSError(
                    f"{url} cannot be downloaded now ({problem}); {_length(part):,} bytes are kept in {part}: run the "
                    "same command again to go on"
                )
            wait = min(30.0, pause * 2 ** max(0, failures - 1))
            say(f"{part.stem}: {problem}; again in {wait:.0f} s")
            time.sleep(wait)


def _innermost(error: BaseException) -> BaseException:
    """The underlying error, without the libraries' wrappers."""
    inner = getattr(error, "reason", None) or next((arg for arg in error.args if isinstance(arg, Exception)), None)
    return _innermost(inner) if isinstance(inner, Exception) else error


def _request(
    session: requests.Session, url: str, part: Path, size: int | None, checked: bool, bar: tqdm
) -> tuple[bool, bool]:
    """One request; returns whether the file is complete now, and whether the request resumed an earlier one."""
    have, headers = _resumable(url, part, checked)
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as reply:
        if reply.status_code in _BUSY:
            raise requests.HTTPError(f"the server answers {reply.status_code} {reply.reason}")
        span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", reply.headers.get("Content-Range", ""))
        if reply.status_code == 416:
            if span and span[2] == str(have) and size in (None, have):
                return True, True
            _forget(part)
            raise requests.HTTPError(f"the server has no bytes from {have:,} on")
        if reply.status_code not in (200, 206):
            raise OSError(f"{url}: the server answers {reply.status_code} {reply.reason}; was the file moved?")
        start, total = 0, reply.headers.get("Content-Length", "")
        if reply.status_code == 206:
            if not span or span[1] is None or int(span[1]) > have:
                _forget(part)
                raise requests.HTTPError(f"the server sent other bytes than those from {have:,} on")
            start, total = int(span[1]), span[2]
        whole = int(total) if total.isdigit() else None
        if size is not None and whole is not None and whole != size:
            raise ValueError(f"{url} has {whole:,} bytes now, expected {size:,}: was it changed at its source?")
        with open(part, "ab") as file:
            file.truncate(start)  # before the note states the version of the bytes
        _write_note(url, part, reply.headers.get("ETag", ""), reply.headers.get("Last-Modified", ""))
        bar.n = start
        with open(part, "ab", buffering=0) as file:
            for piece in reply.raw.stream(CHUNK, decode_content=False):  # as stored, not decompressed
                file.write(piece)
                bar.update(len(piece))
        expected = whole if whole is not None else size
        length = _length(part)
        if expected is not None and length > expected:
            _forget(part)
            raise requests.HTTPError(f"the server sent more than the {expected:,} bytes of the file")
        return expected is None or length == expected, start > 0


def _resumable(url: str, part: Path, checked: bool) -> tuple[int, dict[str, str]]:
    """How many bytes there are to resume from, and the headers that request the rest of the same version."""
    headers = {"Accept-Encoding": "identity"}
    have = _length(part)
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        note = {}
    validator = note.get("validator", "")
    if not have or note.get("url") != url or not (validator or checked):
        return 0, headers
    headers["Range"] = f"bytes={have}-"
    if validator:
        headers["If-Range"] = validator
    return have, headers


def _write_note(url: str, part: Path, tag: str, modified: str) -> None:
    validator = tag if tag and not tag.startswith("W/") else modified  # a weak tag does not promise the same bytes
    _note(part).write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
