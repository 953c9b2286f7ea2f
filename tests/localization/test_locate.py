"""Maps of the true class: readings and clamped weights by hand, both readings of the percentile, whole evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from wsolnb.boxes import BoxRule, iou
from wsolnb.data.critters import World
from wsolnb.data.readers.voc import VocScenes
from wsolnb.localization.baselines import baselines
from wsolnb.localization.locate import LocalizationResult, area_ratios, at_threshold, tune_and_evaluate
from wsolnb.localization.maps import LocalizationMaps
from wsolnb.localization.read import read_objects, true_class_reader
from wsolnb.metrics.bootstrap import interval
from wsolnb.models.cam import Classifier, classifier
from wsolnb.papers.bae2020.analysis import activated_area, over_images
from wsolnb.papers.bae2020.pooling import ThresholdedAveragePooling

WORLD = World(families=2, species=2, size=(48, 64))


class Fixed(nn.Module):
    """A backbone whose features do not depend on the image: two channels of 1 x 2 cells."""

    out_channels = 2

    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([[[[4.0, 1.0]], [[0.0, 2.0]]]]).expand(len(images), -1, -1, -1)


def test_weights_are_those_of_the_true_class_and_scores_are_never_clamped() -> None:
    net = Classifier(Fixed(), 2, ThresholdedAveragePooling(0.5)).eval()  # type: ignore[arg-type]
    net.head.weight.data = torch.tensor([[1.0, -1.0], [-2.0, 3.0]])
    net.head.bias.data = torch.tensor([10.0, 0.0])
    world = World(families=2, species=1, objects=(1, 1), size=(16, 32), scale=(0.5, 0.9))
    weight = net.head.weight
    weights = {"cam": weight, "nwc": weight.clamp(min=0), "neg": -weight.clamp(max=0)}
    readers = {name: true_class_reader(net, rows) for name, rows in weights.items()}
    found = read_objects(world.singles(2), readers)
    assert found["cam"].labels.tolist() == [0, 1]
    assert found["cam"].maps.tolist() == [[[4.0, -1.0]], [[-8.0, 4.0]]]  # no bias
    assert found["nwc"].maps.tolist() == [[[4.0, 1.0]], [[0.0, 6.0]]]
    assert found["neg"].maps.tolist() == [[[0.0, 2.0]], [[8.0, 2.0]]]
    scores = [[4.0 - 2.0 + 10.0, -8.0 + 6.0]] * 2  # pooled: (4, 2), as the model's own pooling gives it
    for each in found.values():
        assert each.scores.tolist() == scores
        assert each.image_size == (16, 32)
        assert each.accuracy == 0.5


def test_readings_of_the_percentile_differ_where_a_map_does_not_start_at_zero() -> None:
    maps = torch.tensor([[[[5.0, 6.0, 7.0, 8.0, 9.0, 15.0]]]])
    paper = BoxRule(0.7, reference="percentile", percentile=80)  # of the raw map: 0.7 * 9 = 6.3
    code = replace(paper, normalise="before", quantise=True)  # of 0 .. 255: 0.7 * 102 = 71.4, which is 7.8 raw
    assert paper(maps, (1, 6))[0, 0].tolist() == [2, 0, 6, 1]
    assert code(maps, (1, 6))[0, 0].tolist() == [3, 0, 6, 1]


def test_a_perfect_map_is_right_and_an_inverted_one_is_not() -> None:
    images = WORLD.singles(12, seed=3)
    masks = torch.stack([images[i][1]["masks"][0] for i in range(12)]).float()
    boxes = [images[i][1]["boxes"].as_subclass(Tensor) for i in range(12)]
    labels = torch.arange(12) % 4
    scores = nn.functional.one_hot(labels, 4).float()
    scores[3] = scores[2]  # one image is misclassified
    perfect = LocalizationMaps(masks, scores, labels, boxes, (48, 64), {"masks": masks.bool()})
    rule = BoxRule.preset("rethinking", reference="maximum")
    located = tune_and_evaluate(perfect, perfect, rule)
    numbers = {name: interval(statistic, 12, draws=50).value for name, statistic in located.evidence().items()}
    assert numbers == pytest.approx(
        {"gt_known": 1, "gt_known_oracle": 1, "pxap": 1, "top1_loc": 11 / 12, "top1_cls": 11 / 12}
    )
    found = located.boxes([0, 5])
    truth = torch.cat([boxes[0], boxes[5]])
    assert (found - truth).abs().max() <= 1
    upside = replace(perfect, maps=1 - masks)
    assert located.rule.threshold in located.curve()[0].tolist()
    assert tune_and_evaluate(perfect, upside, rule).metric.at(0.5)["gt_known"] < 0.5


def test_the_threshold_is_the_held_out_images_own() -> None:
    images = WORLD.singles(8, seed=4)
    masks = torch.stack([images[i][1]["masks"][0] for i in range(8)]).float()
    boxes = [images[i][1]["boxes"].as_subclass(Tensor) for i in range(8)]
    ground = 0.4 + torch.zeros_like(masks)
    ground[:, 0, 0] = 0  # the smallest value of every map
    found = LocalizationMaps(masks.maximum(ground), torch.eye(8), torch.arange(8), boxes, (48, 64))
    easy = replace(found, maps=masks)
    rule = BoxRule.preset("rethinking", reference="maximum")
    assert (
        tune_and_evaluate(easy, found, rule, thresholds=10).rule.threshold < 0.4
    )  # best where it was chosen, bad on the test
    assert tune_and_evaluate(found, found, rule, thresholds=10).rule.threshold >= 0.4


def test_photos_of_any_size_are_brought_to_one_frame_with_their_boxes(shared_data: Path) -> None:
    scenes = VocScenes(shared_data / "cards" / "test")
    single = [i for i in range(len(scenes)) if len(scenes.target(i)["labels"]) == 1][:3]
    net = classifier("tiny", len(scenes.classes)).eval()
    found = read_objects(Subset(scenes, single), {"cam": true_class_reader(net, net.head.weight)}, image_size=64)["cam"]
    assert found.upsampled().shape == (3, 64, 64)
    for row, index in enumerate(single):
        height, width = scenes.sizes[index].tolist()
        scale = torch.tensor([64 / width, 64 / height] * 2)
        torch.testing.assert_close(found.boxes[row], scenes.target(index)["boxes"].as_subclass(Tensor) * scale)


def test_baselines_look_at_no_image() -> None:
    boxes = [torch.tensor([[16.0, 12.0, 48.0, 36.0]]), torch.tensor([[0.0, 0.0, 64.0, 48.0]])]
    found = LocalizationMaps(torch.rand(2, 6, 8), torch.eye(2), torch.arange(2), boxes, (48, 64))
    rule = BoxRule.preset("rethinking", reference="maximum", far_corner="exclusive", threshold=0.0)
    maps = baselines(found)
    assert rule(maps["whole"].maps[:, None], (48, 64))[:, 0].tolist() == [[0, 0, 64, 48]] * 2
    centre = LocalizationResult(
        maps["centre"], replace(rule, threshold=0.5), tune_and_evaluate(found, maps["centre"], rule).metric
    ).boxes([0])
    assert 0.5 < float(iou(centre, boxes[0])) <= 1


def test_box_masks_and_regions_by_hand() -> None:
    boxes = [torch.tensor([[1.0, 0.0, 3.0, 2.0], [3.0, 2.0, 4.0, 3.0]])]
    maps = torch.tensor([[[0.0, 1.0, 2.0, 4.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]])
    found = LocalizationMaps(maps, torch.eye(1), torch.zeros(1, dtype=torch.int64), boxes, (3, 4))
    expected = [[False, True, True, False], [False, True, True, False], [False, False, False, True]]
    assert found.box_masks()[0].tolist() == expected
    judged = tune_and_evaluate(found, found, BoxRule.preset("rethinking")).metric
    half = LocalizationResult(found, BoxRule(0.45, reference="maximum"), judged).regions()[0]
    assert half.tolist() == [[False, False, True, True], [False] * 4, [False] * 4]
    middle = LocalizationResult(found, BoxRule(0.5, reference="percentile", percentile=90), judged).regions()[
        0
    ]  # of 1.9 of 4
    assert middle.tolist() == [[False, True, True, True], [False] * 4, [False, False, False, True]]


def test_a_fixed_threshold_decides_on_the_size_of_boxes() -> None:
    heat = torch.zeros(1, 8, 12)
    heat[0, 2:6, 3:9], heat[0, 2:4, 3:6] = 0.5, 1.0
    truth = (torch.zeros(1, 5), torch.tensor([0]), [torch.tensor([[3.0, 2.0, 9.0, 6.0]])], (8, 12))
    maps = LocalizationMaps(heat, *truth)
    tuned = tune_and_evaluate(maps, maps, BoxRule())
    low, high = (at_threshold(tuned, cut) for cut in (0.3, 0.7))
    assert (float(area_ratios(low)), float(area_ratios(high))) == (1.0, 0.25)
    assert (float(low.correct()), float(high.correct())) == (1, 0)
    assert tuned.rule != high.rule


def test_statistics_have_a_row_per_image() -> None:
    net = classifier("tiny", 4).eval()
    images = WORLD.singles(70, seed=5)  # more than a batch
    stacked = images.tensors()[0].float() / 255
    with torch.no_grad():
        expected = activated_area(net.features(stacked), 0.2)
    torch.testing.assert_close(over_images(net, images, lambda f: activated_area(f, 0.2)), expected)


def test_weights_of_another_head_are_refused() -> None:
    net = classifier("tiny", 4).eval()
    with pytest.raises(ValueError, match=r"weights are \(4, 3\), the head's \(4, 96\)"):
        true_class_reader(net, torch.zeros(4, 3))
