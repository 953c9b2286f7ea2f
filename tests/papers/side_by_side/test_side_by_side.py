"""The comparison: every method's network trains, its reader reads, and judges ask all of them the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wsolnb.data.critters import World
from wsolnb.data.tasks import single_object
from wsolnb.data.tasks.single_object import SingleObject
from wsolnb.localization.maps import SceneMaps, as_probabilities
from wsolnb.localization.read import Reader, read
from wsolnb.models.cam import class_activation_maps, classifier
from wsolnb.models.cost import tensor_memory
from wsolnb.papers.bency2016.search import BeamSearch
from wsolnb.papers.method import Fitted, Start, Trained, held_out_loss, train_until_held_loss_rises
from wsolnb.papers.side_by_side.evaluate import (
    SIZES,
    cost,
    evidence,
    judge_scenes,
    judge_single,
    own_class,
    training_cost,
)
from wsolnb.papers.side_by_side.methods import METHODS, Settings, build_methods, chosen_methods, classes_of, readers
from wsolnb.runs.paper import paper_keys
from wsolnb.train import AdamPlan, Plan

WORLD = World(families=2, species=2, size=48)


@pytest.fixture(scope="module")
def task() -> SingleObject:
    return single_object.from_critters(WORLD, train_images=24, held_images=8, test_images=12)


@pytest.fixture(scope="module")
def fitted(task: SingleObject, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fitted]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSOLNB_CACHE", str(tmp_path_factory.mktemp("cache")))
        start = start_of(task, taxonomy=WORLD.taxonomy)
        networks: dict[str, Trained] = {}
        return {name: method.fit(start, networks, precision="32-true") for name, method in METHODS.items()}


def start_of(task: SingleObject, **options: Any) -> Start:
    return Start(classifier("tiny", 4, seed=0).backbone, task.train, task.classes, Plan(1, 8, clip=1.0), **options)


def read_by(name: str, fitted: dict[str, Fitted], search: BeamSearch, wanted: Any = "present") -> Reader:
    return readers({name: fitted[name]}, search, wanted)[name]


def test_every_network_learns_once_from_the_same_start(fitted: dict[str, Fitted]) -> None:
    networks = fitted["cam"].networks
    assert set(networks) == {method.network for method in METHODS.values()}
    assert len(networks) == 13
    for name, each in networks.items():
        assert len(each.training.history) == 1, name
        assert not each.network.training, name


def test_every_method_names_its_paper() -> None:
    assert {method.paper for method in METHODS.values()} == set(paper_keys())


def test_what_a_network_needs_is_trained_too(task: SingleObject) -> None:
    assert [method.network for method in METHODS["stage2"].needs] == ["gap", "stage1"]
    assert {METHODS[name].needs for name in ("cam", "csoa", "beam", "dcm-onehot")} == {()}
    with pytest.raises(ValueError, match="tree"):
        METHODS["dcm-semantic"].fit(start_of(task))


def test_a_network_that_was_trained_with_other_settings_is_refused(
    task: SingleObject, fitted: dict[str, Fitted]
) -> None:
    networks = dict(fitted["has"].networks)
    other = replace(METHODS["has"], patch=16)
    with pytest.raises(ValueError, match=r"network 'has' was trained with .*'patch': 8.*'has' wants .*'patch': 16"):
        other.fit(start_of(task), networks)
    assert METHODS["nwc"].fit(start_of(task), networks).networks["gap"] is networks["gap"]


@pytest.mark.parametrize("name", METHODS)
def test_readers_give_maps_and_scores_of_all_classes(name: str, fitted: dict[str, Fitted]) -> None:
    images, labels = torch.rand(2, 3, 48, 48), [torch.tensor([0]), torch.tensor([1])]
    with torch.inference_mode():
        maps, scores = read_by(name, fitted, BeamSearch(1, 2))(images, labels)
    assert scores.shape == (2, 4)
    assert maps.shape[:2] == (2, 4 if METHODS[name].class_specific else 1)
    assert maps.isfinite().all()
    assert scores.isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_localizes_in_the_form_of_wsolnb_localize(name: str, fitted: dict[str, Fitted]) -> None:
    method = replace(METHODS[name], search=BeamSearch(1, 2)) if name == "beam" else METHODS[name]
    found = replace(fitted[name], method=method).localize(torch.rand(2, 3, 48, 64), classes=[2, 0])
    assert [each["labels"].tolist() for each in found] == [[2, 0]] * 2
    assert {key: tuple(value.shape[:1]) for key, value in found[1].items()} == dict.fromkeys(
        ("boxes", "scores", "labels", "maps"), (2,)
    )


@torch.inference_mode()
def test_clamping_reads_positive_weights_of_the_same_network(fitted: dict[str, Fitted]) -> None:
    images = torch.rand(2, 3, 48, 48)
    net = fitted["nwc"].networks["gap"].network
    wanted = class_activation_maps(net.features(images), net.head.weight.clamp(min=0))
    assert torch.allclose(fitted["nwc"].reader(images, None)[0], wanted)
    assert torch.equal(fitted["nwc"].reader(images, None)[1], fitted["cam"].reader(images, None)[1])


@torch.inference_mode()
def test_beam_search_has_the_class_scores_of_the_whole_image(fitted: dict[str, Fitted]) -> None:
    images = torch.rand(2, 3, 48, 48)
    trained = fitted["beam"].networks["grid"]
    for wanted in ("all", 2):
        scores = read_by("beam", fitted, BeamSearch(1, 2), wanted)(images, None)[1]
        assert torch.allclose(scores.float(), trained.objective.scores(trained.network(images)), atol=1e-3)


@pytest.mark.parametrize("side", [32, 48, 64])
def test_the_beam_is_searched_at_the_size_that_its_network_learns(side: int) -> None:
    world = replace(WORLD, size=side)
    data = single_object.from_critters(world, train_images=8, held_images=1, test_images=1)
    start = start_of(data)
    assert METHODS["beam"].untrained(start, {}).network.side == side == data.train[0][0].shape[-1]
    photos = build_methods(Settings(grid=4, frozen=("backbone",)))["beam"].untrained(start, {}).network
    assert photos.side == side
    assert {name.split(".")[0] for name, p in photos.named_parameters() if p.requires_grad} == {"dense", "head"}


def test_ornet_learns_with_adam_without_weight_decay() -> None:
    common = Plan(3, 8, lr=0.1, weight_decay=0.5, clip=1.0, seed=4)
    for name, lr in (("stage1", 0.02), ("stage2", 0.003)):
        plan = build_methods(Settings(lr_coarse=0.02, lr_refine=0.003))[name].plan(common)
        assert plan == AdamPlan(3, 8, lr=lr, weight_decay=0.0, clip=1.0, seed=4)
    stage1 = build_methods(Settings(lr_coarse=0.02))["stage2"].needs[1]
    assert stage1.training_settings() == build_methods(Settings(lr_coarse=0.02))["stage1"].training_settings()
    assert build_methods(Settings(lr=0.2))["cam"].plan(common) == replace(common, lr=0.2)


def test_class_scores_are_of_the_first_method_with_the_network() -> None:
    own = {name for name in METHODS if classes_of(name) == name}
    shared = {"nwc", "pas", "tap+nwc+pas", "stage1", "stage2", "dcm+pas", "centre", "whole"}
    assert own == set(METHODS) - shared
    assert {classes_of(name) for name in ("pas", "stage1", "centre")} == {"cam"}
    assert classes_of("tap+nwc+pas") == "tap"


def test_methods_are_chosen_in_the_order_of_the_table() -> None:
    assert chosen_methods(["all"]) == list(METHODS)
    assert chosen_methods(["centre", "tap"]) == ["tap", "centre"]
    with pytest.raises(ValueError, match=r"no method 'gradcam' .* cam, nwc"):
        chosen_methods(["cam", "gradcam"])


def drawn_truth(sizes: tuple[int, int], boxes: list[tuple[float, ...]], labels: list[int]) -> dict[str, Any]:
    masks = torch.zeros(len(boxes), *sizes, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[int(y0) : int(y1), int(x0) : int(x1)] = True
    return {"boxes": torch.tensor(boxes), "labels": torch.tensor(labels), "masks": masks}


def perfect(targets: list[dict[str, Any]], side: int, classes: int) -> SceneMaps:
    """Maps that are one in the objects of their class, and scores that say which classes are there."""
    maps = torch.zeros(len(targets), classes, side, side)
    scores = torch.zeros(len(targets), classes)
    for row, target in enumerate(targets):
        for mask, label in zip(target["masks"], target["labels"].tolist(), strict=True):
            maps[row, label][mask] = 1
            scores[row, label] = 0.9
    return SceneMaps(list(maps), scores, torch.full((len(targets), 2), side), targets)


def ones(n: int) -> Tensor:
    return torch.ones(1, n, dtype=torch.float64)


def test_perfect_maps_of_one_object_are_right_in_every_number() -> None:
    boxes = [(4.0 + k, 6.0, 20.0 + 2 * k, 28.0) for k in range(6)]
    found = perfect([drawn_truth((48, 48), [box], [k % 3]) for k, box in enumerate(boxes)], 48, 3)
    for name in ("cam", "pas", "csoa", "dcm-onehot"):
        numbers = evidence(judge_single(METHODS[name], found, found, 48))
        assert {"top1_cls", "gt_known", "top1_loc", "max_box_acc", "max_box_acc_v2", "pxap"} < set(numbers)
        values = {metric: float(statistic(ones(6))) for metric, statistic in numbers.items()}
        assert values == pytest.approx(dict.fromkeys(values, 1.0)), name


def test_parts_of_the_test_images_make_up_the_whole() -> None:
    generator = torch.Generator().manual_seed(3)
    targets = [drawn_truth((48, 48), [(4.0, 6.0, 12.0 + 3 * k, 30.0)], [k % 3]) for k in range(9)]
    maps = list(torch.rand(9, 3, 6, 6, generator=generator))
    found = SceneMaps(maps, torch.rand(9, 3, generator=generator), torch.full((9, 2), 48), targets)
    numbers = evidence(judge_single(METHODS["cam"], found, found, 48))
    whole = float(numbers["gt_known"](ones(9)))
    assert sum(float(numbers[f"gt_known {part}"](ones(9))) for part in SIZES) / 3 == pytest.approx(whole)


def test_own_class_is_cut_out_and_boxes_follow_the_frame() -> None:
    maps = [torch.arange(3.0)[:, None, None].expand(3, 4, 5)]
    truth = {"boxes": torch.tensor([[20.0, 10.0, 40.0, 30.0]]), "labels": torch.tensor([2])}
    found = SceneMaps(maps, torch.rand(1, 3), torch.tensor([[50, 100]]), [truth])
    own = own_class(found, 25, METHODS["cam"])
    assert own.maps.unique().tolist() == [2.0]
    assert own.boxes[0].tolist() == [[5.0, 5.0, 10.0, 15.0]]
    assert own.image_size == (25, 25)
    assert own_class(found, 25, METHODS["stage2"]).upsample is as_probabilities


def test_perfect_maps_of_scenes_are_right_in_every_number() -> None:
    pairs = [[(2.0, 4.0, 18.0, 20.0), (24.0, 22.0, 44.0, 46.0)], [(6.0, 26.0, 22.0, 46.0), (28.0, 2.0, 46.0, 20.0)]]
    found = perfect([drawn_truth((48, 48), boxes, [k, 2]) for k, boxes in enumerate(pairs)], 48, 3)
    scened = judge_scenes(METHODS["dcm-onehot"], found, found)
    values = {metric: float(statistic(ones(2))) for metric, statistic in scened.evidence().items()}
    assert values == pytest.approx(dict.fromkeys(("ap0", "ap25", "ap50", "point_ap", "point_ap_heat"), 1.0))
    assert [sorted(best["labels"].tolist()) for best in scened.best(2)] == [[0, 2], [1, 2]]
    with pytest.raises(ValueError, match="stage1 has one map"):
        judge_scenes(METHODS["stage1"], found, found)


def test_points_are_ranked_by_class_score_and_by_heat() -> None:
    targets = [drawn_truth((48, 48), [(4.0, 4.0, 20.0, 20.0)], [k]) for k in (0, 1)]
    found = perfect(targets, 48, 2)
    found.maps[1][0] = 2 * found.maps[0][0]  # strongest heat of class 0 in the image that does not show it
    numbers = judge_scenes(METHODS["cam"], found, found).evidence()
    assert float(numbers["point_ap"](ones(2))) == 1
    assert float(numbers["point_ap_heat"](ones(2))) == pytest.approx((0.5 + 1) / 2)


def test_other_scenes_are_detected_at_the_same_threshold() -> None:
    few = perfect([drawn_truth((48, 48), [(4.0, 4.0, 20.0, 20.0)], [0])], 48, 2)
    two = [(2.0, 4.0, 18.0, 20.0), (24.0, 22.0, 44.0, 46.0)]
    many = perfect([drawn_truth((48, 48), two, [0, 1])], 48, 2)
    first = judge_scenes(METHODS["cam"], few, few)
    again = first.on(many)
    assert again.rule == first.rule
    assert again.boxes[0]["boxes"].tolist() == [list(box) for box in two]
    assert float(again.evidence()["ap50"](ones(1))) == 1


def test_costs_are_counted(fitted: dict[str, Fitted]) -> None:
    chosen = {name: fitted[name] for name in ("cam", "stage2", "beam")}
    plain = fitted["cam"].networks["gap"].network
    read_by_name = readers(chosen, BeamSearch(2, 3))
    image, labels = torch.rand(1, 3, 48, 48), [torch.tensor([0])]
    found = {name: cost(each, plain, image, labels) for name, each in read_by_name.items()}
    assert found["cam"]["passes"] == pytest.approx(1, abs=0.02)
    assert found["cam"]["passes"] < found["stage2"]["passes"] < found["beam"]["passes"]
    assert found == {name: cost(each, plain, image, labels) for name, each in read_by_name.items()}
    assert all(each["memory"] > 0 for each in found.values())
    assert "milliseconds" in cost(read_by_name["cam"], plain, image, labels, repeats=2)


def test_training_cost_counts_every_training_that_a_method_needs(task: SingleObject, fitted: dict[str, Fitted]) -> None:
    plain = fitted["cam"].networks["gap"].network
    found = {
        name: training_cost(fitted[name], plain, task.train) for name in ("cam", "nwc", "coaug", "stage1", "stage2")
    }
    assert [found[name]["trainings"] for name in found] == [1, 1, 1, 2, 3]
    passes = {name: each["train_passes"] for name, each in found.items()}
    assert passes["cam"] == passes["nwc"] == pytest.approx(1, abs=0.02)  # one epoch
    assert passes["coaug"] > 1.1  # its loss embeds images
    assert 2 < passes["stage1"] < passes["stage2"] - 1
    assert all(each["train_seconds"] > 0 for each in found.values())


def test_training_ends_when_the_held_out_loss_rises(
    task: SingleObject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path))
    losses, weights = iter([0.9, 0.5, 0.6, 0.1]), []

    def loss(network: torch.nn.Module, *_: Any) -> float:
        weights.append(network.head.weight.detach().clone())
        return next(losses)

    monkeypatch.setattr("wsolnb.papers.method.held_out_loss", loss)
    untrained = METHODS["cam"].untrained(start_of(task), {})
    run = {"precision": "32-true", "device": "cpu"}
    training, held = train_until_held_loss_rises(
        untrained.network, task.train, untrained.objective, Plan(1, 8, lr=0.05), task.held, cycles=4, **run
    )
    assert held == [0.9, 0.5, 0.6]
    assert [record["epoch"] for record in training.history] == list(range(1, 8))  # 1 + 2 + 4, the last ones in vain
    assert torch.equal(untrained.network.head.weight, weights[1])
    assert not torch.equal(weights[1], weights[2])
    with pytest.raises(ValueError, match="cycles=0"):
        train_until_held_loss_rises(*untrained[:1], task.train, untrained.objective, Plan(1, 8), task.held, 0)


def test_the_first_cycle_is_the_training_of_equal_steps(
    task: SingleObject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path))
    start = start_of(task, taxonomy=WORLD.taxonomy)
    patient = start._replace(held=task.held, cycles=1)
    equal, longer = ({}, {})
    for name in ("cam", "csoa", "stage2", "beam"):
        METHODS[name].fit(start, equal, precision="32-true")
        METHODS[name].fit(patient, longer, precision="32-true")
    for name, trained in equal.items():
        assert len(longer[name].held_losses) == 1
        assert 0 < longer[name].held_losses[0] < float("inf")
        for key, value in trained.network.state_dict().items():
            assert torch.equal(longer[name].network.state_dict()[key], value), (name, key)
    with pytest.raises(ValueError, match=r"'cycles': 1.*'cycles': 2"):
        METHODS["nwc"].fit(start._replace(held=task.held, cycles=2), equal)


def test_the_held_out_loss_is_the_objective_on_resized_images(task: SingleObject, fitted: dict[str, Fitted]) -> None:
    network, objective = fitted["cam"].networks["gap"][:2]
    images = torch.stack([image for image, _ in task.held]).float() / 255
    labels = torch.stack([target["labels"][0] for _, target in task.held])
    with torch.no_grad():
        wanted = float(objective(network(images), labels))
    assert held_out_loss(network, objective, task.held, 48) == pytest.approx(wanted, rel=1e-5)
    assert held_out_loss(network, objective, task.held, 32) != pytest.approx(wanted, rel=1e-3)


def test_memory_counts_what_lives_at_once_and_no_views() -> None:
    x = torch.rand(10, 20)
    assert tensor_memory(lambda x: x.view(200)[:100], x) == 0
    assert tensor_memory(lambda x: (x + 1).view(20, 10), x) == 800
    assert tensor_memory(lambda x: [x + k for k in range(3)], x) == 2400
    assert tensor_memory(lambda x: sum(float((x + k).sum()) for k in range(3)), x) == 804


def test_networks_of_a_cache_are_read_back(task: SingleObject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path))
    start = start_of(task)
    first, again = (METHODS["cam"].fit(start).networks["gap"].training for _ in range(2))
    assert not first.cached
    assert again.cached
    other = build_methods(replace(Settings(), lr=0.05))["cam"].fit(start).networks["gap"].training
    assert not other.cached


@pytest.mark.parametrize("name", ["csoa", "stage2"])
def test_maps_of_a_real_data_set_are_judged(task: SingleObject, fitted: dict[str, Fitted], name: str) -> None:
    found = read(task.test, {name: fitted[name].reader}, side=48)[name]
    numbers = evidence(judge_single(METHODS[name], found, found, 48))
    values = [float(statistic(ones(12))) for statistic in numbers.values()]
    assert all(0 <= value <= 1 for value in values)
