"""An executable reading group for weakly supervised object localization.

For one's own network: `wsolnb.localize(model, images)`, see `wsolnb.inference.localize`. For one's own photos:
`wsolnb.fit(folder, method)`, which gives a model to save and to `wsolnb.load`, see `wsolnb.inference.fit`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsolnb.inference.fit import fit as fit
    from wsolnb.inference.localize import localize as localize
    from wsolnb.inference.model import load as load

__version__ = version("wsolnb")


_MODULES = {"fit": "fit", "load": "model", "localize": "localize"}


def __getattr__(name: str) -> Any:
    """The front door's functions, which bring torch with them, only where they are asked for."""
    if name in _MODULES:
        return getattr(import_module(f"wsolnb.inference.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
