"""Progress bars on a terminal or in a notebook; headless runs print lines instead."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def headless() -> bool:
    """Whether to do without progress bars: `WSOLNB_HEADLESS` is set, or there is neither a terminal nor a notebook."""
    if "WSOLNB_HEADLESS" in os.environ:
        return os.environ["WSOLNB_HEADLESS"] not in ("", "0")
    shell = sys.modules.get("IPython")
    return not sys.stderr.isatty() and (shell is None or shell.get_ipython() is None)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items under a progress bar that appears after one second, unless the run is headless.

    Example:
        >>> list(track("ab", "letters"))
        ['a', 'b']
    """
    yield from tqdm(items, desc=description, total=total, delay=1, leave=False, disable=headless(), file=sys.stdout)
