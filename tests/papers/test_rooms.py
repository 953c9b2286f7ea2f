"""Every paper's room says what the paper changes, names its files, and links the paper beside its equations."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from wsolnb.runs.paper import paper_keys

ROOMS = [key for key in paper_keys() if key != "primer"]  # whose method is wsolnb.papers.method.CAM


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def link(repo: Path, key: str) -> str:
    about = yaml.safe_load((repo / "papers" / key / "paper.yaml").read_text(encoding="utf-8"))
    arxiv = about.get("arxiv") or about.get("doi", "").partition("arXiv.")[2]
    return f"https://arxiv.org/abs/{arxiv}" if arxiv else f"https://doi.org/{about['doi']}" if "doi" in about else ""


@pytest.mark.parametrize("key", [*ROOMS, "_template"])
def test_a_room_shows_what_its_paper_changes_and_names_its_files(repo: Path, key: str) -> None:
    room = repo / "wsolnb" / "papers" / key
    text = docstring(room / "__init__.py")
    pipeline = next(part for part in text.split("\n\n") if part.startswith("image -> "))
    assert re.search(r"\[.+\].*\bbox.*\btraining: ", pipeline.replace("\n", " "))
    files = re.findall(r"^- `(\w+\.py)`: ", text, re.MULTILINE)
    assert sorted(files) == sorted(path.name for path in room.glob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("key", ROOMS)
def test_equations_stand_beside_a_link_to_the_paper(repo: Path, key: str) -> None:
    address, room = link(repo, key), repo / "wsolnb" / "papers" / key
    modules = [path for path in room.glob("*.py") if path.name != "figures.py"]
    files = [path for path in modules if re.search(r"\bEqs?\. \d", path.read_text(encoding="utf-8"))]
    assert address in docstring(room / "__init__.py")
    if address:
        assert [path.name for path in files if address not in docstring(path)] == []
