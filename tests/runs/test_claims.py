"""Files of claims: what is read, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from wsolnb.runs.claims import Claim, read_claims

GOOD = {
    "id": "c",
    "says": "s",
    "where": "w",
    "setting": "as published",
    "kind": "less",
    "metric": "m",
    "first": "a",
    "second": "b",
    "reported": [1, 2],
}


def written(folder: Path, *claims: dict[str, object]) -> Path:
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump(list(claims)))
    return path


def test_a_claim_is_read_as_it_stands(tmp_path: Path) -> None:
    ours = {key: value for key, value in GOOD.items() if key != "reported"} | {"id": "d", "ours": True, "second": 0}
    first, second = read_claims(written(tmp_path, GOOD, ours))
    assert first == Claim("c", "s", "w", "as published", "less", "m", "a", "b", (1, 2))
    assert (second.second, second.reported, second.ours) == (0, None, True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "better"}, "kind is 'better'"),
        ({"reported": [1]}, "two numbers"),
        ({"reported": None}, "reported is missing"),
        ({"unit": "points"}, "unit is 'points'"),
        ({"kind": "equal"}, "margin"),
        ({"kind": "equal", "margin": 2}, "because"),
        ({"margin": 2}, "margin"),
        ({"setting": " "}, "setting is empty"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_claims_that_do_not_fit_are_refused_by_name(tmp_path: Path, change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        read_claims(written(tmp_path, GOOD | change))
    assert "claims.yaml: claim 'c'" in str(caught.value)


def test_an_id_names_one_claim(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two claims have the id 'c'"):
        read_claims(written(tmp_path, GOOD, GOOD))


def test_a_claim_without_a_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="setting"):
        read_claims(written(tmp_path, {key: value for key, value in GOOD.items() if key != "setting"}))
