"""The papers' folders: tables are complete, claims quote them, recipes have the papers' settings and fit networks."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pandas as pd
import pytest
import torch

from wsolnb.models.backbones import backbone
from wsolnb.models.cam import classifier
from wsolnb.papers.bae2020.masking import ADL_POSITIONS
from wsolnb.papers.kou2021.network import csoa
from wsolnb.runs.claims import Claim
from wsolnb.runs.paper import Paper, paper_keys
from wsolnb.train import StepPlan
from wsolnb.train.plans import groups

# Numbers printed in each table; where a cell of the paper is empty, the product is reduced by it.
TABLES = {
    "bae2020": {"Table 1": 22 * 6 - 21, "Table 2": 8 * 6, "Table 3": 8 * 6, "Table 4": 10 * 3},
    "bency2016": {"Table 1": 7 * 21, "Table 2": 2, "Table 3": 4, "Table 4": 2},
    "kou2021": {"Table 1": 5 * 4, "Table 2": 3 * 4, "Table 3": 3 * 2, "Table 4": 12 * 4 - 8, "Table 5": 14 * 4 - 12,
                "Table 6": 8},
    "xie2021": {"Table 1": 17 * 5 - 25, "Table 2": 16 * 5 - 26, "Table 3": 8 * 3 + 1, "Table 4": 2 * 3},
}  # fmt: skip

# The data set that a paper's claims are about, where its tables have several.
DATASETS = {
    "bae2020": r"(?!ImageNet).*(VGG16|CUB-200-2011$)|$",
    "bency2016": r"VOC2012( val| test|$)|COCO val|VOC2007 test|$",
}
# Table 1 is taken to include the gains of co-occurrence; that it does no harm is a claim of ours.
NOT_QUOTED = {"partners-classify", "partners-localize", "partners-do-no-harm"}
CLAIMS = [(key, claim) for key in paper_keys() for claim in Paper(key).claims() if claim.id not in NOT_QUOTED]

ROWS = ["le", "lw", "la", "ae", "lw+la", "lw+ae", "la+ae", "lw+la+ae", "lh+la+ae"]  # of xie2021's Tables 3 and 4


@pytest.mark.parametrize("key", TABLES)
def test_tables_are_complete(key: str) -> None:
    counts = Paper(key).reported().groupby("table").size()
    assert counts[counts.index.str.startswith("Table")].to_dict() == TABLES[key]


def quoted_rows(key: str, claim: Claim, method: str) -> pd.DataFrame:
    """The rows of `reported.csv` that a claim can quote for one of its methods."""
    reported = Paper(key).reported()
    tables = [table for table in set(reported.table) if re.search(rf"{re.escape(table)}(?!\d)", claim.where)]
    rows = reported[reported.table.isin(tables) & (reported.metric == claim.metric)]
    if key in DATASETS and method in Paper(key).methods:  # what no run of ours has is of another data set or network
        rows = rows[rows.dataset.str.match(DATASETS[key])]
    named = rows[rows.method.isin((method, method.partition("@")[0]) if key == "bae2020" else (method,))]
    return rows[rows.method == ""] if named.empty and key == "kou2021" else named  # a base that is none of ours


@pytest.mark.parametrize(("key", "claim"), CLAIMS, ids=[f"{key}-{claim.id}" for key, claim in CLAIMS])
def test_claims_quote_the_paper(key: str, claim: Claim) -> None:
    if claim.reported is None:
        assert claim.ours
        return
    first, second = claim.reported
    if math.isnan(first) or math.isnan(second):
        assert math.isnan(first)
        assert math.isnan(second)
        assert "no numbers" in claim.where
        return
    assert {"greater": first > second, "less": first < second, "equal": abs(first - second) <= claim.margin}[claim.kind]
    if key == "side_by_side":  # quotes the other papers; errors are turned into accuracies
        values = Paper(claim.where.split()[0]).reported().value
        assert {first, second} <= {*values, *(100 - values).round(2)}
        return
    for method, number in zip((claim.first, claim.second), claim.reported, strict=True):
        assert number in quoted_rows(key, claim, method).value.tolist(), method


def test_gains_of_co_occurrence_are_the_papers() -> None:
    reported = Paper("bency2016").reported()
    gains = reported[reported.method == "beam+co"].set_index("metric").value
    claims = {claim.id: claim.reported for claim in Paper("bency2016").claims()}
    for claim, metric in (("partners-classify", "cls_gain"), ("partners-localize", "loc_gain")):
        assert claims[claim][0] - claims[claim][1] == pytest.approx(gains[metric])
    assert claims["beam-beats-maximum-coco"][0] - claims["beam-beats-maximum-coco"][1] == pytest.approx(8)


def test_recipes_name_places_that_their_networks_have() -> None:
    for name in Paper("bae2020").recipes():
        assert Paper("bae2020").recipe(name).get("backbone", "tiny_gap") in ADL_POSITIONS
    recipes = [Paper("xie2021").recipe(name) for name in Paper("xie2021").recipes()]
    for network, stage in {(recipe.get("backbone", "tiny"), recipe.get("stage", "block2")) for recipe in recipes}:
        assert stage in list(backbone(network).stages)[:-1]
    assert all("lw+la+ae" in recipe["rows"] for recipe in recipes)


def test_new_layers_of_bae2020_learn_at_the_papers_rate_and_in_its_steps() -> None:
    recipe = Paper("bae2020").recipe("cub-vgg16")
    rate = {"head_rate": recipe["head_rate"], "every": recipe["step_every"], "nesterov": True}
    plan = StepPlan(recipe["epochs"], lr=recipe["lr"], **rate)
    net = classifier(recipe["backbone"], 3)
    optimizer = plan.optimizer(groups(net, plan))
    old, new = optimizer.param_groups
    assert (old["lr"], new["lr"], new["nesterov"]) == (0.0003, pytest.approx(0.003), True)
    layers = {id(weight): name for name, weight in net.named_parameters()}
    assert {layers[id(weight)].rpartition(".")[0] for weight in new["params"]} == {"head", "backbone.stages.conv6.0"}
    schedule, rates = plan.schedule(optimizer), []
    for _ in range(plan.epochs):
        rates.append(new["lr"])
        optimizer.step()
        schedule.step()
    falls = [epoch for epoch, (before, after) in enumerate(pairwise(rates), start=1) if after < before]
    assert falls == [60, 120, 180]


@pytest.mark.parametrize("name", ["imagenet-resnet50", "coco-resnet50"])
def test_recipes_of_barz2022_have_the_reported_schedule(name: str) -> None:
    reported = Paper("barz2022").reported().set_index("metric").value
    recipe = Paper("barz2022").recipe(name)
    schedule = {
        "epochs": "epochs",
        "cycle": "cycle",
        "lr_cosine": "lr",
        "image_size": "image_size",
        "test_size": "test_size",
    }
    for parameter, metric in schedule.items():
        assert recipe[parameter] == reported[metric]


@pytest.mark.parametrize("name", ["cub-vgg16", "cub-inception_v3", "imagenet-inception_v3", "cards-mobilenet_v2"])
def test_recipes_of_kou2021_name_stages_that_fit(name: str) -> None:
    recipe = Paper("kou2021").recipe(name)
    net = backbone(recipe["backbone"], stride=recipe.get("stride"))
    image = torch.rand(1, 3, recipe["image_size"], recipe["image_size"])
    for stage in ("inner", "early") if recipe["early"] else ("inner",):
        two_heads = csoa(net, 3, inner=recipe[stage], pool=recipe[f"{stage}_pool"], width=2).eval()
        with torch.no_grad():
            maps = two_heads(image)
        assert maps.inner is not None
        assert maps.inner.shape == maps.last.shape


def test_every_row_of_xie2021_has_a_name_and_smoke_trains_them_all() -> None:
    paper = Paper("xie2021")
    assert paper.recipe("smoke")["rows"] == ROWS
    assert {*ROWS, "cam", "stage1", "centre", "whole"} == set(paper.methods)
