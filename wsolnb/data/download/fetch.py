"""Download a data set into its official layout, so that an incomplete one is never taken for complete.

Below the data root, `.wsolnb/<name>/` holds downloads and extracted files. Complete, they are moved to their final
location by renaming folders, and `.wsolnb/<name>.json` is written last. A killed run continues where it stopped.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from wsolnb._utils.files import write_atomic
from wsolnb.data.download.archives import extract, is_archive
from wsolnb.data.download.http import digest, download
from wsolnb.data.download.sources import Remote, Source, human

WORK = ".wsolnb"
Say = Callable[[str], None]


def get(source: Source, root: str | Path, *, say: Say = print, pause: float = 2.0) -> bool:
    """Download, verify, extract and place all files of a data set; returns whether anything had to be done.

    `root` is the `data_root` of notebooks, `pause` as in `wsolnb.data.download.http.download`; `say` is called with
    every line of the log.

    Raises:
        ValueError: If a file has the wrong size or checksum, or an archive is damaged or would write elsewhere.
        FileNotFoundError: If files must be downloaded by hand first; the message says which and how.
        FileExistsError: If other files are in the way; nothing is overwritten.
        OSError: If a server cannot be reached, the disk is too small or another run uses the folder.

    >>> import tempfile
    >>> source = Source("notes", "Notes", "", "", (Remote("", "a.txt", into="notes"),), by_hand="Write them.")
    >>> with tempfile.TemporaryDirectory() as root:
    ...     _ = Path(root, "a.txt").write_text("one")
    ...     get(source, root, say=lambda line: None), get(source, root), Path(root, "notes", "a.txt").read_text()
    (True, False, 'one')
    """
    root = Path(root)
    work = root / WORK / source.key
    if missing := _missing_by_hand(source, root):
        raise FileNotFoundError(_by_hand(source, root, missing))
    work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / WORK / f"{source.key}.lock", timeout=0):
            record = read_record(source, root)
            lost = missing_places(source, root)
            if record is not None and not lost:
                shutil.rmtree(work)
                return False
            if lost:
                say(f"{root / lost[0]} has lost files since {source.key} was placed: getting it again")
            if not _load(work / "ready.json") and not (work / "whole").is_dir():
                _prepare(source, root, work, say, pause)
            _place(source, root, work)
            return True
    except Timeout:
        raise OSError(f"another run is getting {source.key} into {root} at this moment: wait for it") from None


def read_record(source: Source, root: str | Path) -> dict[str, Any] | None:
    """What `get` recorded: checksums of the files and numbers of files per folder; None if it never completed.

    ValueError if the record is damaged.

    >>> read_record(Source("cub", "CUB-200-2011", "", "", ()), "/no/such/folder") is None
    True
    """
    path = Path(root) / WORK / f"{source.key}.json"
    if not path.is_file():
        return None
    remedy = "delete it, and `wsolnb data get` gets the files again"
    record = _load(path, remedy)
    if not all(isinstance(record.get(part), dict) for part in ("files", "places")):
        raise ValueError(f"{path} is damaged, it lacks files or places: {remedy}")
    return record


def missing_places(source: Source, root: str | Path) -> list[str]:
    """Folders that have fewer files than when the data set was placed, and files that are gone.

    >>> missing_places(Source("cub", "CUB-200-2011", "", "", ()), "/no/such/folder")
    []
    """
    record = read_record(source, root) or {"places": {}}
    return [place for place, count in record["places"].items() if _count(Path(root) / place) < count]


def interrupted(source: Source, root: str | Path) -> bool:
    """Whether a run was stopped before the data set was complete.

    >>> interrupted(Source("cub", "CUB-200-2011", "", "", ()), "/no/such/folder")
    False
    """
    work = Path(root) / WORK / source.key
    return work.is_dir() and any(work.iterdir())


def _by_hand(source: Source, root: Path, files: list[Remote]) -> str:
    """How to get files that a program cannot download."""
    rows = [
        f"  {file.name}  {human(file.size)}  {file.checksum or 'no checksum published'}  {file.url}" for file in files
    ]
    lines = [
        f"{source.title} cannot be downloaded by a program. {source.by_hand}",
        f"Put these files into {root} and run the same command again: they are verified and extracted.",
        *rows,
        f"If they are extracted already, `wsolnb data check {source.key} --root {root}` verifies them in place.",
    ]
    return "\n".join(lines)


def verify(file: Remote, path: Path, *, deep: bool = True) -> str:
    """Checksum of a file that was downloaded by hand, "" if not `deep`; ValueError if it or the size is wrong.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     verify(Remote("", "a.zip", checksum="md5:d41d8cd98f00b204e9800998ecf8427e"), Path(file.name))
    'md5:d41d8cd98f00b204e9800998ecf8427e'
    """
    length = path.stat().st_size
    if file.size is not None and length != file.size:
        raise ValueError(f"{path} has {length:,} bytes, expected {file.size:,}: download it again")
    if not deep:
        return ""
    checksum = digest(path, file.checksum.partition(":")[0] or "sha256")
    if file.checksum and checksum != file.checksum.lower():
        raise ValueError(f"{path} has {checksum}, expected {file.checksum}: download it again")
    return checksum


def _missing_by_hand(source: Source, root: Path) -> list[Remote]:
    """Files that must be downloaded by hand before anything can be done."""
    work = root / WORK / source.key
    placed = read_record(source, root) is not None and not missing_places(source, root)
    if not source.by_hand or placed or (work / "ready.json").is_file():
        return []
    return [file for file in source.files if not (root / file.name).is_file() and not _tree(work, file).is_dir()]


def _prepare(source: Source, root: Path, work: Path, say: Say, pause: float) -> None:
    """Download, verify and extract all files, each archive into its own tree."""
    remaining = [file for file in source.files if not _tree(work, file).is_dir()]
    _check_room(source, root, work, remaining)
    pins = (read_record(source, root) or {"files": {}})["files"]
    sums: dict[str, str] = _load(work / "files.json", f"delete {work} and get it again")
    for file in remaining:
        name = _key(file)
        path = root / file.name if source.by_hand else work / name
        say(f"{'checking' if source.by_hand else 'downloading'} {file.name} ({human(file.size)})")
        if source.by_hand:
            sums[name] = verify(file, path)
        else:
            sums[name] = download(file.url, path, size=file.size, checksum=file.checksum, pause=pause, say=say)
        if not file.checksum:
            say(f"nobody published a checksum of {file.name}; it is kept: {sums[name]}")
            if pins.get(name, sums[name]) != sums[name]:
                raise ValueError(f"{path} has {sums[name]}, but the first download had {pins[name]}: was it changed?")
        _save(work / "files.json", sums)
        partial = work / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        if is_archive(file.name):
            say(f"extracting {file.name}")
            extract(path, partial / file.into, nested=file.nested)
        else:
            (partial / file.into).mkdir(parents=True)
            shutil.copyfile(path, partial / file.into / file.name)
        os.replace(partial, _tree(work, file))
        if not source.by_hand:
            path.unlink()
    _save(work / "ready.json", sums)


def _place(source: Source, root: Path, work: Path) -> None:
    """Merge the trees, look for conflicts, and move; every step can be repeated after a kill."""
    whole = work / "whole"
    whole.mkdir(exist_ok=True)
    for file in source.files:
        if _tree(work, file).is_dir():
            _merge(_tree(work, file), whole)
    if not (work / "places.json").is_file():
        for relative in _conflicts(whole, root):
            raise FileExistsError(
                f"{root / relative} is there already and differs from the file of {source.title}: move it away, or "
                "choose another root; nothing was overwritten"
            )
        _save(work / "places.json", _places(whole))
    _merge(whole, root)
    remedy = f"delete {work} and get it again"
    sums = _load(work / "ready.json") or _load(work / "files.json", remedy)
    record = {"title": source.title, "files": sums, "places": _load(work / "places.json", remedy)}
    _save(root / WORK / f"{source.key}.json", record)
    shutil.rmtree(work)


def _merge(tree: Path, into: Path) -> None:
    """Move a tree into a folder: whole folders if their name is free, else the missing files."""
    for entry in sorted(tree.iterdir()):
        target = into / entry.name
        if not target.exists() and not target.is_symlink():
            os.rename(entry, target)
        elif entry.is_dir() and not entry.is_symlink():
            _merge(entry, target)
        else:
            entry.unlink()
    tree.rmdir()


def _conflicts(tree: Path, root: Path, below: str = "") -> Iterator[str]:
    """Paths that exist in both, but not both as folders or as files of equal size."""
    for entry in sorted((tree / below).iterdir()):
        relative = f"{below}/{entry.name}".lstrip("/")
        target = root / relative
        if not target.exists() and not target.is_symlink():
            continue
        if entry.is_dir() and target.is_dir():
            yield from _conflicts(tree, root, relative)
        elif entry.is_dir() or not target.is_file() or entry.stat().st_size != target.stat().st_size:
            yield relative


def _places(tree: Path) -> dict[str, int]:
    """Number of files in each folder of the first two levels."""
    counts: Counter[str] = Counter()
    for folder, _, files in os.walk(tree):
        parts = Path(folder).relative_to(tree).parts
        for depth in range(1, min(2, len(parts)) + 1):
            counts["/".join(parts[:depth])] += len(files)
        if not parts:
            counts.update(files)
    return dict(counts)


def _count(place: Path) -> int:
    return 1 if place.is_file() else sum(len(files) for _, _, files in os.walk(place))


def _check_room(source: Source, root: Path, work: Path, remaining: list[Remote]) -> None:
    """Refuse what the disk cannot hold: all of it extracted (photos hardly shrink), and the largest archive."""
    sizes = [file.size or 0 for file in remaining]
    partial = [path.stat().st_size for file in remaining for path in work.glob(f"{_key(file)}*") if path.is_file()]
    needed = sum(sizes) + (0 if source.by_hand else max(sizes, default=0)) - sum(partial)
    free = shutil.disk_usage(root).free
    if needed > free:
        raise OSError(
            errno.ENOSPC, f"{source.title} needs {human(needed)} to download and extract, {human(free)} are free"
        )


def _key(file: Remote) -> str:
    return "-".join([*PurePosixPath(file.into).parts, file.name])


def _tree(work: Path, file: Remote) -> Path:
    return work / f"{_key(file)}.tree"


def _load(path: Path, remedy: str = "") -> dict[str, Any]:
    """The dictionary in a file, empty if there is none, or if it is damaged: then ValueError, if there is a remedy."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        content = error
    if isinstance(content, dict):
        return content
    if not remedy:
        return {}
    raise ValueError(f"{path} is damaged ({content!r}): {remedy}")


def _save(path: Path, content: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(content, indent=1).encode())
