"""Ranges of parameters: what cannot be meant is refused before anything is estimated or run."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from wsolnb.cli.app import app
from wsolnb.runs.paper import Paper, paper_keys
from wsolnb.runs.parameters import known_parameters
from wsolnb.runs.ranges import RANGES, require_ranges
from wsolnb.runs.run import resolve


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("epochs", "-1", "parameter epochs is at least 0, not -1"),
        ("batch_size", "0", "parameter batch_size is at least 1, not 0"),
        ("body_tells", "1.2", "parameter body_tells is from 0 to 1, not 1.2"),
        ("lr", "nan", "parameter lr wants float, which 'nan' is not"),
        ("weight_decay", "inf", "parameter weight_decay is a finite number, not inf"),
    ],
)
def test_a_dry_run_refuses_what_no_run_can_be(name: str, value: str, said: str) -> None:
    result = CliRunner().invoke(app, ["run", "bae2020", "-p", name, value, "--dry-run"])
    assert result.exit_code == 2
    assert result.output == f"error: {said}\n"


def test_lists_are_checked_item_by_item() -> None:
    require_ranges({"crowds": [1, 5], "dataset": "critters", "freeze": True})
    with pytest.raises(ValueError, match="parameter crowds is at least 1, not 0"):
        require_ranges({"crowds": [5, 0]})


def test_all_notebooks_and_recipes_are_in_range_and_no_range_is_of_nothing() -> None:
    known = set()
    for key in paper_keys():
        parameters = known_parameters(Paper(key).notebook)
        require_ranges({name: parameter.default for name, parameter in parameters.items()})
        for recipe in Paper(key).recipes():
            resolve(key, recipe=recipe)
        known |= set(parameters)
    assert set(RANGES) <= known
