"""Readers of maps, points and blob boxes: by hand, on maps whose answer is known."""

from __future__ import annotations

import pytest
import torch

from wsolnb.data.critters import World
from wsolnb.localization.maps import SceneMaps
from wsolnb.localization.points import judge_classes, judge_points, peaks
from wsolnb.localization.read import read
from wsolnb.losses import MultiLabelCrossEntropy
from wsolnb.models.cam import classifier
from wsolnb.papers.bency2016.boxes import (
    blob_boxes,
    box_evidence,
    first,
    judge_boxes,
    point_evidence,
    tune_thresholds,
    without,
)
from wsolnb.papers.bency2016.maps import BeamReader, peak_reader, positive_cam_reader
from wsolnb.papers.bency2016.network import MaxPooled, grid_classifier
from wsolnb.papers.bency2016.search import BeamSearch

LOSS = MultiLabelCrossEntropy()


def truth(*rows: tuple[int, tuple[float, float, float, float]], image_id: int = 0) -> dict[str, object]:
    return {
        "labels": torch.tensor([label for label, _ in rows], dtype=torch.int64),
        "boxes": torch.tensor([box for _, box in rows]).reshape(-1, 4),
        "image_id": image_id,
    }


@pytest.fixture
def found() -> SceneMaps:
    """Two images of 40 x 80 pixels, two classes, maps of 4 x 8 cells of 10 pixels."""
    maps = torch.zeros(2, 2, 4, 8)
    maps[0, 0, 1:3, 1:3] = 4.0
    maps[0, 0, 1:3, 5:8] = 2.0
    maps[0, 1, 0, 0] = 1.0
    maps[1, 1, 3, 4:] = 3.0
    targets = [
        truth((0, (10, 10, 30, 30)), (0, (50, 10, 80, 30))),
        truth((1, (40, 30, 80, 40)), image_id=1),
    ]
    scores = torch.tensor([[0.9, 0.2], [0.1, 0.6]])
    return SceneMaps(list(maps), scores, torch.tensor([[40, 80]] * 2), targets)


def test_the_middle_of_the_strongest_region() -> None:
    maps = torch.zeros(1, 2, 5, 7)
    maps[0, 0, 1:4, 2:5] = 2.0
    maps[0, 0, 4, 6] = 2.0  # another region, later in raster order, that touches at no corner
    maps[0, 1, 0, 6] = 1.0
    assert peaks(maps)[0].nonzero().tolist() == [[0, 2, 3], [1, 0, 6]]
    assert peaks(torch.zeros(1, 1, 3, 5))[0, 0].nonzero().tolist() == [[1, 2]]


def test_points_and_classes(found: SceneMaps) -> None:
    assert judge_points(found).compute()["AP"].tolist() == [1, 1]
    assert judge_classes(found).compute()["AP"].tolist() == [1, 1]
    # by the maps' maxima 4 > 0 and 3 > 1
    assert judge_points(found, rank="heat").compute()["mAP"] == 1
    found.maps[1][1] = found.maps[1][1].flip(1)
    assert judge_points(found).compute()["AP"].tolist() == [1, 0]
    assert judge_points(found, tolerance=40).compute()["AP"].tolist() == [1, 1]


def test_boxes_of_all_blobs_with_their_mean_heat(found: SceneMaps) -> None:
    boxes = blob_boxes(found, torch.tensor([0.25, 0.5]))
    assert [len(b["boxes"]) for b in boxes] == [3, 1]
    first = boxes[0]
    assert first["labels"].tolist() == [0, 0, 1]
    # bilinear edges: the blob of 4 reaches 3/8 of a cell further where the cut is at a quarter of it
    assert torch.allclose(first["boxes"][0], torch.tensor([8.0, 8, 32, 32]), atol=1.5)
    assert torch.allclose(first["boxes"][1], torch.tensor([50.0, 10, 80, 30]), atol=1.5)
    assert 2.4 < float(first["scores"][0]) <= 4
    assert float(first["scores"][0]) > float(first["scores"][1]) > float(first["scores"][2])
    assert blob_boxes(found, torch.tensor([0.25, 0.5]), rank="class")[1]["scores"].tolist() == pytest.approx([0.6])
    assert judge_boxes(found, boxes).compute()["AP"].tolist() == [1, 1]


