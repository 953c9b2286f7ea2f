"""What `wsolnb localize` has found so far: a line per photo, appended as it comes, and deleted once all is exported.

A line is written once the photo's overlay is on disk, so whatever kills the process, the lines describe what is there.
The same call goes on after the last complete line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from wsolnb._utils.files import require_new_folder

LINES = "unfinished.jsonl"
_LOCK = ".lock"


def require_free(folder: Path) -> None:
    """Refuse a folder that holds anything but a `localize` that did not reach its end.

    Example:
        >>> require_free(Path("new-folder"))
    """
    if not (folder / LINES).is_file():
        require_new_folder(folder, but=(_LOCK,))


@contextmanager
def claimed(folder: Path, key: str) -> Iterator[Found]:
    """Lock a folder, new or left behind by a call with this key, which stands for all photos and settings.

    Raises:
        FileExistsError: If the folder holds other files, or what another call has found.
        BlockingIOError: If another process works in it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with claimed(Path(folder), "key") as found:
        ...         found.add({"photo": "a.jpg", "unread": "truncated"})
        ...     with claimed(Path(folder), "key") as again:
        ...         print(again.photos())
        {'a.jpg'}
    """
    require_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BlockingIOError(f"another localize works in {folder}: wait for it, or give a new folder") from None
    try:
        yield Found(folder, key)
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


class Found:
    """The lines of a claimed folder; the first one holds the key.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = Found(Path(folder), "key")
        ...     found.add({"photo": "a.jpg", "width": 4, "height": 3, "boxes": [], "empty": 1})
        ...     found.add({"photo": "b.jpg", "unread": "truncated"})
        ...     found.counts(), [(line["id"], line["photo"]) for line in found.read()]
        ((1, 0, 1, {'b.jpg': 'truncated'}), [(1, 'a.jpg')])
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.path = folder, folder / LINES
        self.path.touch()
        with self.path.open("rb") as file:
            first = file.readline()
            whole = len(first) * first.endswith(b"\n") + sum(len(line) for line in file if line.endswith(b"\n"))
        try:
            same = json.loads(first)["key"] == key
        except (ValueError, TypeError, KeyError):
            same = False
        if whole and not same:
            raise FileExistsError(
                f"{folder} holds what another localize found before it was stopped: give it the same photos, weights "
                "and settings to go on, or a new folder"
            )
        os.truncate(self.path, whole)  # a kill can cut the last line
        for partial in (*folder.glob("*.partial"), *folder.glob("*/*.partial")):
            partial.unlink()
        if not whole:
            self.add({"key": key})

    def photos(self) -> set[str]:
        """The photos that have a line."""
        return {line["photo"] for line in self._lines()}

    def add(self, line: dict[str, Any]) -> None:
        """Append a line, and have it on disk."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> Iterator[dict[str, Any]]:
        """The lines of photos that were read, one at a time, with ids from 1."""
        number = 0
        for line in self._lines():
            if "unread" not in line:
                number += 1
                yield {"id": number, **line}

    def counts(self) -> tuple[int, int, int, dict[str, str]]:
        """The numbers of photos, boxes and classes without a box, and the photos that were not read."""
        photos = boxes = empty = 0
        unread: dict[str, str] = {}
        for line in self._lines():
            if "unread" in line:
                unread[line["photo"]] = line["unread"]
            else:
                photos, boxes, empty = photos + 1, boxes + len(line["boxes"]), empty + line["empty"]
        return photos, boxes, empty, unread

    def finish(self) -> None:
        """Delete the lines, as all of them are exported."""
        self.path.unlink()

    def _lines(self) -> Iterator[dict[str, Any]]:
        with self.path.open(encoding="utf-8") as file:
            next(file)  # the key
            for number, text in enumerate(file, start=2):
                try:
                    yield json.loads(text)
                except ValueError as error:
                    remedy = "delete it and the lines after it"
                    raise ValueError(f"{self.path}, line {number} is damaged ({error}): {remedy}") from None
