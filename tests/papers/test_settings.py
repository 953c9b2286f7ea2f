"""Each recipe at a paper's scale has the hyper-parameters of `papers/<key>/settings.csv`, which says where it departs.

A row of the table is for one recipe, or for all that a pattern such as `cub-*` names. `paper` is empty where the paper
prints nothing. What no parameter of a notebook holds is compared with the default in the code.
"""

from __future__ import annotations

import csv
import inspect
from collections import Counter
from fnmatch import fnmatch
from functools import cache
from typing import Any

import pytest
import yaml

from wsolnb.data.crops import InstanceCrops
from wsolnb.data.download.sources import read_sources
from wsolnb.papers.bae2020.masking import AttentionDropout, HideAndSeek
from wsolnb.papers.xie2021.erasing import Erasing
from wsolnb.papers.xie2021.losses import EntropyLoss
from wsolnb.runs.paper import Paper
from wsolnb.runs.parameters import known_parameters
from wsolnb.runs.run import resolve
from wsolnb.train import AdamPlan, Plan, StepPlan

KEYS = ("bency2016", "bae2020", "kou2021", "xie2021", "barz2022")
RUN_ONLY = {"dataset", "splits", "train_split", "test_split", "draws", "seed", "device", "precision", "workers"}
RUN_ONLY |= {f"{part}_images" for part in ("train", "held", "test", "search", "box", "pretrain")}
DEFAULTS: dict[str, tuple[Any, str]] = {
    "momentum": (Plan, "momentum"),
    "stages_weight_decay": (AdamPlan, "weight_decay"),
    "factor": (StepPlan, "factor"),
    "has_rate": (HideAndSeek, "rate"),
    "adl_drop_rate": (AttentionDropout, "drop_rate"),
    "mu": (EntropyLoss, "mean"),
    "erasing_rate": (Erasing, "rate"),
    "min_box_side": (InstanceCrops, "min_size"),
}
# A recipe for every row of the main tables that is the paper's own: its data set and its network.
ROWS = {
    "bency2016": {
        "Table 1": ["voc2012-vgg16", "voc2012-alexnet"],
        "Table 2": ["coco-vgg16"],
        "Table 3": ["voc2007-vgg16"],
        "Table 4": ["voc2012-vgg16"],
    },
    "bae2020": {
        "Tables 1 and 2": [
            f"{data}-{network}"
            for data in ("cub", "imagenet")
            for network in ("vgg16", "resnet50_se", "mobilenet_v1", "googlenet_gap")
        ],
        "Table 3": ["cub-vgg16", "imagenet-vgg16"],
        "Table 4": ["openimages-vgg16", "openimages-googlenet_gap", "openimages-resnet50"],
    },
    "kou2021": {
        "Tables 1 to 3": ["cub-vgg16"],
        "Table 4": ["cub-vgg16", "cub-inception_v3"],
        "Tables 5 and 6": ["imagenet-inception_v3"],
    },
    "xie2021": {
        "Tables 1, 3 and 4": ["cub-vgg16", "cub-resnet50"],
        "Table 2": ["imagenet-vgg16", "imagenet-resnet50"],
        "supplement": ["dogs-resnet50", "aircraft-resnet50"],
    },
    "barz2022": {"Sec. 4.3": ["imagenet-resnet50"], "Sec. 4.4": ["coco-resnet50"]},
}


@cache
def table(key: str) -> list[dict[str, str]]:
    with (Paper(key).folder / "settings.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def large(key: str) -> list[str]:
    """The recipes at the paper's scale: named after a public data set; no paper has mobilenet_v2."""
    public = [name for name in Paper(key).recipes() if name.partition("-")[0] in {"coco", *read_sources()}]
    return [name for name in public if Paper(key).recipe(name)["backbone"] != "mobilenet_v2"]


LARGE = [(key, name) for key in KEYS for name in large(key)]


def rows_of(key: str, name: str) -> list[dict[str, str]]:
    return [row for row in table(key) if fnmatch(name, row["recipe"])]


@pytest.mark.parametrize("key", KEYS)
def test_every_row_of_the_main_tables_has_a_recipe_and_every_large_recipe_a_row(key: str) -> None:
    assert {name for names in ROWS[key].values() for name in names} == set(large(key))
    for name in large(key):
        data, _, network = name.partition("-")
        recipe = Paper(key).recipe(name)
        assert recipe["backbone"].removesuffix("_gap") == network.removesuffix("_gap")
        assert recipe["dataset"] in (data, "protocol", "voc")


@pytest.mark.parametrize("key", KEYS)
def test_a_table_of_settings_is_read_as_it_is_meant(key: str) -> None:
    for row in table(key):
        assert [*row] == ["setting", "paper", "where", "recipe", "value", "reason"]
        assert None not in row.values()  # a comma without quotes
        assert [name for name in large(key) if fnmatch(name, row["recipe"])], row
        assert bool(row["paper"]) == bool(row["where"]), row
        assert not row["where"] or row["where"].split()[0] in ("Sec.", "Table", "Tables", "Eq."), row


@pytest.mark.parametrize(("key", "name"), LARGE)
def test_a_recipe_has_the_settings_of_its_table(key: str, name: str) -> None:
    known, values = known_parameters(Paper(key).notebook), resolve(key, recipe=name).parameters
    fixed = {float(method.partition("@")[2]) for method in Paper(key).methods if "@" in method}
    for row in rows_of(key, name):
        setting, paper = row["setting"], yaml.safe_load(row["paper"])
        if setting in known:
            here = values[setting]
            assert known[setting].take(row["value"]) == here, row
        elif setting == "threshold":  # rows of the measured table that are cut at one
            here = float(row["value"])
            assert here in fixed
        else:
            here = inspect.signature(DEFAULTS[setting][0]).parameters[DEFAULTS[setting][1]].default
            assert float(row["value"]) == here, row
        if paper != here:
            assert row["reason"], row


@pytest.mark.parametrize(("key", "name"), LARGE)
def test_every_hyper_parameter_of_a_recipe_is_in_the_table_once(key: str, name: str) -> None:
    counts = Counter(row["setting"] for row in rows_of(key, name))
    assert {setting: count for setting, count in counts.items() if count > 1} == {}
    assert set(Paper(key).recipe(name)) - RUN_ONLY - set(counts) == set()
    assert {"momentum", "batch_size", "weight_decay", "clip"} <= set(counts)
