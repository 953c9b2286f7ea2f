"""`pip install wsolnb` without extras: what it brings is enough for `import wsolnb`, `localize`, `fit` and `eval`."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torchvision
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image
from safetensors.torch import save_file
from saved_splits import write_boxed

from wsolnb.cli.app import NOTEBOOKS

BLOCKED = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {missing!r} else self.finder.find_spec(name, path, target)

sys.meta_path = [Without(finder) for finder in sys.meta_path]
"""
"""As if the packages that the bare install does not bring were not there."""


@pytest.fixture(scope="module")
def project(repo: Path) -> dict:
    return tomllib.loads((repo / "pyproject.toml").read_text())["project"]


def brought(requirements: list[str]) -> set[str]:
    """Distributions that requirements bring, with all that these require; those that are installed."""
    found: set[str] = set()
    todo = [Requirement(text) for text in requirements]
    while todo:
        wanted = todo.pop()
        try:
            requires = metadata.requires(wanted.name) or []
        except metadata.PackageNotFoundError:
            continue
        name = canonicalize_name(wanted.name)
        for needed in map(Requirement, requires):
            marks = [{"extra": extra} for extra in ("", *wanted.extras)]
            if needed.marker is None or any(map(needed.marker.evaluate, marks)):
                todo += [needed] if canonicalize_name(needed.name) not in found else []
        found.add(name)
    return found


@pytest.fixture(scope="module")
def missing(project: dict) -> set[str]:
    """Top-level modules that are installed here, but that the bare install does not bring."""
    light = brought(project["dependencies"]) | {"wsolnb", "pip"}
    modules = metadata.packages_distributions().items()
    return {module for module, names in modules if not light & {canonicalize_name(name) for name in names}}


def run(missing: set[str], folder: Path, *commands: list[str], code: str = "") -> subprocess.CompletedProcess[str]:
    """Run commands of wsolnb one after the other in one process without the missing modules, and print their exits."""
    lines = [BLOCKED.format(missing=missing), "from wsolnb.cli.app import app", code]
    lines += [f"print('exit', app({command!r}, standalone_mode=False) or 0)" for command in commands]
    return subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=folder, capture_output=True, text=True, timeout=300
    )


def test_something_is_missing(missing: set[str]) -> None:
    assert missing >= NOTEBOOKS | {"distributed", "pytest", "jupyter_server"}
    assert not missing & {"torch", "timm", "pandas", "typer", "wsolnb"}


@pytest.mark.slow
def test_the_commands_for_ones_own_photos_work_without_extras(missing: set[str], tmp_path: Path) -> None:
    write_boxed(tmp_path / "set")
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(4):
            Image.effect_noise((40, 30), 80).convert("RGB").save(tmp_path / "photos" / name / f"{index}.png")
    save_file(torchvision.models.shufflenet_v2_x0_5(num_classes=2).state_dict(), tmp_path / "net.safetensors")
    fit = """
import torch, wsolnb
options = {"backbone": "tiny", "weights": None, "image_size": 32, "epochs": 1, "device": "cpu"}
for method in ("cam", "ornet"):
    wsolnb.fit("photos", method, **options).save(method)
print(wsolnb.load("cam").localize(torch.rand(1, 3, 48, 64))[0]["boxes"].shape)
"""
    done = run(
        missing,
        tmp_path,
        ["localize", "photos/cat/0.png", "--model", "shufflenet_v2_x0_5", "--weights", "net.safetensors", "-o", "out"],
        ["eval", "set/maps", "--metadata", "set/split", "--thresholds", "10", "--format", "tex", "--out", "tables"],
        [
            "fit",
            "photos",
            "--backbone",
            "tiny",
            "--weights",
            "none",
            "--size",
            "32",
            "--epochs",
            "1",
            "-o",
            "tap",
            "--method",
            "tap",
        ],
        ["localize", "photos", "--model", "tap", "--labels", "folder", "-o", "boxes"],
        ["papers"],
        code=fit,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("exit 0") == 5
    assert "torch.Size([1, 4])" in done.stdout
    assert (tmp_path / "tables" / "table.tex").is_file()
    for folder in ("out", "boxes"):
        assert json.loads((tmp_path / folder / "coco.json").read_text())["images"]


def test_a_command_that_lacks_its_extra_says_what_to_type(missing: set[str], tmp_path: Path) -> None:
    commands = [["run", "barz2022"], ["lab"], ["report", "."], ["study", "primer"]]
    done = run(missing, tmp_path, *commands)
    assert done.stdout.split() == ["exit", "2"] * 4, done.stderr
    for (name, *_), line in zip(commands, done.stderr.splitlines(), strict=True):
        assert re.fullmatch(rf'error: `wsolnb {name}` needs \w+: pip install "wsolnb\[notebooks\]"', line)


def test_every_import_is_brought_by_the_bare_install_or_an_extra(repo: Path, project: dict, missing: set[str]) -> None:
    known = {Requirement(text).name for extra in project["optional-dependencies"].values() for text in extra}
    unexplained = {}
    for path in (repo / "wsolnb").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in {name.partition(".")[0] for name in names} & missing - NOTEBOOKS - known:
                unexplained[name] = str(path)
    assert unexplained == {}


def test_the_notebooks_extra_brings_what_its_commands_need(project: dict) -> None:
    light, full = (
        brought([*project["dependencies"], *more]) for more in ([], project["optional-dependencies"]["notebooks"])
    )
    owners = metadata.packages_distributions()
    for module in NOTEBOOKS:
        names = {canonicalize_name(name) for name in owners[module]}
        assert names <= full, module
        assert not names & light, module


def test_the_module_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "wsolnb", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage: wsolnb" in done.stdout
