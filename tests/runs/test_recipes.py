"""Every recipe of every paper: names and values that fit, networks and weights that exist, a schedule that is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import yaml
from torchvision.models import get_model_weights

from wsolnb.data.download.sources import read_sources
from wsolnb.runs.paper import Paper, paper_keys
from wsolnb.runs.run import resolve
from wsolnb.runs.trainings import budget
from wsolnb.train import Plan

RECIPES = [(key, name) for key in paper_keys() for name in Paper(key).recipes()]
TIMM = {"resnet50_se": "seresnet50", "mobilenet_v1": "mobilenetv1_100"}
DATASETS = {"critters", "voc", "coco", "protocol", *(key for key, source in read_sources().items() if source.splits)}


@pytest.mark.parametrize(("key", "name"), RECIPES)
def test_a_recipe_fits_its_notebook(key: str, name: str) -> None:
    run = resolve(key, recipe=name)
    assert run.has_out
    assert set(yaml.safe_load(Paper(key).recipes()[name].read_text())) == set(run.given)
    assert resolve(key, run.parameters).parameters == run.parameters  # what is written down beside a run runs again
    values = run.parameters
    assert values.get("dataset", "critters") in DATASETS
    assert values["device"] == "auto"
    assert values["seed"] in (0, 1)
    assert not values["retrain"]
    assert not values.get("data_root")  # a folder of one machine


@pytest.mark.parametrize(("key", "name"), RECIPES)
def test_the_networks_and_weights_of_a_recipe_exist(key: str, name: str) -> None:
    plan = budget(key, recipe=name)
    assert plan.trainings
    for training in plan.trainings:
        assert min(training.epochs, training.batch, training.side, training.times) >= 1
    values = plan.parameters
    for network, weights in (
        ("backbone", "weights"),
        ("evaluator_backbone", "evaluator_weights"),
        ("embed", "embed_weights"),
    ):
        if values.get(network) in TIMM:
            assert f"{TIMM[values[network]]}.{values[weights]}" in timm.list_pretrained(TIMM[values[network]])
        elif values.get(network) and values.get(weights, ""):
            assert values[weights] in get_model_weights(values[network].removesuffix("_gap")).__members__


@pytest.mark.parametrize(("key", "name"), RECIPES)
def test_the_schedule_of_a_recipe_is_one(key: str, name: str) -> None:
    values = resolve(key, recipe=name).parameters
    for prefix in ("", "evaluator_", "coarse_", "refine_"):
        if f"{prefix}epochs" in values:
            own = values.get("settings", {}).get("lr", 0.1)  # where every method has its rate among its settings
            rate = values.get(f"{prefix}lr", values.get("lr_cosine", own))
            batch, cycle = values.get("batch_size", 32), values.get("cycle", 0)
            Plan(values[f"{prefix}epochs"], batch, rate, cycle, head_rate=values.get("head_rate", 1.0))


def test_paper_scale_recipes_know_their_numbers() -> None:
    """Steps at the papers' scale follow from the official splits: 5,994 birds in batches of 40 are 150 steps."""
    birds = budget("bae2020", recipe="cub-vgg16")
    assert {training.images.classes for training in birds.trainings} == {200}
    assert {training.steps for training in birds.trainings} == {2 * 200 * 150, 4 * 200 * 150}
    known = [(key, name) for key, name in RECIPES if name.partition("-")[0] in read_sources()]
    assert len(known) >= 6
    for key, name in known:
        assert all(training.steps for training in budget(key, recipe=name).trainings)


def test_no_recipe_is_taken_for_another_file(repo: Path) -> None:
    for key in paper_keys():
        assert {"paper", "claims"}.isdisjoint(Paper(key).recipes())
        assert (repo / "papers" / key / "trainings.py").exists()
