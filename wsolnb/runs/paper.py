"""The papers of the suite: card, notebook, reported numbers, claims and recipes, found by a short key.

A paper is a folder ``papers/<key>/`` beside ``notebooks/``: ``paper.yaml`` names it, ``README.md`` is its card,
``reported.csv`` holds the numbers it prints, ``claims.yaml`` what it concludes from them (:mod:`wsolnb.runs.claims`),
``study.csv`` what the notebook measured over many seeds (:mod:`wsolnb.runs.study`), ``trainings.py`` what it trains
(:mod:`wsolnb.runs.trainings`), and every other ``*.yaml`` is a recipe: parameters for its notebook.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from wsolnb.runs.claims import Claim, read_claims
from wsolnb.runs.parameters import known_parameters, read_recipe

if TYPE_CHECKING:
    import pandas as pd


_NOT_RECIPES = ("paper.yaml", "claims.yaml")


def suite_folder() -> Path:
    """Find the folder that holds ``papers/`` and ``notebooks/``.

    It is the working directory or above it, beside the package (an editable install), or inside (an installed wheel).

    Raises:
        FileNotFoundError: If there is none; the message lists the folders searched.

    Example:
        >>> (suite_folder() / "papers").is_dir()
        True
    """
    package = Path(__file__).resolve().parents[1]
    folders = [Path.cwd(), *Path.cwd().parents, package.parent, package / "suite"]
    for folder in folders:
        if (folder / "notebooks").is_dir() and any((folder / "papers").glob("*/paper.yaml")):
            return folder
    searched = f"in {folders[0]} or above it, nor in {folders[-2]} or {folders[-1]}"
    raise FileNotFoundError(f"no folder with papers/ and notebooks/ {searched}: start in a checkout of wsolnb")


def paper_keys() -> list[str]:
    """Keys of all papers, sorted; folders whose names begin with an underscore, such as the template, are none.

    Example:
        >>> "barz2022" in paper_keys(), "_template" in paper_keys()
        (True, False)
    """
    return sorted(path.parent.name for path in (suite_folder() / "papers").glob("[!_]*/paper.yaml"))


class Paper:
    """One paper of the suite, by its key: the folder name below ``papers/``, such as ``barz2022``.

    ``folder``, ``notebook`` and ``card`` are paths; ``methods`` and ``metrics`` name and describe the results of a run
    and what is measured of them; ``changes`` names the steps that the paper changes, ``remember`` is the one sentence
    to take home.

    Raises:
        ValueError: If the key is unknown; the message lists the known ones.

    Example:
        >>> paper = Paper("barz2022")
        >>> paper.year, paper.notebook.name
        (2022, '5_dense_class_maps.ipynb')
    """

    def __init__(self, key: str) -> None:
        suite = suite_folder()
        self.key = key
        self.folder = suite / "papers" / key
        if key not in paper_keys():
            raise ValueError(f"no paper {key!r} in {suite / 'papers'}: known are {', '.join(paper_keys())}")
        about = yaml.safe_load((self.folder / "paper.yaml").read_text(encoding="utf-8"))
        self.title: str = about["title"]
        self.authors: list[str] = about["authors"]
        self.year: int = about["year"]
        self.notebook = suite / "notebooks" / about["notebook"]
        self.card = self.folder / "README.md"
        self.methods: dict[str, str] = about["methods"]
        self.metrics: dict[str, str] = about["metrics"]
        self.changes: str = about["changes"]
        self.remember: str = about["remember"]

    def __repr__(self) -> str:
        return f"Paper({self.key!r})"

    def reported(self) -> pd.DataFrame:
        """Every number the paper prints, one per row.

        Columns are ``table`` and ``row`` (where it is printed), ``method`` (our name), ``dataset``, ``metric``,
        ``value``, ``unit`` and ``note``; empty text if not applicable.

        Example:
            >>> reported = Paper("barz2022").reported()
            >>> reported[reported.metric == "ap25"].value.tolist()
            [17.0, 21.6, 21.8]
        """
        import pandas as pd

        text = dict.fromkeys(("table", "row", "method", "dataset", "metric", "unit", "note"), str)
        return pd.read_csv(self.folder / "reported.csv", keep_default_na=False, dtype=text | {"value": float})

    def claims(self) -> list[Claim]:
        """The claims, in the order of ``claims.yaml``; errors as in :func:`wsolnb.runs.claims.read_claims`.

        Example:
            >>> Paper("barz2022").claims()[0].first
            'dcm-onehot'
        """
        return read_claims(self.folder / "claims.yaml")

    def recipes(self) -> dict[str, Path]:
        """Files of parameters for the notebook, by name.

        Example:
            >>> "smoke" in Paper("barz2022").recipes()
            True
        """
        return {path.stem: path for path in sorted(self.folder.glob("*.yaml")) if path.name not in _NOT_RECIPES}

    def recipe(self, name: str) -> dict[str, Any]:
        """The parameters of one recipe, as they stand in the file; the error for an unknown name lists the known ones.

        Example:
            >>> Paper("barz2022").recipe("coco-resnet50")["epochs"]
            372
        """
        recipes = self.recipes()
        if name not in recipes:
            raise ValueError(f"{self.key} has no recipe {name!r}: known are {', '.join(recipes)}")
        return read_recipe(recipes[name])

    def parameters(self, namespace: Mapping[str, object]) -> dict[str, Any]:
        """The notebook's parameters among ``globals()``, say; ValueError if one is missing or does not fit its type."""
        known = known_parameters(self.notebook)
        if missing := [name for name in known if name not in namespace]:
            raise ValueError(f"no variable for the parameters {', '.join(missing)}: run the parameters cell first")
        for name, parameter in known.items():
            if parameter.type != "str" and isinstance(namespace[name], str):
                hint = "papermill's -r gives text, -p numbers"
                raise ValueError(f"parameter {name} wants {parameter.type}, not the text {namespace[name]!r}: {hint}")
        return {name: parameter.take(namespace[name]) for name, parameter in known.items()}

    def beside(self, metrics: Mapping[str, Mapping[str, Any]], dataset: str) -> pd.DataFrame:
        """Put the numbers reported on a data set and measured ones side by side, in percent, NaN if missing.

        Measured are fractions, or intervals with a ``value``, by method and metric. The table has a row per method, and
        for every metric the columns ``reported`` and ``measured``.

        Example:
            >>> table = Paper("barz2022").beside({"cam": {"ap25": 0.25}}, "COCO")
            >>> table.loc["cross-entropy + CAM", "ap25"].tolist()
            [17.0, 25.0]
        """
        import pandas as pd

        reported = self.reported()
        if dataset not in set(reported.dataset):
            known = ", ".join(sorted(set(reported.dataset) - {""}))
            raise ValueError(f"{self.key} reports nothing on {dataset!r}: known are {known}")
        reported = reported[(reported.dataset == dataset) & (reported.unit == "%")]
        numbers = {(row.method, row.metric): row.value for row in reported.itertuples()}
        columns: dict[tuple[str, str], list[Any]] = {}
        for metric in self.metrics:
            if any(metric in row for row in metrics.values()):
                columns[metric, "reported"] = [numbers.get((method, metric)) for method in metrics]
                columns[metric, "measured"] = [_percent(row.get(metric)) for row in metrics.values()]
        table = pd.DataFrame(columns, index=[self.methods.get(method, method) for method in metrics], dtype=float)
        return table.rename_axis(columns=("metric", "%"))


def _percent(number: Any) -> float | None:
    return None if number is None else 100.0 * float(getattr(number, "value", number))
