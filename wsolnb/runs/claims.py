"""A paper's claims: what it concludes, which two numbers decide on it, and in which setting they are measured here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml


@dataclass(frozen=True)
class Claim:
    """One claim, which compares a metric of two results of a run, or of one result with a number."""

    id: str
    says: str  # what the paper says, in our words
    where: str  # section, table or figure
    setting: str  # what was tested, in plain words
    kind: Literal["greater", "less", "equal"]  # first > second, first < second, or at most `margin` apart
    metric: str
    first: str  # name of a result, as in Paper.methods
    second: str | float
    reported: tuple[float, float] | None = None  # the paper's numbers for first and second, in `unit`
    unit: str = ""  # "%" for percent of a measured fraction, or empty for the number as it is
    margin: float = 0.0  # for "equal": the largest difference that counts as equal, in `unit`
    because: str = ""  # for "equal": why this margin
    ours: bool = False  # no paper says so, or in another setting than this

    def __post_init__(self) -> None:
        if self.kind not in ("greater", "less", "equal"):
            raise ValueError(f"claim {self.id!r}: kind is {self.kind!r}, not greater, less or equal")
        if not self.setting.strip():
            raise ValueError(f"claim {self.id!r}: setting is empty: say in plain words what is tested")
        if self.reported is None and not self.ours:
            raise ValueError(f"claim {self.id!r}: reported is missing: .nan where the paper has no number, or ours: true")
        if self.reported is not None and len(self.reported) != 2:
            raise ValueError(f"claim {self.id!r}: reported needs two numbers, not {self.reported!r}")
        if self.unit not in ("", "%"):
            raise ValueError(f"claim {self.id!r}: unit is {self.unit!r}, not '%' or empty")
        if (self.kind == "equal") != (self.margin > 0) or (self.kind == "equal") != bool(self.because):
            raise ValueError(
                f"claim {self.id!r}: a margin above 0 and because, its reason, go with kind equal, and only with it"
            )

    @property
    def scale(self) -> float:
        """The factor from a measured number to ``unit``."""
        return 100.0 if self.unit == "%" else 1.0


def read_claims(path: Path) -> list[Claim]:
    """Read a file of claims, in its order.

    Raises:
        ValueError: If an entry lacks a field or has an invalid one, or two have the same id; the message names both.

    Example:
        >>> from wsolnb.runs.paper import Paper
        >>> read_claims(Paper("primer").folder / "claims.yaml")[0].id
        'average-beats-maximum'
    """
    claims: list[Claim] = []
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
        reported = entry.get("reported")
        try:
            claim = Claim(**{**entry, "reported": tuple(reported) if isinstance(reported, list) else reported})
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: claim {entry.get('id')!r} does not fit: {error}") from error
        if claim.id in {other.id for other in claims}:
            raise ValueError(f"{path}: two claims have the id {claim.id!r}")
        claims.append(claim)
    return claims
