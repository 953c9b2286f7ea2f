"""Bring a data set from its source to its official layout on disk, so that half of it is never taken for the whole.

Below the data root, `.wsolnb/<name>/` holds work in progress: downloads, and what was extracted from them. When all of
it is there and whole, it moves to its place by renaming folders; `.wsolnb/<name>.json` is written last. A run that is
killed at any moment goes on where it stopped when it is started again.
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

from wsolnb.data.download.archives import extract, is_archive
from wsolnb.data.download.http import digest, download
from wsolnb.data.download.sources import Remote, Source, human

WORK = ".wsolnb"
Say = Callable[[str], None]


def get(source: Source, root: str | Path, *, say: Say = print, pause: float = 2.0) -> bool:
    """Download, check, extract and place all files of a data set.

    Args:
        source: What to get.
        root: The data set's folder, that is, the `data_root` of notebooks.
        say: Told what happens, a line at a time.
        pause: Seconds between attempts, as in `wsolnb.data.download.http.download`.

    Returns:
        Whether anything had to be done.

    Raises:
        ValueError: If a file has the wrong size or checksum, or an archive is damaged or would write elsewhere.
        FileNotFoundError: If files must be downloaded by hand first; the message says which and how.
        FileExistsError: If other files are in the way; nothing is overwritten.
        OSError: If a server cannot be reached, the disk is too small or another run is at work in the folder.
    """
    root = Path(root)
    work = root / WORK / source.key
    if lacking := _lacking_by_hand(source, root):
        raise FileNotFoundError(by_hand(source, root, lacking))
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
            if not (work / "ready.json").is_file():
                _prepare(source, root, work, say, pause)
            _place(source, root, work)
            return True
    except Timeout:
        raise OSError(f"another run is getting {source.key} into {root} at this moment: wait for it") from None


def read_record(source: Source, root: str | Path) -> dict[str, Any] | None:
    """What `get` wrote last: checksums of the files, and how many files lie in which folder; None if it never did."""
    path = Path(root) / WORK / f"{source.key}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def missing_places(source: Source, root: str | Path) -> list[str]:
    """Folders and files that have fewer files than when the data set was placed, or are gone."""
    record = read_record(source, root) or {"places": {}}
    return [place for place, count in record["places"].items() if _count(Path(root) / place) < count]


def interrupted(source: Source, root: str | Path) -> bool:
    """Whether a run was stopped before the data set was complete."""
    work = Path(root) / WORK / source.key
    return work.is_dir() and any(work.iterdir())


def by_hand(source: Source, root: str | Path, files: list[Remote]) -> str:
    """How to get files that a program cannot download."""
    rows = [
        f"  {file.name}  {human(file.size)}  {file.checksum or 'no checksum published'}  {file.url}" for file in files
    ]
    return "\n".join(
        [
            f"{source.title} cannot be downloaded by a program. {source.by_hand}",
            f"Put these files into {root} and give the same command again: they are checked and extracted.",
            *rows,
            f"Where they are extracted already, `wsolnb data check {source.key} --root {root}` verifies them in place.",
        ]
    )


def verify(file: Remote, path: Path, *, deep: bool = True) -> str:
    """Checksum of a file that was downloaded by hand, after a comparison of its size and, if `deep`, its checksum.

    Raises:
        ValueError: If one of them is wrong.
    """
    length = path.stat().st_size
    if file.size is not None and length != file.size:
        raise ValueError(f"{path} has {length:,} bytes, expected {file.size:,}: download it again")
    if not deep:
        return ""
    found = digest(path, file.checksum.partition(":")[0] or "sha256")
    if file.checksum and found != file.checksum.lower():
        raise ValueError(f"{path} has {found}, expected {file.checksum}: download it again")
    return found


def _lacking_by_hand(source: Source, root: Path) -> list[Remote]:
    """Files that somebody must bring before anything can be done."""
    work = root / WORK / source.key
    done = (work / "ready.json").is_file() or (
        read_record(source, root) is not None and not missing_places(source, root)
    )
    if not source.by_hand or done:
        return []
    return [file for file in source.files if not (root / file.name).is_file() and not _tree(work, file).is_dir()]


def _prepare(source: Source, root: Path, work: Path, say: Say, pause: float) -> None:
    """Everything down, checked and extracted, each archive into a tree of its own."""
    left = [file for file in source.files if not _tree(work, file).is_dir()]
    _check_room(source, root, work, left)
    pins = (read_record(source, root) or {"files": {}})["files"]
    sums: dict[str, str] = _load(work / "files.json")
    for file in left:
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
    """Join the trees, look for what is in the way, and move; every step can be taken again after a kill."""
    whole = work / "whole"
    whole.mkdir(exist_ok=True)
    for file in source.files:
        if _tree(work, file).is_dir():
            _merge(_tree(work, file), whole)
    if not (work / "places.json").is_file():
        for relative in _in_the_way(whole, root):
            raise FileExistsError(
                f"{root / relative} is there already and differs from the file of {source.title}: move it away, or "
                "choose another root; nothing was overwritten"
            )
        _save(work / "places.json", _places(whole))
    _merge(whole, root)
    record = {"title": source.title, "files": _load(work / "ready.json"), "places": _load(work / "places.json")}
    _save(root / WORK / f"{source.key}.json", record)
    shutil.rmtree(work)


def _merge(tree: Path, into: Path) -> None:
    """Move a tree into a folder: whole folders where there is none of that name, else the files that are missing."""
    for entry in sorted(tree.iterdir()):
        target = into / entry.name
        if not target.exists() and not target.is_symlink():
            os.rename(entry, target)
        elif entry.is_dir() and not entry.is_symlink():
            _merge(entry, target)
        else:
            entry.unlink()
    tree.rmdir()


def _in_the_way(tree: Path, root: Path, below: str = "") -> Iterator[str]:
    """Paths that exist in both, but not as folders or as files of one size."""
    for entry in sorted((tree / below).iterdir()):
        relative = f"{below}/{entry.name}".lstrip("/")
        target = root / relative
        if not target.exists() and not target.is_symlink():
            continue
        if entry.is_dir() and target.is_dir():
            yield from _in_the_way(tree, root, relative)
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


def _check_room(source: Source, root: Path, work: Path, left: list[Remote]) -> None:
    """Refuse to begin what the disk cannot hold: all of it extracted (photos hardly shrink) and the largest archive."""
    sizes = [file.size or 0 for file in left]
    here = [path.stat().st_size for file in left for path in work.glob(f"{_key(file)}*") if path.is_file()]
    needed = sum(sizes) + (0 if source.by_hand else max(sizes, default=0)) - sum(here)
    free = shutil.disk_usage(root).free
    if needed > free:
        raise OSError(
            errno.ENOSPC, f"{source.title} needs {human(needed)} to download and extract, {human(free)} are free"
        )


def _key(file: Remote) -> str:
    return "-".join([*PurePosixPath(file.into).parts, file.name])


def _tree(work: Path, file: Remote) -> Path:
    return work / f"{_key(file)}.tree"


def _load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _save(path: Path, content: dict[str, Any]) -> None:
    """Write a file at once or not at all."""
    beside = path.with_name(f"{path.name}.new")
    with open(beside, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
