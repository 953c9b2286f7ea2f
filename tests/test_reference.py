"""The API reference: made from docstrings, each public function with an example that runs as a doctest."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

import wsolnb

# Commands and what only runs in another process are called by nobody else.
NOT_CALLED = ("wsolnb.cli", "wsolnb.runs.warm_up", "wsolnb.runs.kernel")


def modules() -> list[str]:
    """Every module that is public: no part of its name begins with an underscore."""
    names = [module.name for module in pkgutil.walk_packages(wsolnb.__path__, "wsolnb.")]
    return [name for name in names if "._" not in name and not name.startswith(NOT_CALLED)]


def plain(thing: Any) -> bool:
    """Whether a class only holds values, or is a kind of error, choice or interface: what it is says its docstring."""
    kinds = (Enum, BaseException, tuple)
    return inspect.isclass(thing) and (
        dataclasses.is_dataclass(thing) or issubclass(thing, kinds) or getattr(thing, "_is_protocol", False)
    )


def members(name: str) -> list[tuple[str, Any]]:
    """Public functions and classes that a module defines, without commands and compiled kernels."""
    module = importlib.import_module(name)
    return [
        (key, thing)
        for key, thing in vars(module).items()
        if not key.startswith("_") and getattr(thing, "__module__", None) == name and callable(thing)
        and not key.endswith("_command") and not hasattr(thing, "py_func")
    ]  # fmt: skip


def documented(thing: Any) -> bool:
    texts = [inspect.getdoc(thing) or ""]
    if inspect.isclass(thing):
        texts += [inspect.getdoc(each) or "" for each in vars(thing).values()]
    return any(">>> " in text for text in texts)


def stands(folder: Path, name: str, key: str) -> bool:
    """Whether a function or class has its entry: on the page of its module, or of the package that offers it."""
    if name.startswith("wsolnb.explorer"):  # of which only the widget is meant to be called
        return key != "Explorer" or 'id="Explorer"' in (folder / "wsolnb/explorer.html").read_text(encoding="utf-8")
    places = [folder.joinpath(*each.split(".")).with_suffix(".html") for each in (name, name.rpartition(".")[0])]
    return any(f'id="{key}"' in place.read_text(encoding="utf-8") for place in places if place.is_file())


@pytest.mark.parametrize("name", modules())
def test_every_public_function_has_a_docstring_with_an_example(name: str) -> None:
    found = members(name)
    assert [key for key, thing in found if not inspect.getdoc(thing)] == []
    assert [key for key, thing in found if not plain(thing) and not documented(thing)] == []


def test_doctests_run_with_the_tests(pytestconfig: pytest.Config) -> None:
    assert "wsolnb" in pytestconfig.getini("testpaths")
    assert "--doctest-modules" in pytestconfig.getini("addopts")


@pytest.mark.slow
def test_the_reference_is_made_from_the_docstrings(tmp_path: Path) -> None:
    pytest.importorskip("pdoc", reason="install the extra 'docs'")
    command = [sys.executable, "-W", "error", "-W", "ignore:Error parsing type annotation", "-m", "pdoc", "-d",
               "google", "-o", str(tmp_path), "wsolnb"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {name: tmp_path.joinpath(*name.split(".")).with_suffix(".html") for name in modules()}
    assert [name for name, path in pages.items() if not path.is_file()] == []
    assert [(name, key) for name in modules() for key, _ in members(name) if not stands(tmp_path, name, key)] == []
    page = pages["wsolnb.inference.localize"].read_text(encoding="utf-8")
    assert re.search(r'id="localize"', page)
    assert "class activation maps" in page


def test_the_version_is_the_projects(repo: Path) -> None:
    assert f'version = "{wsolnb.__version__}"' in (repo / "pyproject.toml").read_text()
