"""Verify a data set in place: its layout, its numbers of images and annotations, and, if asked, every file."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsolnb._utils.progress import track
from wsolnb.data.download.fetch import interrupted, missing_places, read_record, verify
from wsolnb.data.download.sources import Source
from wsolnb.data.readers.layouts import TITLES, layouts_in
from wsolnb.data.readers.open import open_split
from wsolnb.data.readers.photos import Photos

_AT_ONCE = 1024  # images submitted to the threads at a time


@dataclass(frozen=True)
class Finding:
    """The result of one check: whether it is good, and in words."""

    good: bool
    text: str


def check(source: Source, root: str | Path, *, deep: bool = False) -> Iterator[Finding]:
    """Check a data set in place, without changing anything.

    `deep` decodes every image, reads every annotation and computes checksums of archives.

    >>> [finding.text for finding in check(Source("cub", "CUB-200-2011", "", "", ()), "/no/such/folder")]
    ['CUB-200-2011: not placed here by `wsolnb data get`']
    """
    root = Path(root)
    if interrupted(source, root):
        yield Finding(False, f"a run of `wsolnb data get {source.key}` was stopped here: run it again")
    for place in missing_places(source, root):
        yield Finding(False, f"{root / place} has lost files since it was placed: run `wsolnb data get {source.key}`")
    for file in source.files if source.by_hand else ():
        if (root / file.name).is_file():
            try:
                verify(file, root / file.name, deep=deep)
                verified = "size" if not deep else file.checksum or "no checksum published"
                yield Finding(True, f"{file.name}: {verified}")
            except ValueError as error:
                yield Finding(False, str(error))
    if not source.reader:
        placed = read_record(source, root) is not None
        yield Finding(placed, f"{source.title}: {'complete' if placed else 'not placed here by `wsolnb data get`'}")
        return
    layouts = layouts_in(root)
    if source.reader not in layouts:
        looks = f"it looks like {' and '.join(TITLES[name] for name in layouts)}" if layouts else "no known layout"
        yield Finding(False, f"{root} is not {source.title}: {looks}")
        return
    for split, expected in source.splits.items():
        try:
            dataset: Any = open_split(source.reader, root, split)
        except (ValueError, OSError) as error:
            yield Finding(False, f"{split}: {error}")
            continue
        classes = len(dataset.classes)
        right = len(dataset) == expected and (not source.classes or classes == source.classes)
        expectation = "" if right else f", expected {expected:,} images of {source.classes} classes"
        yield Finding(right, f"{split}: {len(dataset):,} images of {classes} classes{expectation}")
        if isinstance(dataset, Photos):
            annotated = sum(dataset.has_boxes(k) for k in range(len(dataset)))
            yield Finding(True, f"{split}: {annotated:,} images have boxes or masks")
        if deep:
            yield from _unreadable(dataset, split)


def _unreadable(dataset: Any, split: str) -> Iterator[Finding]:
    """Every image that does not decode or has an impossible annotation, and how many decode."""

    def problem_of(index: int) -> str:
        try:
            dataset[index]
        except (ValueError, OSError) as error:
            return str(error)
        return ""

    count = 0
    starts = range(0, len(dataset), _AT_ONCE)
    with ThreadPoolExecutor() as pool:
        for start in track(starts, f"decoding {split}", len(starts)):
            for problem in pool.map(problem_of, range(start, min(start + _AT_ONCE, len(dataset)))):
                if problem:
                    count += 1
                    yield Finding(False, f"{split}: {problem}")
    yield Finding(not count, f"{split}: {len(dataset) - count:,} of {len(dataset):,} images decode")
