"""The house: which room may import which, and what importing a room costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FLOORS = (
    {"cli"},
    {"runs"},
    {"inference", "explorer"},
    {"papers"},
    {"plots"},
    {"localization", "train"},
    {"metrics", "data"},
    {"boxes", "models", "losses", "_utils"},
)
"""From the front door down: a room imports itself and rooms on lower floors."""

FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imports(package: Path) -> Iterator[tuple[Path, str]]:
    """Every file of the package with the names of ours that it imports, wherever in the file."""
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "wsolnb":
                names = [alias.name for alias in node.names]
                yield from ((path, f"{node.module}.{name}") for name in names)
            elif isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names if alias.name.split(".")[0] == "wsolnb")


def test_every_room_has_its_floor(repo: Path) -> None:
    rooms = {
        path.stem for path in (repo / "wsolnb").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - {"__init__", "__main__"} == set(FLOOR)
    assert len([room for room in rooms if not room.startswith("_")]) <= 14


def test_rooms_import_only_rooms_below(repo: Path) -> None:
    wrong = []
    for path, name in imports(repo / "wsolnb"):
        room = path.relative_to(repo / "wsolnb").parts[0].removesuffix(".py")
        other = name.split(".")[1]
        if room in FLOOR and other in FLOOR and room != other and FLOOR[other] <= FLOOR[room]:
            wrong.append(f"{path.relative_to(repo)} imports {name}")
    assert wrong == []


def test_no_paper_imports_another(repo: Path) -> None:
    papers, wrong = repo / "wsolnb" / "papers", []
    for path, name in imports(papers):
        room = path.relative_to(papers).parts[0]
        other = name.split(".")[2] if name.startswith("wsolnb.papers.") else room
        if room not in (other, "side_by_side") and other != "method":  # the interface of all
            wrong.append(f"{path.relative_to(repo)} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("name", ["wsolnb", "wsolnb.cli", "wsolnb.cli.app"])
def test_importing_it_brings_no_torch(name: str) -> None:
    heavy = {"torch", "numpy", "pandas", "matplotlib", "papermill", "numba"}
    code = f"import sys, {name}; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
