"""The folder of bency2016: its numbers hang together, its claims quote them, its recipes have the paper's settings."""

from __future__ import annotations

import pandas as pd
import pytest

from wsolnb.models.backbones import BACKBONES
from wsolnb.runs.paper import Paper


@pytest.fixture(scope="module")
def paper() -> Paper:
    return Paper("bency2016")


@pytest.fixture(scope="module")
def reported(paper: Paper) -> pd.DataFrame:
    return paper.reported()


def test_tables_are_whole(reported: pd.DataFrame) -> None:
    counts = reported.groupby("table").size()
    assert [counts[f"Table {k}"] for k in (1, 2, 3, 4)] == [7 * 21, 2, 4, 2]


def test_columns_of_table_1_are_the_ones_their_means_belong_to(reported: pd.DataFrame) -> None:
    table = reported[reported.table == "Table 1"]
    kinds = table.metric.str[:3]
    rows = table.row.str.rpartition(", ")
    for (kind, net), part in table.groupby([kinds, rows[0]]):
        mean = part[~part.row.str.endswith("mAP")].value.mean()
        printed = part[part.row.str.endswith("mAP")].value.item()
        # the class bird repeats the value of bike in most columns, so that a mean is up to 0.3 short
        assert -0.05 <= printed - mean <= 0.35, (kind, net)


def test_claims_quote_the_paper(paper: Paper, reported: pd.DataFrame) -> None:
    claims = {claim.id: claim for claim in paper.claims()}
    points = claims["beam-beats-maximum"]
    table = reported[(reported.dataset == "VOC2012 val") & (reported.metric == "loc_map")].set_index("method").value
    assert points.reported == (table["beam"], table["peak"])
    boxes = reported[reported.table == "Table 4"].set_index("method").value
    assert claims["beam-boxes"].reported == (boxes["beam"], boxes["peak"])
    gains = reported[reported.method == "beam+co"].set_index("metric").value
    for claim, metric in (("partners-classify", "cls_gain"), ("partners-localize", "loc_gain")):
        first, second = claims[claim].reported
        assert first - second == pytest.approx(gains[metric])
    assert {claim.first for claim in claims.values()} <= set(paper.methods)
    assert {claim.metric for claim in claims.values()} <= set(paper.metrics)


def test_recipes_have_the_papers_settings(paper: Paper) -> None:
    for name in ("voc2007-vgg16", "voc2012-vgg16", "voc2012-alexnet", "coco-vgg16"):
        recipe = paper.recipe(name)
        assert recipe["backbone"] in BACKBONES
        assert (recipe["width"], recipe["depth"], recipe["turn"]) == (8, 10, 30)
        assert (recipe["lr"], recipe["batch_size"], recipe["frozen"]) == (0.001, 50, ["backbone"])
    assert paper.recipe("voc2007-vgg16")["held_share"] == 0.1
    assert paper.recipe("voc2012-vgg16")["splits"] == ["train", "", "val"]
    assert paper.recipe("coco-vgg16")["dataset"] == "coco"
