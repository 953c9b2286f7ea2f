"""Progress bars on a terminal or in a notebook; headless runs print lines instead. `Outlook` adds the time left."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

from tqdm import tqdm

T = TypeVar("T")

_SAY_EVERY = 10.0  # seconds between two lines of a headless run


def headless() -> bool:
    """Whether to do without progress bars: `WSOLNB_HEADLESS` is set, or there is neither a terminal nor a notebook."""
    if "WSOLNB_HEADLESS" in os.environ:
        return os.environ["WSOLNB_HEADLESS"] not in ("", "0")
    shell = sys.modules.get("IPython")
    return not sys.stderr.isatty() and (shell is None or shell.get_ipython() is None)


class Outlook:
    """The time that is left of a long command: within this context, all progress tells it.

    The command says of how many `units` it consists, such as the epochs of all its trainings. `track` counts those that
    are done since the first one began; the rest is taken to be as fast.

    Example:
        >>> with Outlook(4) as outlook:
        ...     outlook.units -= 1  # known from before
        ...     letters = list(track("ab", "letters", 2, units=2))
        >>> outlook.done, outlook.left(seconds=3660.0).startswith("about 1:01:0")
        (2.0, True)
    """

    current: Outlook | None = None

    def __init__(self, units: float) -> None:
        self.units, self.done = units, 0.0
        self.started: float | None = None
        self.said = time.monotonic()

    def __enter__(self) -> Self:
        Outlook.current = self
        return self

    def __exit__(self, *error: object) -> None:
        Outlook.current = None

    def left(self, seconds: float = 0.0) -> str:
        """The time left as text, with that of work which is not counted; empty while nothing is known."""
        if self.started is not None and self.done:
            seconds += max(0.0, self.units - self.done) * (time.monotonic() - self.started) / self.done
        elif not seconds:
            return ""
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"about {hours}:{minutes:02}:{rest:02} left" if hours else f"about {minutes}:{rest:02} left"

    def watch(self, bar: tqdm, description: str, total: int | None, units: float) -> Iterator[T]:
        """Yield the items of a bar that are worth `units` together, and tell the time left of the whole command."""
        started = time.monotonic()
        if units and self.started is None:
            self.started = started
        for number, item in enumerate(bar, start=1):
            yield item
            now = time.monotonic()
            self.done += units / (total or 1)
            own = 0.0 if units else max(0, (total or number) - number) * (now - started) / number
            if not headless():
                bar.set_postfix_str(self.left(own), refresh=False)
            elif now - self.said >= _SAY_EVERY:
                self.said = now
                print(f"{description}: {number}{f' of {total}' if total else ''}  {self.left(own)}", flush=True)


def skip(units: float) -> None:
    """Take units that are known from before out of the outlook, if there is one.

    Example:
        >>> skip(3)
    """
    if Outlook.current:
        Outlook.current.units -= units


def time_left() -> str:
    """The time left as a column of a line; empty without an outlook.

    Example:
        >>> time_left()
        ''
    """
    text = Outlook.current.left() if Outlook.current else ""
    return f"  {text}" if text else ""


def track(items: Iterable[T], description: str, total: int | None = None, *, units: float = 0.0) -> Iterator[T]:
    """Yield the items under a progress bar, unless the run is headless; it appears after one second.

    All of them together are worth `units` of the `Outlook`, if there is one; its bars appear at once.

    Example:
        >>> list(track("ab", "letters"))
        ['a', 'b']
    """
    outlook = Outlook.current
    delay = 0 if outlook else 1
    bar = tqdm(items, desc=description, total=total, delay=delay, leave=False, disable=headless(), file=sys.stdout)
    yield from bar if outlook is None else outlook.watch(bar, description, total, units)
