"""What a dry run says is trained, beside what the notebooks' own statements train."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from layout_trees import FOR_RECIPES
from torch import nn
from train_stand_in import in_place_of_train
from training_slice import leading_to_trainings

from wsolnb._utils.cache import fingerprint
from wsolnb.runs.paper import Paper, paper_keys
from wsolnb.runs.run import resolve
from wsolnb.runs.trainings import Training, budget
from wsolnb.train import AdamPlan, Training as Record

Kind = tuple[int, int, int, bool]


def weights(network: nn.Module) -> tuple[int, int]:
    """Those that are trained, and all."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in network.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


class Recorder:
    """Stands for `train`: notes what it is asked to train, unless the cache would have it, and changes the weights."""

    def __init__(self) -> None:
        self.trainings: Counter[Kind] = Counter()
        self.steps: Counter[Kind] = Counter()
        self.seen: set[str] = set()

    def __call__(
        self, model: nn.Module, dataset: Any, objective: Any, plan: Any, *, batches: Any = None, **loop: object
    ) -> Record:
        key = fingerprint(model, dataset, objective, type(plan), plan, repr(batches))
        if key not in self.seen:
            self.seen.add(key)
            batch = batches.batch_size if batches else plan.batch_size
            kind = (*weights(model), batch, isinstance(plan, AdamPlan))
            self.trainings[kind] += 1
            self.steps[kind] += plan.epochs * (len(batches) if batches else -(-len(dataset) // batch))
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data.add_(1e-3)  # the same for the same start
        return Record([], None)


def listed(trainings: list[Training]) -> tuple[Counter[Kind], Counter[Kind]]:
    """Trainings and steps of each kind that a dry run lists."""
    number: Counter[Kind] = Counter()
    steps: Counter[Kind] = Counter()
    for training in trainings:
        with torch.device("meta"):
            network = training.network()
        kind = (*weights(network), training.batch, training.adam)
        number[kind] += training.times
        steps[kind] += training.steps or 0
    return number, steps


def recorded(key: str, values: Mapping[str, Any]) -> Recorder:
    program, _ = leading_to_trainings(Paper(key).notebook)
    with in_place_of_train(Recorder()) as recorder:
        exec(program, {**values, "device": "cpu", "workers": 0, "out": ""})
    return recorder


@pytest.mark.parametrize("key", paper_keys())
def test_a_dry_run_lists_what_the_notebook_trains(key: str) -> None:
    values = resolve(key, recipe="smoke").parameters
    found = recorded(key, values)
    number, steps = listed(budget(key, recipe="smoke").trainings)
    assert steps == found.steps
    assert number == found.trainings


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: tree(tmp_path_factory.mktemp(name)) for name, tree in FOR_RECIPES.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("key", "name"), [(key, name) for key in paper_keys() for name in Paper(key).recipes()])
def test_a_dry_run_lists_what_a_recipe_trains_on_photos_at_hand(key: str, name: str, roots: dict[str, Path]) -> None:
    values = resolve(key, recipe=name).parameters
    given = dict.fromkeys(("weights", "evaluator_weights", "embed_weights"), "")  # which would be downloaded
    if values.get("dataset", "critters") == "critters":
        classes = values.get("families", 4) * values.get("species", 3)
        given |= dict.fromkeys(("held_images", "test_images", "tune_images"), 2 * classes)
        given |= {"train_images": 10 * classes}  # so many that scenes are balanced
        given |= dict.fromkeys(("pretrain_images", "taught_images"), 48)
    else:
        given |= {"data_root": str(roots[name.partition("-")[0]]), "min_images": 1, "held_share": 0.4}
    if "batch_classes" in values:
        given |= {"batch_size": 4, "batch_classes": 2}  # a class has few images
    given |= {"cycles": 2}  # the last, which is done whether or not it helps
    given = {name: value for name, value in given.items() if name in values}
    found = recorded(key, values | given)
    plan = budget(key, given, recipe=name)
    number, steps = listed(plan.trainings)
    if plan.data.drawn and key == "bency2016":  # where copies of rare classes' scenes come on top
        assert all(training.images.at_least for training in plan.trainings[1:])
        assert steps <= found.steps
    else:
        assert steps == found.steps
    assert number == found.trainings
