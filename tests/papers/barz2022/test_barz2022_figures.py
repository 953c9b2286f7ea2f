"""The figures of barz2022 draw what they are given."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from wsolnb.data.critters import World
from wsolnb.localization.maps import SceneMaps
from wsolnb.metrics import DetectionAP
from wsolnb.metrics.bootstrap import Interval
from wsolnb.papers.barz2022 import figures
from wsolnb.papers.barz2022.evaluate import NETWORKS, cell_scale

COLOURS = ["#0173b2", "#de8f05", "#029e73", "#d55e00"]
NAMES = [name for row in NETWORKS.values() for name in row]


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def test_boxes_of_classes_that_are_not_there_are_dashed_and_counted() -> None:
    scenes = World(size=48, families=2, species=2).scenes(3, size=(48, 64))
    there = scenes[1][1]["labels"].unique().tolist()
    absent = next(k for k in range(4) if k not in there)
    box = torch.tensor([[4.0, 4.0, 20.0, 30.0]] * 2)
    found = [{"boxes": box, "labels": torch.tensor([there[0], absent]), "scores": torch.ones(2)}] * 3
    figure = figures.show_grid(scenes, scenes.classes, 1, dict.fromkeys(NAMES, found), COLOURS)
    panel = figure.axes[-1]
    assert panel.get_xlabel() == f"1 of {len(there)} named, 1 wrong"
    assert [patch.get_linestyle() == "solid" or patch.get_linestyle() == "-" for patch in panel.patches] == [
        True,
        False,
    ]
    names = {text.get_text() for text in figure.legends[0].get_texts()}
    assert names == {*(scenes.classes[k] for k in there), f"{scenes.classes[absent]} (not there)"}


def test_dense_class_maps_are_painted_in_class_colours() -> None:
    sim = torch.zeros(4, 2, 3)
    sim[2, 0, 0], sim[1, 1, 2], sim[3, 1, 0] = 0.9, 0.8, 0.3
    target = {"boxes": torch.tensor([[0.0, 0.0, 8.0, 8.0]]), "labels": torch.tensor([2])}
    one = SceneMaps([sim], torch.rand(1, 4), torch.tensor([[16, 24]]), [target])
    rows = [row[2] for row in NETWORKS.values()]
    figure = figures.show_dense_class_maps(
        ["ant", "bee", "cat", "dog"], 0, dict.fromkeys(rows, one), dict.fromkeys(rows, 0.5), 0.5, COLOURS
    )
    painted = torch.tensor(np.asarray(figure.axes[0].images[0].get_array()))
    grey = painted[0, 1]
    assert torch.equal((painted != grey).any(dim=-1), torch.tensor([[True, False, False], [False, False, True]]))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["bee (not there)", "cat"]


def test_activations_carry_both_accuracies_and_the_threshold() -> None:
    values, covered = [torch.tensor([[0.9, 0.6, 0.1]])], [torch.tensor([[1.0, 0.0, 0.0]])]
    scale = cell_scale(values, covered)
    figure = figures.show_activations({"softmax": values}, covered, 0, {"softmax": scale})
    below = figure.axes[1]
    assert below.get_xlabel() == "one threshold: 100.0 %\none per scene: 100.0 %"
    assert np.asarray(below.lines[0].get_xdata())[0] == pytest.approx(0.75)
    assert len(below.patches) == 2  # ground and objects


def test_tuning_marks_the_highest_ap_and_the_lowest_error() -> None:
    curves = {name: {0.01: 0.2, 0.5: 0.6, 0.99: 0.1} for name in NAMES}
    figure = figures.plot_tuning(curves, curves)
    assert figure.axes[0].lines[1].get_xdata() == [0.5]
    assert figure.axes[3].lines[1].get_xdata() == [0.99]
    assert [ax.get_title() for ax in figure.axes[:3]] == list(NETWORKS)


def test_precision_recall_has_a_column_per_network() -> None:
    metric = DetectionAP(1, (0, 0.25))
    box = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    truth = {"boxes": box, "labels": torch.tensor([0])}
    metric.update([truth | {"scores": torch.tensor([0.5])}], [truth])
    figure = figures.plot_precision_recall(dict.fromkeys(NAMES, metric), (0.25,))
    assert [ax.get_title() for ax in figure.axes] == list(NETWORKS)
    assert [len(ax.lines) for ax in figure.axes] == [3, 3, 3]
    assert figure.axes[0].get_ylabel() == "precision, IoU 0.25"


def test_the_grid_says_where_low_is_good() -> None:
    row = {"ap0": Interval(0.9, 0.8, 1.0), "top5": Interval(0.1, 0.0, 0.2)}
    figure = figures.plot_grid(dict.fromkeys(NAMES, row), {"ap0": "AP, IoU 0", "top5": "top-5 error"})
    assert [text.get_text() for text in figure.axes[1].texts] == ["10"] * 9
    assert "lower is better" in figure.axes[1].get_title()
    high, low = (float(np.asarray(ax.images[0].get_array())[0, 0]) for ax in figure.axes)
    assert high == low == 90  # both bright


def test_chance_falls_with_the_number_of_classes() -> None:
    line = figures.plot_chance({12: 0.6}, draws=500).axes[0].lines[0]
    heights = np.asarray(line.get_ydata()).tolist()
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] < 0.15
