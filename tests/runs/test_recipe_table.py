"""The table of all recipes in the docs is the one that they give."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsolnb._utils.text import markdown_table
from wsolnb.runs.paper import Paper, paper_keys
from wsolnb.runs.recipe_table import COLUMNS, recipe_row

PAGE = "docs/recipes.md"
AGAIN = f"write it anew: python -m wsolnb.runs.recipe_table {PAGE}"


def rows(repo: Path, key: str) -> list[str]:
    """The rows of a paper's table on the page."""
    section = (repo / PAGE).read_text(encoding="utf-8").partition(f"\n## {key}\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("|")][2:]


@pytest.mark.parametrize(("key", "name"), [(key, name) for key in paper_keys() for name in Paper(key).recipes()])
def test_the_page_agrees_with_a_recipe(repo: Path, key: str, name: str) -> None:
    (expected,) = markdown_table(COLUMNS, [recipe_row(key, name)])[2:]
    assert expected in rows(repo, key), AGAIN


@pytest.mark.parametrize("key", paper_keys())
def test_the_page_has_no_other_recipe(repo: Path, key: str) -> None:
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows(repo, key)] == list(Paper(key).recipes()), AGAIN


def test_the_page_says_what_a_paper_says(repo: Path) -> None:
    """Numbers by hand: three losses for 372 epochs of 684,070 crops in batches of 96; F6 and F7 have 120 million."""
    crops = next(row for row in rows(repo, "barz2022") if row.startswith("| coco-resnet50 |"))
    assert f"| {3 * 372 * 7126:,} |" in crops
    dense = next(row for row in rows(repo, "bency2016") if row.startswith("| voc2012-vgg16 |"))
    assert f"| {102_764_544 + 16_781_312 + 4097 * 2048 + 2049 * 20:,} |" in dense


def test_the_page_is_linked(repo: Path) -> None:
    assert all(f"]({PAGE})" in (repo / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md"))
