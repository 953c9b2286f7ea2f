"""Verify a data set where it lies: the right layout, all images and annotations there and, if asked, readable."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsolnb._utils.progress import track
from wsolnb.data.download.fetch import interrupted, missing_places, verify
from wsolnb.data.download.sources import Source
from wsolnb.data.readers.layouts import TITLES, layouts_in
from wsolnb.data.readers.open import open_split
from wsolnb.data.readers.photos import Photos

_AT_ONCE = 1024  # images that wait for a thread


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        good: Whether it is as it must be.
        text: What it is.
    """

    good: bool
    text: str


def check(source: Source, root: str | Path, *, deep: bool = False) -> Iterator[Finding]:
    """Look at a data set in its place, without changing anything.

    Args:
        source: What should be there.
        root: The data set's folder.
        deep: Decode every image and read every annotation, and take checksums of archives; all that is broken is named.

    Yields:
        Findings, one after the other.
    """
    root = Path(root)
    if interrupted(source, root):
        yield Finding(False, f"a run of `wsolnb data get {source.key}` was stopped here: give it again")
    for place in missing_places(source, root):
        yield Finding(
            False, f"{root / place} has lost files since it was placed: give `wsolnb data get {source.key}` again"
        )
    for file in source.files if source.by_hand else ():
        if (root / file.name).is_file():
            try:
                verify(file, root / file.name, deep=deep)
                told = "size" if not deep else file.checksum or "no checksum published"
                yield Finding(True, f"{file.name}: {told}")
            except ValueError as error:
                yield Finding(False, str(error))
    if not source.reader:
        here = (root / ".wsolnb" / f"{source.key}.json").is_file()
        yield Finding(here, f"{source.title}: {'all there' if here else 'never brought here by `wsolnb data get`'}")
        return
    found = layouts_in(root)
    if source.reader not in found:
        told = f"it looks like {' and '.join(TITLES[each] for each in found)}" if found else "no layout that is known"
        yield Finding(False, f"{root} is not {source.title}: {told}")
        return
    for split, expected in source.splits.items():
        try:
            dataset: Any = open_split(source.reader, root, split)
        except (ValueError, OSError) as error:
            yield Finding(False, f"{split}: {error}")
            continue
        classes = len(dataset.classes)
        right = len(dataset) == expected and (not source.classes or classes == source.classes)
        wanted = "" if right else f", expected {expected:,} images of {source.classes} classes"
        yield Finding(right, f"{split}: {len(dataset):,} images of {classes} classes{wanted}")
        if isinstance(dataset, Photos):
            annotated = sum(dataset.has_boxes(k) for k in range(len(dataset)))
            yield Finding(True, f"{split}: {annotated:,} images have boxes or masks")
        if deep:
            yield from _unreadable(dataset, split)


def _unreadable(dataset: Any, split: str) -> Iterator[Finding]:
    """Every image that does not decode or has an impossible annotation, and how many did not."""

    def look(index: int) -> str:
        try:
            dataset[index]
        except (ValueError, OSError) as error:
            return str(error)
        return ""

    count = 0
    parts = range(0, len(dataset), _AT_ONCE)
    with ThreadPoolExecutor() as pool:
        for start in track(parts, f"decoding {split}", len(parts)):
            for problem in pool.map(look, range(start, min(start + _AT_ONCE, len(dataset)))):
                if problem:
                    count += 1
                    yield Finding(False, f"{split}: {problem}")
    yield Finding(not count, f"{split}: {len(dataset) - count:,} of {len(dataset):,} images decode")
