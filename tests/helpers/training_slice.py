"""What of a notebook leads to its trainings: its own statements, without figures, readings and tables."""

from __future__ import annotations

import ast
from pathlib import Path
from types import CodeType

import nbformat


def leading_to_trainings(notebook: Path) -> tuple[CodeType, set[str]]:
    """A backward slice of a notebook from every call of a function named `train...`, or of a method `fit`.

    Whole statements are kept, of loops and conditions those in them. A statement is kept if it trains, gives a value to
    a name that a later one needs, or is a call that takes such a name and may change it.

    Returns:
        The program, and the names that it needs; the parameters are to be in its namespace.
    """
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    code = [cell.source for cell in cells if "parameters" not in cell.metadata.get("tags", [])]
    needed: set[str] = set()
    kept = _kept(ast.parse("\n".join(code)).body, needed)
    return compile(ast.Module(kept, []), str(notebook), "exec"), needed


def _kept(body: list[ast.stmt], needed: set[str]) -> list[ast.stmt]:
    kept: list[ast.stmt] = []
    for statement in reversed(body):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            wanted = {(alias.asname or alias.name).partition(".")[0] for alias in statement.names} & needed
        elif isinstance(statement, ast.For | ast.If):
            if isinstance(statement, ast.For):
                _kept(statement.body, needed)  # what the next turn needs
            otherwise = _kept(statement.orelse, needed)
            inner = _kept(statement.body, needed)
            wanted = bool(inner or otherwise)
            statement.body, statement.orelse = inner or [ast.Pass(lineno=1, col_offset=0)], otherwise
            if wanted:
                head = statement.iter if isinstance(statement, ast.For) else statement.test
                needed |= _loaded(head)
                kept.append(statement)
            continue
        else:
            wanted = _trains(statement) or bool(_changed(statement) & needed)
        if wanted:
            needed |= _loaded(statement)
            kept.append(statement)
    return kept[::-1]


def _trains(statement: ast.stmt) -> bool:
    calls = [node.func for node in ast.walk(statement) if isinstance(node, ast.Call)]
    trains = any(isinstance(function, ast.Name) and function.id.startswith("train") for function in calls)
    return trains or any(isinstance(function, ast.Attribute) and function.attr == "fit" for function in calls)


def _loaded(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _changed(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.Assign):
        parts = [part for target in statement.targets for part in getattr(target, "elts", [target])]
    elif isinstance(statement, ast.AugAssign | ast.AnnAssign):
        parts = [statement.target]
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        parts = [arg for arg in statement.value.args if isinstance(arg, ast.Name)]
        if isinstance(statement.value.func, ast.Attribute):
            parts.append(statement.value.func.value)
    else:
        return set()
    found = set()
    for part in parts:
        while isinstance(part, ast.Subscript | ast.Attribute):
            part = part.value
        if isinstance(part, ast.Name):
            found.add(part.id)
    return found