def test_mean_heat_by_hand() -> None:
    heat = torch.zeros(1, 1, 2, 4)
    heat[0, 0, :, 1:3] = torch.tensor([[1.0, 1.0], [3.0, 3.0]])
    scenes = SceneMaps(list(heat), torch.ones(1, 1), torch.tensor([[20, 40]]), [truth((0, (0, 0, 40, 20)))])
    box = blob_boxes(scenes, torch.tensor([0.0]))[0]
    assert box["boxes"].tolist() == [[5, 0, 35, 20]]  # bilinear: half a cell on either side is still above zero
    assert float(box["scores"]) == pytest.approx(4 / 3)  # 2 cells of mean 2 in a box 3 cells wide


def test_each_class_gets_its_own_threshold(found: SceneMaps) -> None:
    found.maps[1][1][3, :4] = 1.4  # just below half of 3: only a higher threshold cuts it off
    best = tune_thresholds(found, candidates=(0.2, 0.4, 0.8))
    assert best.tolist() == pytest.approx([0.4, 0.8]) or best.tolist() == pytest.approx([0.2, 0.8])
    assert judge_boxes(found, blob_boxes(found, best)).compute()["AP"][1] == 1


def test_a_single_class_has_a_threshold_too() -> None:
    heat = torch.zeros(1, 4, 8)
    heat[0, 1:3, 2:6], heat[0, 1, 2] = 0.5, 1.0
    alone = SceneMaps([heat], torch.tensor([[0.9]]), torch.tensor([[40, 80]]), [truth((0, (20.0, 10.0, 60.0, 30.0)))])
    assert tune_thresholds(alone, candidates=(0.3, 0.8)).tolist() == pytest.approx([0.3])


def test_a_class_that_was_never_trained_is_not_defined(found: SceneMaps) -> None:
    judged = judge_points(without(found, [1])).compute()
    assert judged["AP"].isnan().tolist() == [False, True]
    assert float(judged["mAP"]) == 1
    assert judge_boxes(without(found, [1]), blob_boxes(found, torch.full((2,), 0.5))).compute()["AP"][1].isnan()
    assert len(found.targets[1]["labels"]) == 1


def test_refused_thresholds(found: SceneMaps) -> None:
    with pytest.raises(ValueError, match=r"expected 2 thresholds in \[0, 1\), got \[0.5\]"):
        blob_boxes(found, torch.tensor([0.5]))
    with pytest.raises(ValueError, match="thresholds"):
        blob_boxes(found, torch.tensor([0.5, 1.0]))


def test_a_constant_map_finds_nothing_with_boxes(found: SceneMaps) -> None:
    empty = SceneMaps([torch.zeros(2, 4, 8)] * 2, found.scores, found.sizes, found.targets)
    assert [len(b["boxes"]) for b in blob_boxes(empty, torch.tensor([0.5, 0.5]))] == [0, 0]


def test_all_readers_read_the_same_scenes() -> None:
    world = World(families=2, species=2, size=32, objects=(1, 2))
    scenes = world.scenes(5, size=(48, 56))
    net = grid_classifier("tiny", 4, grid=4, hidden=(8,), adapt=8).eval()
    gap = classifier("tiny", 4).eval()
    beam = BeamReader(net, LOSS, BeamSearch(2, 3), wanted=2, cells=8)
    present = BeamReader(net, LOSS, BeamSearch(2, 3), wanted="present", cells=8)
    readers = {
        "beam": beam,
        "present": present,
        "cam": positive_cam_reader(gap, LOSS),
        "peak": peak_reader(net, LOSS, [3]),
    }
    found = read(scenes, readers, side=48, batch_size=2)
    assert {name: tuple(way.maps[0].shape) for name, way in found.items()} == {
        "beam": (4, 8, 8),
        "present": (4, 8, 8),
        "cam": (4, 6, 6),
        "peak": (4, 12, 12),
    }
    assert found["beam"].sizes.tolist() == [[48, 56]] * 5
    assert torch.allclose(
        found["beam"].scores, found["peak"].scores, atol=0.02
    )  # the search samples, the other resizes
    for index in range(5):
        searched = torch.stack(list(found["present"].maps))[index].amax(dim=(1, 2)) > 0
        assert searched.nonzero().flatten().tolist() == sorted(set(scenes[index][1]["labels"].tolist()))
    assert beam.spent["images"] == 5
    assert beam.per_image()["windows"] == beam.spent["windows"] / 5 > 5


