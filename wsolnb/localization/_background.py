"""Work on the CPU that runs behind the device's next batch."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any, TypeVar

import torch
from torch import Tensor

_Result = TypeVar("_Result")


class Background:
    """Runs one sweep behind the next batch's forward pass; at most one is under way, so memory does not grow.

    Example:
        >>> from wsolnb.boxes import BoxRule
        >>> from wsolnb.boxes.threshold_sweep import sweep_boxes
        >>> background = Background()
        >>> background.submit(sweep_boxes, torch.zeros(1, 2, 3, dtype=torch.uint8), BoxRule())
        >>> background.result().shape
        torch.Size([1, 256, 4])
    """

    def __init__(self) -> None:
        self._pending: Future[Any] | None = None

    def submit(self, function: Callable[..., _Result], maps: Tensor, *arguments: Any) -> Any:
        """Starts ``function(maps, *arguments)`` and returns the result of the run before it (None for the first).

        The maps leave their device without stopping it: the copy is queued, and the background waits for it.
        """
        before = self.result()
        copied = None
        if maps.device.type == "cuda":
            pinned = torch.empty(maps.shape, dtype=maps.dtype, pin_memory=True)
            maps = pinned.copy_(maps, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        future: Future[_Result] = Future()
        self._pending = future

        def run() -> None:
            try:
                if copied is not None:
                    copied.synchronize()
                future.set_result(function(maps, *arguments))
            except BaseException as error:
                future.set_exception(error)

        Thread(target=run, daemon=True).start()
        return before

    def result(self) -> Any:
        """Waits for the run under way and returns its result, or raises its error; None if there is none."""
        pending, self._pending = self._pending, None
        return None if pending is None else pending.result()
