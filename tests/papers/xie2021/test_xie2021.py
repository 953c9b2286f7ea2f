"""The folder of xie2021: its numbers hang together, its claims quote them, its recipes have the paper's settings."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from wsolnb.models.backbones import BACKBONES, backbone
from wsolnb.runs.paper import Paper

ROWS = ["le", "lw", "la", "ae", "lw+la", "lw+ae", "la+ae", "lw+la+ae"]


@pytest.fixture(scope="module")
def paper() -> Paper:
    return Paper("xie2021")


@pytest.fixture(scope="module")
def reported(paper: Paper) -> pd.DataFrame:
    return paper.reported()


def value(reported: pd.DataFrame, table: str, row: str, metric: str) -> float:
    found = reported[(reported.table == table) & (reported.row == row) & (reported.metric == metric)]
    assert len(found) == 1
    return float(found.value.iloc[0])


def test_tables_are_whole(reported: pd.DataFrame) -> None:
    counts = reported.groupby("table").size()
    # Table 1: 17 rows of 5 numbers, 25 not given; Table 2: 16 rows of 5, 26 not given; 3: 8 x 3 and 1; 4: 2 x 3
    assert [counts[f"Table {k}"] for k in (1, 2, 3, 4)] == [60, 54, 25, 6]
    assert set(reported.unit) == {"%"}


def test_claims_quote_the_papers_tables(paper: Paper, reported: pd.DataFrame) -> None:
    for claim in paper.claims():
        if math.isnan(claim.reported[0]):
            assert "no numbers" in claim.where
            continue
        table = reported[(reported.table == claim.where) & (reported.metric == claim.metric)]
        for method, number in zip((claim.first, claim.second), claim.reported, strict=True):
            assert number in table[table.method == method].value.tolist(), (claim.id, method)


def test_differences_in_the_text_follow_from_the_tables(reported: pd.DataFrame) -> None:
    ours = "Ours(ORNet)-VGG16"
    for metric, other, said in (
        ("corloc", "GC-Net-Rect-VGG16", 5.1),
        ("corloc", "CAM-VGG16", 30.2),
        ("top1_loc_err", "GC-Net-Rect-VGG16", -4.5),
        ("top1_loc_err", "CAM-VGG16", -23.59),
    ):
        gap = value(reported, "Table 1", ours, metric) - value(reported, "Table 1", other, metric)
        assert gap == pytest.approx(said, abs=0.006)
    for first, second, metric, said in (
        ("L_e", "Stage one", "corloc", 6.83),
        ("L_e + alpha L_w", "L_e", "corloc", 10.33),
        ("L_e + alpha L_w", "L_e", "top1_loc_err", -8.31),
        ("L_e + alpha L_w", "L_e", "top5_loc_err", -9.62),
    ):
        gap = value(reported, "Table 3", first, metric) - value(reported, "Table 3", second, metric)
        assert gap == pytest.approx(said, abs=0.006)


def test_a_margin_in_the_text_does_not_follow_from_table_2(reported: pd.DataFrame) -> None:
    table = reported[(reported.table == "Table 2") & (reported.metric == "corloc")].set_index("row").value
    ours = table.pop("Ours(ORNet)-VGG16")
    assert ours - table.max() == pytest.approx(3.58), "the text says at least 4.16"


def test_full_rows_of_tables_1_3_and_4_agree(reported: pd.DataFrame) -> None:
    for metric in ("corloc", "top1_loc_err", "top5_loc_err"):
        numbers = reported[(reported.method == "lw+la+ae") & (reported.metric == metric)]
        numbers = numbers[numbers.dataset == "CUB-200-2011"].value
        assert len(numbers) == 3
        assert numbers.max() - numbers.min() < 0.011


@pytest.mark.parametrize("name", ["cub-resnet50", "imagenet-resnet50", "dogs-resnet50", "aircraft-resnet50"])
def test_recipes_have_the_papers_settings(paper: Paper, name: str) -> None:
    recipe = paper.recipe(name)
    assert (recipe["alpha"], recipe["beta"], recipe["image_size"]) == (1.5, 0.02, 224)
    assert (recipe["optimizer"], recipe["coarse_lr"], recipe["refine_lr"]) == ("adam", 0.001, 0.0001)
    epochs = (5, 3) if name.startswith("imagenet") else (70, 30)
    assert (recipe["coarse_epochs"], recipe["refine_epochs"]) == epochs
    assert recipe["batch_size"] == (256 if name.startswith("imagenet") else 16)
    assert recipe["evaluator_backbone"] in BACKBONES
    assert recipe["stage"] in backbone(recipe["backbone"]).stages
    assert "lw+la+ae" in recipe["rows"]


def test_every_row_has_a_name_and_smoke_trains_them_all(paper: Paper) -> None:
    assert paper.recipe("smoke")["rows"] == [*ROWS, "lh+la+ae"]
    assert {*ROWS, "lh+la+ae", "cam", "stage1", "centre", "whole"} == set(paper.methods)


def test_kept_sweeps_have_what_the_notebook_reads(paper: Paper) -> None:
    seeds = pd.read_csv(paper.folder / "seeds.csv")
    corloc = seeds[seeds.metric == "corloc"]
    assert {"stage1", "lw+la+ae"} <= set(corloc.method) <= set(paper.methods)
    assert not corloc.duplicated(["method", "seed"]).any()
    assert bool(((corloc.low <= corloc.value) & (corloc.value <= corloc.high)).all())
    sweep = pd.read_csv(paper.folder / "sweep.csv")
    assert list(sweep.columns) == ["alpha", "beta", "corloc"]
    assert not sweep.duplicated(["alpha", "beta"]).any()
    assert bool(sweep.corloc.between(0, 1).all())