def test_the_score_map_puts_each_window_at_its_centre() -> None:
    net = grid_classifier("tiny", 3, grid=4, hidden=(8,), adapt=8).eval()
    images = torch.rand(1, 3, 48, 48)  # 6 cells: 3 x 3 windows of 4
    with torch.inference_mode():
        maps, _ = peak_reader(net, LOSS, positions=[3])(images, None)
        grid = net.backbone(images)
        wanted = LOSS.scores(net.classify(grid[:, :, 1:5, 2:6]))[0]  # centre at column 4, row 3
    assert torch.allclose(maps[0, :, 5:7, 7:9], wanted[:, None, None].expand(3, 2, 2), atol=1e-5)
    assert bool((maps[0, :, :3] == 0).all())


def test_of_several_sizes_of_window_the_largest_score_counts() -> None:
    net = grid_classifier("tiny", 3, grid=4, hidden=(8,), adapt=8).eval()
    images = torch.rand(2, 3, 48, 48)
    with torch.inference_mode():
        small, large = (peak_reader(net, LOSS, [p])(images, None)[0] for p in (5, 1))
        both, scores = peak_reader(net, LOSS, [1, 5], pooled=True)(images, None)
    assert torch.allclose(both, torch.maximum(small, torch.nn.functional.interpolate(large, (16, 16))))
    assert torch.equal(scores, both.amax(dim=(2, 3)))
    trained_so = MaxPooled(net, [1, 5]).eval()
    assert torch.allclose(
        torch.stack([small, torch.nn.functional.interpolate(large, (16, 16))]).amax((0, 3, 4)), scores
    )
    with torch.inference_mode():
        assert bool((trained_so(images) >= MaxPooled(net, [5]).eval()(images)).all())


def test_points_of_given_classes_by_hand(found: SceneMaps) -> None:
    every = torch.ones(1, 2, dtype=torch.float64)
    assert float(point_evidence(found)["point_acc"](every)) == 1
    found.maps[0][0] = found.maps[0][0].flip(0, 1)  # beside the first object, still in the second
    found.maps[1][1] = 0  # no map: the middle of the image, which is beside the object
    found.targets[1]["boxes"] = torch.tensor([[50.0, 21.0, 80.0, 40.0]])
    both = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    hits = point_evidence(found)["point_acc"](both).tolist()
    assert hits == [1, 0, 0.5]
    assert len(first(found, 1)) == 1
    empty = SceneMaps(found.maps, found.scores, found.sizes, [found.targets[0], truth(image_id=1)])
    assert point_evidence(empty)["point_acc"](both)[2] == hits[0]  # an image without an object does not count


def test_points_need_the_maps_of_present_classes_only() -> None:
    scenes = World(families=2, species=2, size=32, objects=(1, 2)).scenes(6, size=(48, 56))
    net = grid_classifier("tiny", 4, grid=4, hidden=(8,), adapt=8).eval()
    readers = {name: BeamReader(net, LOSS, BeamSearch(2, 3), wanted=name) for name in ("all", "present")}  # type: ignore[arg-type]
    every, present = (point_evidence(way) for way in read(scenes, readers, side=48).values())
    for name, number in every.items():
        assert number(torch.ones(1, 6)).tolist() == pytest.approx(present[name](torch.ones(1, 6)).tolist())


def test_average_precision_of_boxes_on_11_points_as_in_voc2007(found: SceneMaps) -> None:
    predictions = [
        {
            "boxes": torch.tensor([[10.0, 10, 30, 30], [0.0, 0, 5, 5]]),
            "scores": torch.tensor([0.9, 0.8]),
            "labels": torch.tensor([0, 0]),
        },
        {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    area = judge_boxes(found, predictions).compute()["AP"]
    points = judge_boxes(found, predictions, interpolation="voc07").compute()["AP"]
    assert float(area[0]) == pytest.approx(1 / 2)  # one of two objects, at precision 1
    assert float(points[0]) == pytest.approx(6 / 11)  # recall 0, 0.1, ..., 0.5 of 11 points
    said = box_evidence(found, predictions, "voc07")["ap50"](torch.ones(1, 2, dtype=torch.float64))
    assert float(said) == pytest.approx(3 / 11)  # the other class has no box
    with pytest.raises(ValueError, match="'area' and 'voc07', not 'coco'"):
        judge_boxes(found, predictions, interpolation="coco")  # type: ignore[arg-type]
