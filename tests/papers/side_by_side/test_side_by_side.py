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
from wsolnb.papers.method import Fitted, Start, Trained
from wsolnb.papers.side_by_side.evaluate import SIZES, cost, evidence, judge_scenes, judge_single, own_class
from wsolnb.papers.side_by_side.methods import METHODS, Settings, build_methods, chosen_methods, readers
from wsolnb.runs.paper import paper_keys
from wsolnb.train import Plan

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
def test_beam_search_of_all_classes_ranks_by_heat(fitted: dict[str, Fitted]) -> None:
    maps, scores = read_by("beam", fitted, BeamSearch(1, 2), "all")(torch.rand(2, 3, 48, 48), None)
    assert torch.equal(scores, maps.amax(dim=(2, 3)))


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
        numbers = evidence(judge_single(name, found, found, 48), ["a", "b", "c"])
        assert {"top1_cls", "gt_known", "top1_loc", "max_box_acc", "max_box_acc_v2", "pxap"} < set(numbers)
        values = {metric: float(statistic(ones(6))) for metric, statistic in numbers.items()}
        assert values == pytest.approx(dict.fromkeys(values, 1.0)), name


def test_parts_of_the_test_images_make_up_the_whole() -> None:
    generator = torch.Generator().manual_seed(3)
    targets = [drawn_truth((48, 48), [(4.0, 6.0, 12.0 + 3 * k, 30.0)], [k % 3]) for k in range(9)]
    maps = list(torch.rand(9, 3, 6, 6, generator=generator))
    found = SceneMaps(maps, torch.rand(9, 3, generator=generator), torch.full((9, 2), 48), targets)
    numbers = evidence(judge_single("cam", found, found, 48), ["a", "b", "c"])
    whole = float(numbers["gt_known"](ones(9)))
    for parts in (SIZES, ("a", "b", "c")):
        assert sum(float(numbers[f"gt_known {part}"](ones(9))) for part in parts) / 3 == pytest.approx(whole)


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
    scened = judge_scenes("dcm-onehot", found, found)
    values = {metric: float(statistic(ones(2))) for metric, statistic in scened.evidence().items()}
    assert values == pytest.approx({"ap0": 1.0, "ap25": 1.0, "ap50": 1.0, "point_ap": 1.0})
    assert [sorted(best["labels"].tolist()) for best in scened.best(2)] == [[0, 2], [1, 2]]
    with pytest.raises(ValueError, match="stage1 has one map"):
        judge_scenes("stage1", found, found)


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
    numbers = evidence(judge_single(name, found, found, 48), task.classes)
    values = [float(statistic(ones(12))) for statistic in numbers.values()]
    assert all(0 <= value <= 1 for value in values)
