"""The parameters of a notebook: read from its one parameters cell, values checked against the types there.

Papermill only warns about an unknown name and guesses types from the text. Here the annotation decides: ``007`` stays
text for a ``str``, and a name that is not in the cell is refused.
"""

from __future__ import annotations

import ast
import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_SCALARS = ("int", "float", "str", "bool")
_TYPES = (*_SCALARS, "list", "dict", *(f"list[{scalar}]" for scalar in _SCALARS))
_BOOLS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: ``name: type = default  # help``.

    Types are ``int``, ``float``, ``str``, ``bool``, ``list`` and ``dict``; a list may name its items: ``list[float]``.
    """

    name: str
    type: str
    default: Any
    help: str = ""

    def take(self, value: object) -> Any:
        """Convert a value to the parameter's type; text is parsed, as YAML for lists and dictionaries.

        Raises:
            ValueError: If it does not fit; the message names parameter, type and value.

        Example:
            >>> Parameter("seed", "str", "").take("007"), Parameter("seed", "int", 0).take("007")
            ('007', 7)
            >>> Parameter("widths", "list[int]", []).take("[8, 16]")
            [8, 16]
        """
        try:
            return _convert(value, self.type)
        except (ValueError, TypeError, yaml.YAMLError):
            hint = " (quote it to make it text)" if self.type == "str" else ""
            raise ValueError(f"parameter {self.name} wants {self.type}, which {value!r} is not{hint}") from None


def _convert(value: object, kind: str) -> Any:
    base, _, items = kind.rstrip("]").partition("[")
    if base in ("list", "dict"):
        loaded = yaml.safe_load(value) if isinstance(value, str) else value
        if not isinstance(loaded, list if base == "list" else dict):
            raise TypeError
        return [_convert(item, items) for item in loaded] if base == "list" and items else loaded
    if base == "bool":
        value = _BOOLS.get(value.lower()) if isinstance(value, str) else value
    allowed: dict[str, Any] = {"bool": bool, "str": str, "int": (int, str), "float": (float, int, str)}
    if not isinstance(value, allowed[base]) or (isinstance(value, bool) and base != "bool"):
        raise TypeError
    if base == "float" and math.isnan(float(value)):
        raise ValueError
    return {"int": int, "float": float}.get(base, lambda same: same)(value)


def known_parameters(notebook: str | Path) -> dict[str, Parameter]:
    """Read the parameters of a notebook, by name and in order; empty if no cell is tagged ``parameters``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a notebook, if several cells have the tag, or if a line of the cell is not
            ``name: type = literal`` with one of the types of :class:`Parameter`; the message names the line.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import nbformat
        >>> cell = nbformat.v4.new_code_cell("seed: int = 3  # of everything", metadata={"tags": ["parameters"]})
        >>> with TemporaryDirectory() as folder:
        ...     nbformat.write(nbformat.v4.new_notebook(cells=[cell]), f"{folder}/demo.ipynb")
        ...     known_parameters(f"{folder}/demo.ipynb")
        {'seed': Parameter(name='seed', type='int', default=3, help='of everything')}
    """
    path = Path(notebook)
    if not path.is_file():
        raise FileNotFoundError(f"no notebook {path}")
    try:  # plain JSON: nbformat takes over a second to import
        content = json.loads(path.read_text(encoding="utf-8"))
        cells = [cell for cell in content["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no notebook: {error!r}") from error
    if len(cells) > 1:
        raise ValueError(f"{path.name}: {len(cells)} cells are tagged 'parameters', not one")
    return _parse("".join(cells[0]["source"]), path.name) if cells else {}


def _parse(source: str, notebook: str) -> dict[str, Parameter]:
    lines = source.splitlines()
    parameters = {}
    for node in ast.parse(source).body:
        line = lines[(node.end_lineno or node.lineno) - 1]
        try:
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name) or node.value is None:
                raise ValueError("not a line 'name: type = value'")
            kind = ast.unparse(node.annotation)
            if kind not in _TYPES:
                raise ValueError(f"type {kind} is none of {', '.join(_TYPES)}")
            comment = line.encode()[node.end_col_offset :].decode().strip().lstrip("#").strip()
            parameter = Parameter(node.target.id, kind, ast.literal_eval(node.value), comment)
            parameter.take(parameter.default)
        except ValueError as error:
            raise ValueError(f"{notebook}, parameters cell, {lines[node.lineno - 1]!r}: {error}") from error
        parameters[parameter.name] = parameter
    return parameters


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of parameters, the kind that ``papermill -f`` takes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a mapping of names to values.

    Example:
        >>> from wsolnb.runs.paper import Paper
        >>> read_recipe(Paper("barz2022").recipes()["smoke"])["epochs"]
        1
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no recipe {path}")
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} holds no parameters: expected lines 'name: value'")
    return recipe


def checked(known: Mapping[str, Parameter], given: Mapping[str, object], notebook: str) -> dict[str, Any]:
    """Convert values, or text, to the types of the parameters of a notebook, whose name is for messages.

    Raises:
        ValueError: If a name is unknown (the message lists the known ones and the closest) or a value does not fit.

    Example:
        >>> checked({"epochs": Parameter("epochs", "int", 8)}, {"epochs": "3"}, "demo.ipynb")
        {'epochs': 3}
    """
    unknown = []
    for name in (name for name in given if name not in known):
        close = difflib.get_close_matches(name, known, n=1)
        unknown.append(f"{name!r} (did you mean {close[0]!r}?)" if close else repr(name))
    if unknown:
        raise ValueError(f"{notebook} has no parameter {', '.join(unknown)}; known: {', '.join(known) or 'none'}")
    return {name: known[name].take(value) for name, value in given.items()}
