"""Ctrl-C and SIGTERM while something must not stop half-way: noted at once, obeyed when it is safe."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Within it, Ctrl-C and SIGTERM are only noted; the second one is obeyed at once.

    In a thread that is not the main one, and for signals that the process ignores, nothing changes.

    Args:
        then: Called with the signal when the first one comes, between any two steps of the main thread.

    Attributes:
        number: The signal that came, 0 without one.

    Example:
        >>> with Interruption() as interruption:
        ...     print(interruption.number)
        0
    """

    def __init__(self, then: Callable[[int], None] | None = None) -> None:
        self.number = 0
        self._then = then
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if (before := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if self.number and kind is None:  # it came too late to be looked for
            signal.raise_signal(self.number)

    def obey(self, number: int, said: str) -> None:
        """Say something, then do what the signal would have done at first.

        Args:
            number: The signal; another process may have got it.
            said: For the error stream; empty to say nothing.

        Raises:
            KeyboardInterrupt: For Ctrl-C.
            SystemExit: If the process survives the signal.
        """
        self._restore()
        if said:
            print(said, file=sys.stderr, flush=True)
        sys.stdout.flush()
        signal.raise_signal(number)
        raise SystemExit(128 + number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            self._restore()
            signal.raise_signal(number)
        self.number = number
        if self._then:
            self._then(number)

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
