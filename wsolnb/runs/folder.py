"""A folder for every run: one run works in it at a time, nothing finished is overwritten, what was stopped goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

PARAMETERS = "parameters.yaml"
_UNFINISHED = ".unfinished"
"""Held by the run that works in a folder; there without anyone who holds it: that run was stopped or killed."""


@contextmanager
def claimed_folder(parent: Path, name: str | None, fallback: str, parameters: str) -> Iterator[Path]:
    """Take a folder for a run, and write its ``parameters.yaml``.

    A folder is taken that is not there yet, or that a run of the same parameters left when it was stopped or killed.

    Args:
        parent: Where it stands.
        name: Its name; None for ``fallback``, with a number behind it if that is not free.
        fallback: See there.
        parameters: Text of ``parameters.yaml``.

    Raises:
        ValueError: If ``name`` is no name.
        FileExistsError: If the folder ``name`` holds another run, or another run works in it.

    Example:
        >>> import tempfile
        >>> with claimed_folder(Path(tempfile.mkdtemp()), None, "default", "epochs: 3") as folder:
        ...     folder.name, (folder / PARAMETERS).read_text()
        ('default', 'epochs: 3')
    """
    if name is not None and not re.fullmatch(r"\w[\w.+-]*", name):
        raise ValueError(f"{name!r} is no name for a run: use letters, digits and . + - _")
    parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, 10_000):
        folder = parent / (name or (fallback if number == 1 else f"{fallback}-{number}"))
        lock = FileLock(folder / _UNFINISHED)
        problem = _take(folder, lock, parameters)
        if not problem:
            break
        if name is not None:
            raise FileExistsError(f"{folder} {problem}")
    else:
        raise FileExistsError(f"{parent} holds too many runs named {fallback}: delete some")
    unfinished = folder / _UNFINISHED
    try:
        (folder / PARAMETERS).write_text(parameters, encoding="utf-8")
        yield folder
    except KeyboardInterrupt:
        lock.release()
        unfinished.touch()  # some versions of the lock take the file away
        raise
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    else:
        unfinished.unlink(missing_ok=True)
    finally:
        lock.release()


def _take(folder: Path, lock: FileLock, parameters: str) -> str:
    """Hold a folder's lock; or say why not."""
    taken = "exists already: choose another name or delete it"
    try:
        folder.mkdir()  # the one step that decides between two runs that start at once
    except FileExistsError:
        if not Path(lock.lock_file).exists():
            return taken
    else:
        lock.acquire(timeout=0)
        return ""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return "belongs to a run that works in it now: wait for it or choose another name"
    before = folder / PARAMETERS
    if not Path(lock.lock_file).exists():  # that run has ended just now
        problem = taken
    elif before.is_file() and before.read_text(encoding="utf-8") != parameters:
        problem = f"holds a run that was stopped, of other parameters (see {before}): choose another name or delete it"
    else:
        return ""
    lock.release()
    return problem
