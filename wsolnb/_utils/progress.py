"""Progress that reads well everywhere: a bar where someone watches, one line per step in a headless run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def headless() -> bool:
    """Whether nobody can see a bar move: `WSOLNB_HEADLESS` is set, or no terminal and no notebook is attached."""
    if "WSOLNB_HEADLESS" in os.environ:
        return os.environ["WSOLNB_HEADLESS"] not in ("", "0")
    shell = sys.modules.get("IPython")
    return not sys.stderr.isatty() and (shell is None or shell.get_ipython() is None)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items under a progress bar, if it takes over a second; without one in a headless run.

    Example:
        >>> list(track("ab", "letters"))
        ['a', 'b']
    """
    yield from tqdm(items, desc=description, total=total, delay=1, leave=False, disable=headless(), file=sys.stdout)
