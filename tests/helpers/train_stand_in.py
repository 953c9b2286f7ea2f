"""Something else in the place of `train`, wherever it is called; also in modules that a notebook brings in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import wsolnb.train
from wsolnb.train import Training


@contextmanager
def in_place_of_train(stand_in: Callable[..., Training]) -> Iterator[Any]:
    """Let it be called as `wsolnb.train.train` until the block ends."""
    real = wsolnb.train.train
    _swap(real, stand_in)
    try:
        yield stand_in
    finally:
        _swap(stand_in, real)


def _swap(old: object, new: object) -> None:
    for module in [module for name, module in sys.modules.items() if name.startswith("wsolnb.")]:
        if getattr(module, "train", None) is old:
            module.train = new  # type: ignore[attr-defined]
