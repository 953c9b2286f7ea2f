"""An IPython extension without any command: it loads what the notebooks of the suite import first.

``wsolnb run`` hands it to the kernel, which so loads torch while the command line still loads papermill.
"""

from __future__ import annotations

from typing import Any

import wsolnb.metrics
import wsolnb.plots  # noqa: F401


def load_ipython_extension(shell: Any) -> None:
    """Nothing more: this module has been imported."""
