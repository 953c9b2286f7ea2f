"""The figures of barz2022 draw what they are given."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest
import torch

from wsolnb.boxes import BoxRule
from wsolnb.data.critters import World
from wsolnb.localization.detect import detections
from wsolnb.localization.maps import SceneMaps
from wsolnb.metrics import DetectionAP
from wsolnb.papers.barz2022 import figures


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def test_the_dense_class_map_has_a_legend() -> None:
    scenes = World(size=48, families=2, species=2).scenes(3, size=(48, 64))
    values, targets = torch.rand(3, 4, 6, 8), [scenes[i][1] for i in range(3)]
    maps = SceneMaps(list(values), values.amax((2, 3)), torch.tensor([[48, 64]] * 3), targets)
    both = (maps, detections(maps, BoxRule.preset("dcm", threshold=0.9)))
    figure = figures.show_comparison(
        scenes, scenes.classes, 1, cam=both, dcm=both, score_threshold=0.1, sim_threshold=0.1
    )
    figure.canvas.draw()
    names = {text.get_text() for text in figure.axes[2].get_legend().get_texts()}
    assert names <= set(scenes.classes)
    assert names


def test_curves_carry_their_values() -> None:
    metric = DetectionAP(1, (0, 0.25))
    box = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    metric.update(
        [{"boxes": box, "scores": torch.tensor([0.5]), "labels": torch.tensor([0])}],
        [{"boxes": box, "labels": torch.tensor([0])}],
    )
    figure = figures.plot_precision_recall({"cam": metric}, (0, 0.25))
    assert figure.axes[1].get_legend().get_texts()[0].get_text() == "cam (mAP 100.0 %)"
    tuned = figures.plot_tuning({"cam": {0.2: 0.1, 0.4: 0.3}}, iou=0.25)
    assert tuned.axes[0].lines[1].get_xdata().tolist() == [0.4]  # the dot marks the best threshold


def test_chance_falls_with_the_number_of_classes() -> None:
    line = figures.plot_chance({12: 0.6}, draws=500).axes[0].lines[0]
    heights = line.get_ydata().tolist()
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] < 0.15
