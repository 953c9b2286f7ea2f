"""Every recipe on a miniature tree of its data set: the notebook's own statements up to its trainings, two steps each.

The backbone and the size of the images are the recipe's; batches are small, heads and generators narrow, weights that a
recipe downloads are random ones of the same names and shapes, and of trainings of one kind only the first takes its
steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from layout_trees import FOR_RECIPES
from torch import nn
from torch.utils.data import Dataset, Sampler, Subset
from torchvision.models import WeightsEnum
from train_stand_in import in_place_of_train
from training_slice import leading_to_trainings

import wsolnb.train
from wsolnb.runs.paper import Paper, paper_keys
from wsolnb.runs.run import resolve
from wsolnb.train import Training
from wsolnb.train.loop import Loop

RECIPES = [(key, name) for key in paper_keys() for name in Paper(key).recipes()]
FEW = {"batch_size": 1, "refine_batch": 1, "train_images": 48, "width": 64}
FEW |= dict.fromkeys(("pretrain_images", "taught_images", "held_images"), 24)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: tree(tmp_path_factory.mktemp(name)) for name, tree in FOR_RECIPES.items()}


class Two(Sampler[list[int]]):
    """The first two batches of another sampler."""

    def __init__(self, batches: Sampler[list[int]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[list[int]]:
        return islice(iter(self.batches), 2)


class NoCheckpoint:
    """Keeps nothing: a checkpoint of VGG16 takes longer than its two steps."""

    folder = Path("nowhere")

    def load(self) -> None:
        return None

    def save(self, tensors: object, values: object) -> None:
        pass


class TwoSteps:
    """Stands for `train`: the real loop over two batches of the real data, once for every kind of training."""

    def __init__(self) -> None:
        self.kinds: set[tuple[object, ...]] = set()
        self.sides: list[tuple[int, ...]] = []
        self.parts: set[object] = set()  # of a batch, in all trainings

    def __call__(
        self,
        model: nn.Module,
        dataset: Dataset[Any],
        objective: Any,
        plan: Any,
        *,
        batches: Sampler[list[int]] | None = None,
        **loop: object,
    ) -> Training:
        self.parts.add(loop.get("accumulate"))
        sizes = [tuple(weight.shape) for weight in model.parameters() if weight.requires_grad]
        parts = len(list(objective.modules())) if isinstance(objective, nn.Module) else 0
        kind = (type(model), type(objective), parts, *sizes)
        if kind not in self.kinds:
            self.kinds.add(kind)
            self.step(model, dataset, objective, plan, batches)
        return Training([], None)

    def step(self, model: nn.Module, dataset: Dataset[Any], objective: Any, plan: Any, batches: Any) -> None:
        before = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
        assert before
        size, count = plan.batch_size, len(dataset)  # type: ignore[arg-type]
        data = dataset if batches else Subset(dataset, [k % count for k in range(2 * size)])
        loop = Loop(
            wsolnb.train.training._fabric(torch.device("cpu"), "32-true"),
            model,
            data,
            objective,
            replace(plan, epochs=1, cycle=0),
            NoCheckpoint(),  # type: ignore[arg-type]
            batches=Two(batches) if batches else None,
            accumulate=2,  # what is drawn is of a whole batch, of which a part is at hand
        )
        steps: list[int] = []
        loop.inner.register_step_post_hook(lambda *_: steps.append(1))
        look = model.register_forward_pre_hook(lambda _, images: self.sides.append(tuple(images[0].shape[2:])))
        (record,) = loop.run()
        look.remove()
        assert len(steps) == 2
        assert math.isfinite(record["loss"])
        after = dict(model.named_parameters())
        changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
        assert changed == {name.partition(".")[0] for name in before}
        assert all(weight.isfinite().all() for weight in after.values())
        model.eval()


@pytest.fixture
def two_steps() -> Iterator[TwoSteps]:
    with in_place_of_train(TwoSteps()) as stand_in:
        yield stand_in


@pytest.fixture(autouse=True)
def _no_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    def random_weights(entry: WeightsEnum, *_: object, **__: object) -> dict[str, torch.Tensor]:
        known = torchvision.models.list_models(module=torchvision.models)
        name = next(name for name in known if isinstance(entry, torchvision.models.get_model_weights(name)))
        quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        whole = {"aux_logits": True, "transform_input": True} if quick else {}
        return torchvision.models.get_model(name, **quick, **whole).state_dict()

    monkeypatch.setattr(WeightsEnum, "get_state_dict", random_weights)
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name.partition(".")[0], pretrained=False))


@pytest.mark.slow
@pytest.mark.parametrize(("key", "name"), RECIPES)
def test_two_steps_of_a_recipe(key: str, name: str, roots: dict[str, Path], two_steps: TwoSteps) -> None:
    paper, values = Paper(key), resolve(key, recipe=name).parameters
    few = {given: min(number, values[given] or number) for given, number in FEW.items() if given in values}
    if "batch_classes" in values:
        few |= {"batch_size": 4, "batch_classes": 2}  # two images of a class, and two classes
    elif name == "smoke":
        few |= {"batch_size": 8}  # small networks, some of which end in a single cell
    if pairs := 2 * values.get("families", 0) * values.get("species", 0):  # two images of every class
        few |= {given: pairs for given in few.keys() & {"train_images", "held_images"} if few[given] < pairs}
    if "held_share" in values:
        few |= {"held_share": 0.4}  # a tenth of five photos is none
    if "accumulate" in values:
        few |= {"accumulate": 2}
    values |= few | {"device": "cpu", "precision": "32-true", "workers": 0, "out": ""}
    if values.get("dataset", "critters") != "critters":
        values["data_root"] = str(roots[name.partition("-")[0]])
    program, _ = leading_to_trainings(paper.notebook)
    exec(program, values)
    assert two_steps.kinds
    assert two_steps.parts == {few.get("accumulate")}
    asked = values.get("image_size") or values["net"].side
    assert set(two_steps.sides) >= {(asked, asked)}
    largest = max(asked, values.get("frame", 0))  # bency2016's score map, where a window is as large as its input
    assert max(two_steps.sides) == (largest, largest)
