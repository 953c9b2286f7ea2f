"""An IPython extension without any command: it loads what the notebooks of the suite import first.

``wsolnb run`` hands it to the kernel, which so loads torch while the command line still loads papermill, and for the
first time ever begins to compile what judges boxes. The objects that come with the packages stay for good: the garbage
collector does not look at them while they come, nor ever again.
"""

from __future__ import annotations

import gc
from typing import Any

gc.disable()
import wsolnb.metrics  # noqa: E402
import wsolnb.plots  # noqa: E402, F401
from wsolnb.kernels import compile_meanwhile  # noqa: E402

gc.freeze()
gc.enable()

_COMPILING: list[Any] = []  # a process that nobody waits for


def load_ipython_extension(shell: Any) -> None:
    """Begin to compile, if that was never begun. All else is done: this module has been imported."""
    _COMPILING.append(compile_meanwhile())
