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
from wsolnb.localization.maps import SceneMaps, SoftMaps
from wsolnb.localization.read import read_maps
from wsolnb.models.cam import class_activation_maps, classifier
from wsolnb.models.cost import tensor_memory
from wsolnb.papers.bency2016.search import BeamSearch
from wsolnb.papers.side_by_side.evaluate import SIZES, cost, judge_scenes, judge_single, own_class, single_evidence
from wsolnb.papers.side_by_side.methods import METHODS, chosen_methods, readers
from wsolnb.papers.side_by_side.networks import NETWORKS, Settings, Trained, train_networks
from wsolnb.train import Plan

WORLD = World(families=2, species=2, size=48)


@pytest.fixture(scope="module")
def task() -> SingleObject:
    return single_object.from_critters(WORLD, train_images=24, held_images=8, test_images=12)


@pytest.fixture(scope="module")
def nets(task: SingleObject, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSOLNB_CACHE", str(tmp_path_factory.mktemp("cache")))
        start = classifier("tiny", 4, seed=0).backbone
        return train_networks(NETWORKS, start, task, Plan(1, 8, clip=1.0), taxonomy=WORLD.taxonomy, precision="32-true")


def test_every_network_learns_once_from_the_same_start(nets: dict[str, Trained]) -> None:
    assert set(nets) == set(NETWORKS)
    for name, each in nets.items():
        assert len(each.training.history) == 1, name
        assert not each.net.training, name


def test_what_a_network_needs_is_trained_too(task: SingleObject, nets: dict[str, Trained]) -> None:
    assert METHODS["stage2"].budgets == 3
    assert {METHODS[name].budgets for name in ("cam", "csoa", "beam", "dcm-onehot")} == {1}
    with pytest.raises(ValueError, match="tree"):
        train_networks(["semantic"], classifier("tiny", 4).backbone, task, Plan(1))


@pytest.mark.parametrize("name", METHODS)
def test_readers_give_maps_and_scores_of_all_classes(name: str, nets: dict[str, Trained]) -> None:
    images, present = torch.rand(2, 3, 48, 48), torch.eye(4, dtype=torch.bool)[:2]
    with torch.inference_mode():
        maps, scores = readers([name], nets, BeamSearch(1, 2))[name](images, present)
    assert maps.shape[:2] == scores.shape == (2, 4)
    assert maps.isfinite().all()
    assert scores.isfinite().all()
    if not METHODS[name].tells_classes_apart:
        assert torch.equal(maps[:, 0], maps[:, 3])


@torch.inference_mode()
def test_clamping_reads_positive_weights_of_the_same_network(nets: dict[str, Trained]) -> None:
    images, present = torch.rand(2, 3, 48, 48), torch.ones(2, 4, dtype=torch.bool)
    read = readers(["cam", "nwc"], nets, BeamSearch(1, 2))
    net = nets["gap"].net
    wanted = class_activation_maps(net.features(images), net.head.weight.clamp(min=0))
    assert torch.allclose(read["nwc"](images, present)[0], wanted)
    assert torch.equal(read["nwc"](images, present)[1], read["cam"](images, present)[1])


@torch.inference_mode()
def test_beam_search_of_all_classes_ranks_by_heat(nets: dict[str, Trained]) -> None:
    images, present = torch.rand(2, 3, 48, 48), torch.ones(2, 4, dtype=torch.bool)
    maps, scores = readers(["beam"], nets, BeamSearch(1, 2), "all")["beam"](images, present)
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
        evidence = single_evidence(judge_single(name, found, found, 48), ["a", "b", "c"])
        assert {"top1_cls", "gt_known", "top1_loc", "max_box_acc", "max_box_acc_v2", "pxap"} < set(evidence)
        values = {metric: float(statistic(ones(6))) for metric, statistic in evidence.items()}
        assert values == pytest.approx(dict.fromkeys(values, 1.0)), name


def test_parts_of_the_test_images_make_up_the_whole() -> None:
    generator = torch.Generator().manual_seed(3)
    targets = [drawn_truth((48, 48), [(4.0, 6.0, 12.0 + 3 * k, 30.0)], [k % 3]) for k in range(9)]
    maps = list(torch.rand(9, 3, 6, 6, generator=generator))
    found = SceneMaps(maps, torch.rand(9, 3, generator=generator), torch.full((9, 2), 48), targets)
    evidence = single_evidence(judge_single("cam", found, found, 48), ["a", "b", "c"])
    whole = float(evidence["gt_known"](ones(9)))
    for parts in (SIZES, ("a", "b", "c")):
        assert sum(float(evidence[f"gt_known {part}"](ones(9))) for part in parts) / 3 == pytest.approx(whole)


def test_own_class_is_cut_out_and_boxes_follow_the_frame() -> None:
    maps = [torch.arange(3.0)[:, None, None].expand(3, 4, 5)]
    truth = {"boxes": torch.tensor([[20.0, 10.0, 40.0, 30.0]]), "labels": torch.tensor([2])}
    found = SceneMaps(maps, torch.rand(1, 3), torch.tensor([[50, 100]]), [truth])
    own = own_class(found, 25, METHODS["cam"])
    assert own.maps.unique().tolist() == [2.0]
    assert own.boxes[0].tolist() == [[5.0, 5.0, 10.0, 15.0]]
    assert own.frame == (25, 25)
    assert isinstance(own_class(found, 25, METHODS["stage2"]), SoftMaps)


def test_perfect_maps_of_scenes_are_right_in_every_number() -> None:
    pairs = [[(2.0, 4.0, 18.0, 20.0), (24.0, 22.0, 44.0, 46.0)], [(6.0, 26.0, 22.0, 46.0), (28.0, 2.0, 46.0, 20.0)]]
    found = perfect([drawn_truth((48, 48), boxes, [k, 2]) for k, boxes in enumerate(pairs)], 48, 3)
    scened = judge_scenes("dcm-onehot", found, found)
    values = {metric: float(statistic(ones(2))) for metric, statistic in scened.evidence().items()}
    assert values == pytest.approx({"ap0": 1.0, "ap25": 1.0, "ap50": 1.0, "point_ap": 1.0})
    assert [sorted(best["labels"].tolist()) for best in scened.best(2)] == [[0, 2], [1, 2]]
    with pytest.raises(ValueError, match="stage1 has one map"):
        judge_scenes("stage1", found, found)


def test_costs_are_counted(nets: dict[str, Trained]) -> None:
    read = readers(["cam", "stage2", "beam"], nets, BeamSearch(2, 3))
    image, asked = torch.rand(1, 3, 48, 48), torch.eye(4, dtype=torch.bool)[:1]
    found = {name: cost(each, nets["gap"].net, image, asked) for name, each in read.items()}
    assert found["cam"]["passes"] == pytest.approx(1, abs=0.02)
    assert found["cam"]["passes"] < found["stage2"]["passes"] < found["beam"]["passes"]
    assert found == {name: cost(each, nets["gap"].net, image, asked) for name, each in read.items()}
    assert all(each["memory"] > 0 for each in found.values())
    assert "milliseconds" in cost(read["cam"], nets["gap"].net, image, asked, repeats=2)


def test_memory_counts_what_lives_at_once_and_no_views() -> None:
    x = torch.rand(10, 20)
    assert tensor_memory(lambda x: x.view(200)[:100], x) == 0
    assert tensor_memory(lambda x: (x + 1).view(20, 10), x) == 800
    assert tensor_memory(lambda x: [x + k for k in range(3)], x) == 2400
    assert tensor_memory(lambda x: sum(float((x + k).sum()) for k in range(3)), x) == 804


def test_networks_of_a_cache_are_read_back(task: SingleObject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path))
    start = classifier("tiny", 4, seed=0).backbone
    asked: dict[str, Any] = {"wanted": ["gap"], "start": start, "task": task, "plan": Plan(1, 8, clip=1.0)}
    first, again = train_networks(**asked), train_networks(**asked)
    assert not first["gap"].training.cached
    assert again["gap"].training.cached
    other = train_networks(**asked, settings=replace(Settings(), lr=0.05))
    assert not other["gap"].training.cached


def test_maps_of_a_real_data_set_are_judged(task: SingleObject, nets: dict[str, Trained]) -> None:
    found = read_maps(task.test, readers(["csoa"], nets, BeamSearch(1, 2)), 4, side=48)["csoa"]
    evidence = single_evidence(judge_single("csoa", found, found, 48), task.classes)
    values = [float(statistic(ones(12))) for statistic in evidence.values()]
    assert all(0 <= value <= 1 for value in values)
