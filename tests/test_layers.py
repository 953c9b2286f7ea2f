"""The house: which room may import which, and what importing a room costs."""

from __future__ import annotations

import ast
import re
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
    {"boxes", "models", "losses"},
    {"_utils"},
)
"""From the front door down: a room imports itself and rooms on lower floors."""

FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imports(package: Path) -> Iterator[tuple[Path, str]]:
    """Every file of the package with the names of ours that it imports, wherever in the file."""
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: a relative import hides its room"
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


def blocks(repo: Path) -> list[list[str]]:
    """The indented blocks of CONTRIBUTING.md: the tree of the house, and the import order."""
    found = re.findall(r"(?:^    .*\n)+", (repo / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    return [[line[4:] for line in block.splitlines()] for block in found]


def test_contributing_draws_the_house_as_it_is(repo: Path) -> None:
    tree, _ = blocks(repo)
    drawn = [(line.startswith(" "), line.split()[0].rstrip("/")) for line in tree]
    assert [name for room, name in drawn if not room] == ["wsolnb", "notebooks", "papers", "tests"]
    assert sorted(name.removesuffix(".py") for room, name in drawn if room) == sorted(FLOOR)
    assert all((repo / "wsolnb" / name).exists() for room, name in drawn if room)
    tests = next(line for line in tree if line.startswith("tests/"))
    folders = {path.name for path in (repo / "tests").iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert folders <= {*FLOOR, *re.findall(r"\w+", tests)}


def test_contributing_gives_the_import_order(repo: Path) -> None:
    _, (order,) = blocks(repo)
    assert [set(re.findall(r"\w+", floor)) for floor in order.split("->")] == list(FLOORS)


def test_rooms_import_only_rooms_below(repo: Path) -> None:
    wrong = []
    for path, name in imports(repo / "wsolnb"):
        room = path.relative_to(repo / "wsolnb").parts[0].removesuffix(".py")
        other = [*name.split("."), ""][1]
        assert other in FLOOR or other == "__version__", f"{path} imports {name}: name its room"
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


@pytest.mark.parametrize("key", ["bency2016", "kou2021", "xie2021"])
def test_a_paper_is_named_in_its_room_and_in_registries_only(repo: Path, key: str) -> None:
    allowed = ("papers/side_by_side/", f"papers/{key}/", "boxes/rule.py")  # the presets of box rules
    texts = {str(path.relative_to(repo / "wsolnb")): path for path in (repo / "wsolnb").rglob("*.py")}
    named = [name for name, path in texts.items() if key in path.read_text(encoding="utf-8")]
    assert [name for name in named if not name.startswith(allowed)] == []


@pytest.mark.parametrize("name", ["wsolnb", "wsolnb.cli", "wsolnb.cli.app"])
def test_importing_it_brings_no_torch(name: str) -> None:
    heavy = {"torch", "numpy", "pandas", "matplotlib", "papermill", "numba"}
    code = f"import sys, {name}; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
