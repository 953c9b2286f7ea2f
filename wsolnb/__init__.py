"""An executable reading group for weakly supervised object localization.

For one's own network: `wsolnb.localize(model, images)`, see `wsolnb.inference.localize`.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsolnb.inference.localize import localize as localize

__version__ = version("wsolnb")


def __getattr__(name: str) -> Any:
    """`localize`, which brings torch with it, only where it is asked for."""
    if name == "localize":
        from wsolnb.inference.localize import localize

        return localize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "localize"})
