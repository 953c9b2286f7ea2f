"""The folder of kou2021: its numbers hang together, claims quote them, recipes have the settings; its figures."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from torch import Tensor

from wsolnb.data.critters import World
from wsolnb.localization.maps import LocalizationMaps
from wsolnb.metrics.bootstrap import Interval
from wsolnb.models.backbones import backbone
from wsolnb.papers.kou2021 import figures
from wsolnb.papers.kou2021.maps import RULE, merged
from wsolnb.papers.kou2021.network import csoa
from wsolnb.runs.paper import Paper


@pytest.fixture(scope="module")
def paper() -> Paper:
    return Paper("kou2021")


@pytest.fixture(scope="module")
def reported(paper: Paper) -> pd.DataFrame:
    return paper.reported()


def test_tables_are_whole(reported: pd.DataFrame) -> None:
    counts = reported.groupby("table").size()
    # 1: 5 x 4; 2: 3 x 4; 3: 3 x 2; 4: 12 x 4 less 8 not given; 5: 14 x 4 less 12; 6: 8
    assert [counts[f"Table {k}"] for k in range(1, 7)] == [20, 12, 6, 40, 44, 8]


def test_the_same_network_has_the_same_numbers_in_every_table(reported: pd.DataFrame) -> None:
    csoa_on_cub = reported[(reported.method == "csoa") & (reported.dataset == "CUB-200-2011 VGG16")]
    for metric in ("top1_loc_error", "top5_loc_error"):
        assert csoa_on_cub[csoa_on_cub.metric == metric].value.nunique() == 1
    rounded = csoa_on_cub[csoa_on_cub.metric == "top1_cls_error"].value.round(1)
    assert rounded.nunique() == 1  # 21.41 in Tables 1 and 2, 21.4 in Table 4


def test_what_the_paper_contradicts(reported: pd.DataFrame) -> None:
    table = reported[(reported.table == "Table 3") & (reported.metric == "top1_loc_error")].set_index("row").value
    assert table.idxmin() == "threshold 0.3"  # the text says 0.2
    danet = reported[reported.row.str.contains("VGGnet-DANet") & (reported.metric == "top1_loc_error")]
    assert sorted(danet.value) == [47.48, 47.78]
    gap = reported[(reported.row == "GoogLeNet-GAP") & (reported.metric == "top1_cls_error")]
    assert gap.groupby("dataset").value.first().nunique() == 1  # one number for birds and for ImageNet


def test_claims_quote_the_papers_tables(paper: Paper, reported: pd.DataFrame) -> None:
    for claim in paper.claims():
        table = reported[reported.table == claim.where.split(",")[0]]
        for method, number in zip((claim.first, claim.second), claim.reported, strict=True):
            rows = table[(table.metric == claim.metric) & table.value.eq(number)]
            assert len(rows), (claim.id, method)
            assert {method, ""} & set(rows.method), (claim.id, method)
        better = claim.reported[0] < claim.reported[1]
        assert better == (claim.kind == "less")


def test_methods_and_metrics_of_claims_are_named(paper: Paper) -> None:
    for claim in paper.claims():
        assert {claim.first, claim.second} <= set(paper.methods)
        assert claim.metric in paper.metrics


def test_recipes_have_the_papers_settings(paper: Paper) -> None:
    for name in ("cub-vgg16", "imagenet-inception_v3"):
        recipe = paper.recipe(name)
        settings = {k: recipe[k] for k in ("batch_size", "batch_classes", "lr", "decay", "weight_decay", "width")}
        assert settings == {
            "batch_size": 48, "batch_classes": 12, "lr": 0.001, "decay": 0.95, "weight_decay": 0.0005, "width": 1024
        }  # fmt: skip
        assert (recipe["embed"], recipe["embed_size"], recipe["crops"]) == ("alexnet", 224, True)


@pytest.mark.parametrize("name", ["cub-vgg16", "imagenet-inception_v3", "cards-mobilenet_v2"])
def test_recipes_name_stages_that_fit(paper: Paper, name: str) -> None:
    recipe = paper.recipe(name)
    net = backbone(recipe["backbone"], stride=recipe.get("stride"))
    image = torch.rand(1, 3, recipe["image_size"], recipe["image_size"])
    for stage in ("inner", "early") if recipe["early"] else ("inner",):
        found = csoa(net, 3, inner=recipe[stage], pool=recipe[f"{stage}_pool"], width=2).eval()
        with torch.no_grad():
            maps = found(image)
        assert maps.inner is not None
        assert maps.inner.shape == maps.last.shape


@pytest.fixture
def _closed() -> object:
    plt.switch_backend("Agg")
    yield
    plt.close("all")


@pytest.mark.usefixtures("_closed")
def test_figures_draw_what_they_are_given() -> None:
    world = World(families=2, species=2, size=(48, 64))
    images = world.singles(4)
    masks = torch.stack([images[i][1]["masks"][0] for i in range(4)]).float()
    boxes = [images[i][1]["boxes"].as_subclass(Tensor) for i in range(4)]
    found = LocalizationMaps(
        torch.stack([masks, torch.zeros_like(masks)], dim=1),
        torch.eye(4),
        torch.arange(4),
        boxes,
        (48, 64),
        upsample=merged,
    )
    fig = figures.show_merge(images, found, [0, 2], RULE, world.classes)
    texts = [text.get_text() for ax in fig.axes for text in ax.texts]
    overlaps = [float(t) for t in texts if t.replace(".", "").isdigit()]
    assert overlaps == pytest.approx([0, 0, 1, 1, 1, 1, 0, 0], abs=0.1)  # inner, last, union, intersection
    assert len(figures.show_confidence(images, masks, [0, 1, 3]).axes) == 15
    smaller = LocalizationMaps(
        masks, torch.eye(4), torch.arange(4), boxes, (24, 32), upsample=merged
    )  # photos are brought to one frame
    (panel,) = figures.show_merge(images, smaller, [1], RULE, world.classes).axes
    assert panel.images[0].get_array().shape == (24, 32, 3)
    pairs = {"before": (torch.randn(4, 5), torch.randn(4, 5)), "after": (torch.randn(4, 5), torch.randn(4, 5))}
    names = figures.plot_embeddings(pairs, torch.tensor([0, 0, 1, 3]), world.classes).axes[1].get_legend().get_texts()
    assert [n.get_text() for n in names] == ["backgrounds", *(world.classes[k] for k in (0, 1, 3))]
    measured = {k: {"top1_loc_error": Interval(v, v - 0.1, v + 0.1)} for k, v in (("base", 0.5), ("csoa", 0.25))}
    (ax,) = figures.plot_errors(measured, {"base": "one", "csoa": "both"}, {"top1_loc_error": "Top-1"}).axes
    assert [text.get_text() for text in ax.texts] == ["50.0", "25.0"]
