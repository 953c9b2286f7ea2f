"""Deferred Ctrl-C and SIGTERM: recorded at once, obeyed when it is safe to stop."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """A context that records the first SIGINT or SIGTERM as `number` (0 if none came); a second one acts at once.

    The first one also calls `callback` with its number, between two instructions of the main thread. Nothing changes
    in other threads, nor for signals that the process ignores.

    Example:
        >>> with Interruption() as interruption:
        ...     print(interruption.number)
        0
    """

    def __init__(self, callback: Callable[[int], None] | None = None) -> None:
        self.number = 0
        self._callback = callback
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                    self._previous[number] = handler
                    signal.signal(number, self._record)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._restore()
        if self.number and kind is None:  # it came after the last check
            signal.raise_signal(self.number)

    def obey(self, number: int, message: str) -> None:
        """Print the message to stderr, unless empty; then do what the signal would have done without this context.

        The signal may have reached another process. Ctrl-C raises KeyboardInterrupt, which carries the message as well,
        a signal that the process survives SystemExit.
        """
        self._restore()
        if message:
            print(message, file=sys.stderr, flush=True)
        sys.stdout.flush()
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as stop:
            stop.args = (message,) if message else ()
            raise
        raise SystemExit(128 + number)

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            self._restore()
            signal.raise_signal(number)
        self.number = number
        if self._callback:
            self._callback(number)

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())
