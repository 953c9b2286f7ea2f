from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from hypothesis import given, strategies as st
from nbformat.v4 import new_code_cell, new_notebook

from wsolnb.runs.paper import Paper
from wsolnb.runs.parameters import Parameter, checked, known_parameters, read_recipe

CELL = """\
dataset: str = "critters"  # what to look at
epochs: int = 8  # passes over the data

lr: float = 1e-2  # learning rate
retrain: bool = False
widths: list[int] = [8, 16]  # channels, with a # in the help
knobs: dict = {"clutter": 0.5}
# a line of its own
"""


def notebook(tmp_path: Path, *cells: str, tag: str = "parameters") -> Path:
    path = tmp_path / "demo.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(cell, metadata={"tags": [tag]}) for cell in cells]), path)
    return path


def test_reads_names_types_defaults_and_help(tmp_path: Path) -> None:
    known = known_parameters(notebook(tmp_path, CELL))
    assert list(known.values()) == [
        Parameter("dataset", "str", "critters", "what to look at"),
        Parameter("epochs", "int", 8, "passes over the data"),
        Parameter("lr", "float", 0.01, "learning rate"),
        Parameter("retrain", "bool", False, ""),
        Parameter("widths", "list[int]", [8, 16], "channels, with a # in the help"),
        Parameter("knobs", "dict", {"clutter": 0.5}, ""),
    ]


def test_a_notebook_without_the_cell_has_no_parameters(tmp_path: Path) -> None:
    assert known_parameters(notebook(tmp_path, "x = 1", tag="other")) == {}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("epochs = 8", "name: type = value"),
        ("epochs: int", "name: type = value"),
        ("root: Path = Path('x')", "type Path is none of"),
        ("name: str | None = None", "is none of int, float, str, bool, list, dict"),
        ("seed: int = 2 ** 3", "malformed"),
        ("seed: int = 'one'", "seed wants int"),
        ("print('hello')", "name: type = value"),
    ],
)
def test_lines_that_are_no_parameters_are_named(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(ValueError, match="parameters cell") as caught:
        known_parameters(notebook(tmp_path, "ok: int = 1\n" + line))
    assert said in str(caught.value)
    assert line.split("\n")[0] in str(caught.value)


def test_files_that_are_no_notebooks_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no notebook"):
        known_parameters(tmp_path / "gone.ipynb")
    broken = tmp_path / "broken.ipynb"
    broken.write_text("{")
    with pytest.raises(ValueError, match="is no notebook"):
        known_parameters(broken)
    with pytest.raises(ValueError, match="2 cells"):
        known_parameters(notebook(tmp_path, "a: int = 1", "b: int = 1"))


@pytest.mark.parametrize(
    ("kind", "value", "taken"),
    [
        ("str", "007", "007"),
        ("str", "true", "true"),
        ("int", "007", 7),
        ("int", "-3", -3),
        ("float", "1e-3", 0.001),
        ("float", 2, 2.0),
        ("bool", "true", True),
        ("bool", "No", False),
        ("bool", True, True),
        ("list", "[1, a]", [1, "a"]),
        ("list[float]", "[1, 2.5]", [1.0, 2.5]),
        ("dict", "{a: 1}", {"a": 1}),
        ("dict", {"a": 1}, {"a": 1}),
    ],
)
def test_values_take_the_annotated_type(kind: str, value: object, taken: object) -> None:
    found = Parameter("x", kind, None).take(value)
    assert found == taken
    assert type(found) is type(taken)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("int", ["1.5", 1.5, True, "many", None]),
        ("float", ["fast", False]),
        ("bool", ["maybe", 1]),
        ("str", [7, None]),
        ("list", ["1", "[1", {"a": 1}]),
        ("list[int]", ["[a]"]),
        ("dict", ["[1]"]),
    ],
)
def test_values_that_do_not_fit_are_named_with_parameter_and_type(kind: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(ValueError, match="parameter x wants ") as caught:
            Parameter("x", kind, None).take(value)
        assert f"wants {kind}, which {value!r} is not" in str(caught.value)


@given(st.one_of(st.text(), st.integers(), st.floats(allow_nan=False), st.booleans()))
def test_a_value_of_the_right_type_is_kept(value: object) -> None:
    assert Parameter("x", type(value).__name__, None).take(value) == value


@given(st.integers(), st.floats(allow_nan=False), st.lists(st.integers()), st.dictionaries(st.text(), st.integers()))
def test_text_of_a_value_gives_the_value(i: int, f: float, ints: list[int], table: dict[str, int]) -> None:
    assert Parameter("x", "int", 0).take(str(i)) == i
    assert Parameter("x", "float", 0.0).take(repr(f)) == f
    assert Parameter("x", "list[int]", []).take(json.dumps(ints)) == ints
    assert Parameter("x", "dict", {}).take(dict(table)) == table


def test_unknown_names_are_refused_with_the_closest_and_all_known() -> None:
    known = {name: Parameter(name, "int", 0) for name in ("epochs", "batch_size")}
    with pytest.raises(ValueError, match="demo has no parameter") as caught:
        checked(known, {"epohcs": 1, "zzz": 2}, "demo")
    assert "'epohcs' (did you mean 'epochs'?), 'zzz'; known: epochs, batch_size" in str(caught.value)


def test_values_of_a_namespace(tmp_path: Path) -> None:
    paper = Paper("barz2022")
    paper.notebook = notebook(tmp_path, "epochs: int = 8\nlr: float = 0.1\n")
    assert paper.parameters({"lr": 1, "epochs": 2, "torch": object()}) == {"epochs": 2, "lr": 1.0}
    with pytest.raises(ValueError, match="no variable for the parameters lr"):
        paper.parameters({"epochs": 2})
    with pytest.raises(ValueError, match="epochs wants int"):
        paper.parameters({"lr": 1, "epochs": "two"})


def test_recipes_that_are_no_mapping_are_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    with pytest.raises(FileNotFoundError, match="no recipe"):
        read_recipe(path)
    for text in ("- 1\n", "", "a: [1"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"is no YAML|holds no parameters"):
            read_recipe(path)
    path.write_text("epochs: 3\nlr: 1e-3\n")
    assert read_recipe(path) == {"epochs": 3, "lr": "1e-3"}  # YAML 1.1 reads text here; the annotation mends it


def test_nan_is_no_value():
    with pytest.raises(ValueError, match="parameter lr wants float, which 'nan' is not"):
        Parameter("lr", "float", 0.1).take("nan")


def test_text_where_papermill_should_have_given_a_number():
    paper = Paper("primer")
    given = {name: each.default for name, each in known_parameters(paper.notebook).items()}
    assert paper.parameters(given)["seed"] == given["seed"]
    with pytest.raises(ValueError, match="parameter seed wants int, not the text '7': papermill's -r gives text"):
        paper.parameters(given | {"seed": "7"})
