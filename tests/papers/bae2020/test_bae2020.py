"""The folder of bae2020: its numbers hang together, its claims quote them, its recipes have the paper's settings."""

from __future__ import annotations

import pandas as pd
import pytest

from wsolnb.models.backbones import BACKBONES
from wsolnb.papers.bae2020.masking import ADL_POSITIONS
from wsolnb.runs.paper import Paper


@pytest.fixture(scope="module")
def paper() -> Paper:
    return Paper("bae2020")


@pytest.fixture(scope="module")
def reported(paper: Paper) -> pd.DataFrame:
    return paper.reported()


def test_tables_are_whole(reported: pd.DataFrame) -> None:
    counts = reported.groupby("table").size()
    # Table 1: 22 rows of 6 numbers, 21 of them not given; 2: 8 x 6; 3: 8 x 6; 4: 10 x 3
    assert [counts[f"Table {k}"] for k in (1, 2, 3, 4)] == [22 * 6 - 21, 48, 48, 30]


def test_claims_quote_the_papers_tables(paper: Paper, reported: pd.DataFrame) -> None:
    for claim in paper.claims():
        table = reported[reported.table == claim.where.split(",")[0]]
        table = table[table.dataset.str.contains("VGG16|CUB-200-2011$") & ~table.dataset.str.contains("ImageNet")]
        for method, number in zip((claim.first, claim.second), claim.reported, strict=True):
            rows = table[(table.method == method) & (table.metric == claim.metric)]
            assert number in rows.value.tolist(), (claim.id, method)


def test_mean_gains_follow_from_table_2(reported: pd.DataFrame) -> None:
    table = reported[(reported.table == "Table 2") & (reported.metric == "top1_loc")]
    gains = reported[reported.metric == "top1_loc_gain"].value.tolist()
    for name, gain in zip(("CUB", "ImageNet"), gains, strict=True):
        rows = table[table.dataset.str.startswith(name)].groupby("method").value.mean()
        assert rows["tap+nwc+pas"] - rows["cam"] == pytest.approx(gain, abs=0.006)


def test_gains_of_table_4_follow_from_it(reported: pd.DataFrame) -> None:
    table = reported[reported.table == "Table 4"].set_index("row").value
    for net in ("VGG16", "GoogLeNet", "ResNet50"):
        for method in ("CAM", "ADL"):
            gain = table[f"{net} {method} + Ours"] - table[f"{net} {method}"]
            assert gain == pytest.approx(table[f"{net} {method} + Ours minus {method}"], abs=0.05)


def test_recipes_have_the_papers_settings(paper: Paper) -> None:
    for name in ("cub-vgg16", "imagenet-vgg16", "openimages-resnet50"):
        recipe = paper.recipe(name)
        assert recipe["backbone"] in BACKBONES
        assert recipe["backbone"] in ADL_POSITIONS
        assert (recipe["percentile"], recipe["has_patch"], recipe["image_size"]) == (90, 32, 224)
    cub = paper.recipe("cub-vgg16")
    assert (cub["tap_threshold"], cub["epochs"], cub["batch_size"]) == (0.1, 200, 40)
    assert cub["lr"] * cub["head_rate"] == pytest.approx(0.003)
