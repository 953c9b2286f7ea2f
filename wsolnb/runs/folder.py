"""The folder of a run: one process works in it, a finished run is never overwritten, a stopped one is resumed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from wsolnb._utils.files import write_atomic

PARAMETERS = "parameters.yaml"
_UNFINISHED = ".unfinished"  # locked while a run works in the folder; left behind unlocked if it was stopped or killed


def require_name(name: str) -> None:
    """Refuse a name that is not of one folder below the one where runs are kept.

    Example:
        >>> require_name("../x")
        Traceback (most recent call last):
        ValueError: '../x' is no name for a run: use letters, digits and . + - _
    """
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise ValueError(f"{name!r} is no name for a run: use letters, digits and . + - _")


@contextmanager
def claimed_folder(parent: Path, name: str | None, default: str, parameters: str) -> Iterator[Path]:
    """Lock the folder ``parent/name`` for a run, and write the text of its ``parameters.yaml``.

    The folder is new, or was left behind by a run of the same parameters that was stopped or killed. Without a name it
    is ``default``, numbered if that is taken.

    Raises:
        ValueError: If ``name`` is no name.
        FileExistsError: If the folder ``name`` holds another run, or another process runs in it.

    Example:
        >>> import tempfile
        >>> with claimed_folder(Path(tempfile.mkdtemp()), None, "default", "epochs: 3") as folder:
        ...     folder.name, (folder / PARAMETERS).read_text()
        ('default', 'epochs: 3')
    """
    if name is not None:
        require_name(name)
    parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, 10_000):
        folder = parent / (name or (default if number == 1 else f"{default}-{number}"))
        lock = FileLock(folder / _UNFINISHED)
        problem = _claim(folder, lock, parameters)
        if not problem:
            break
        if name is not None:
            raise FileExistsError(f"{folder} {problem}")
    else:
        raise FileExistsError(f"{parent} holds too many runs named {default}: delete some")
    stopped = False
    try:
        write_atomic(folder / PARAMETERS, parameters.encode())
        yield folder
    except (KeyboardInterrupt, OSError):  # such as a full disk, or a terminal that was closed
        stopped = True
        raise
    finally:
        if not stopped:
            (folder / _UNFINISHED).unlink(missing_ok=True)
        lock.release()
        if stopped:
            (folder / _UNFINISHED).touch()  # some versions of filelock delete it


def _claim(folder: Path, lock: FileLock, parameters: str) -> str:
    """Acquire the lock of a folder, or return the reason why it cannot be claimed."""
    taken = "exists already: choose another name or delete it"
    try:
        folder.mkdir()  # atomic: decides between two runs that start at once
    except FileExistsError:
        if not Path(lock.lock_file).exists() and (not folder.is_dir() or any(folder.iterdir())):
            return taken  # an empty one may be of a run that was killed at once
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return "belongs to a run that works in it now: wait for it or choose another name"
    before = folder / PARAMETERS
    if not Path(lock.lock_file).exists():  # that run has just ended
        problem = taken
    elif before.is_file() and before.read_text(encoding="utf-8") != parameters:
        problem = f"holds a run that was stopped, of other parameters (see {before}): choose another name or delete it"
    else:
        return ""
    lock.release()
    return problem
