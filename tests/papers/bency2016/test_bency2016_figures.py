"""Figures of the beam search show what they are given; costs of searches hang together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

from wsolnb.data.critters import World
from wsolnb.localization.read import read
from wsolnb.losses import MultiLabelCrossEntropy
from wsolnb.metrics.bootstrap import Interval
from wsolnb.papers.bency2016 import figures
from wsolnb.papers.bency2016.boxes import blob_boxes
from wsolnb.papers.bency2016.cached_search import compare_searches, load_scenes, search_scenes, width_and_depth
from wsolnb.papers.bency2016.maps import BeamReader, score_reader
from wsolnb.papers.bency2016.network import GridClassifier, grid_classifier
from wsolnb.papers.bency2016.search import BeamSearch

matplotlib.use("Agg")
LOSS = MultiLabelCrossEntropy()
SCENES = World(families=2, species=2, size=32, objects=(1, 2)).scenes(4, size=(48, 56))
NAMES = SCENES.classes


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def net() -> GridClassifier:
    return grid_classifier("tiny", 4, grid=4, hidden=(8,), adapt=8).eval()


def test_a_tree_has_a_picture_per_level_and_one_of_the_heat_map(net: GridClassifier) -> None:
    loaded = load_scenes(SCENES, 4, side=48)
    tree = BeamSearch(2, 4)(net, loaded.images, LOSS.scores, loaded.present)
    fig = figures.show_tree(loaded.images[0], tree, 0, [1, 3], torch.tensor([[4.0, 4, 20, 30]]))
    assert [ax.get_title().split(":")[0] for ax in fig.axes] == ["level 1", "level 3", "heat map"]
    best, klass = tree.levels[3].kept[0, 0], int(tree.pairs[0, 1])
    assert fig.axes[1].get_title() == f"level 3: score {float(tree.levels[3].scores[best, klass]):.2f}"
    assert len(fig.axes[0].patches) == 1 + 2  # truth and kept
    assert fig.axes[0].patches[-1].get_linewidth() > fig.axes[0].patches[-2].get_linewidth()  # the best one, on top
    assert len(figures.show_tree(loaded.images[0], tree, 0, [1, 2, 3], torch.zeros(0, 4)).axes) == 4


def test_children_are_a_step_smaller() -> None:
    parent, *children = (ax.patches[0] for ax in figures.show_children(5).axes)
    assert (parent.get_width(), parent.get_height()) == (5, 5)
    assert [(c.get_x(), c.get_y(), c.get_width(), c.get_height()) for c in children] == [
        (0, 0, 4, 5),
        (1, 0, 4, 5),
        (0, 0, 5, 4),
        (0, 1, 5, 4),
    ]


def test_points_and_boxes(net: GridClassifier) -> None:
    readers = {"beam": BeamReader(net, LOSS, BeamSearch(2, 3)), "scores": score_reader(net, LOSS)}
    found = read(SCENES, readers, side=48)
    boxes = {name: blob_boxes(way, torch.full((4,), 0.5)) for name, way in found.items()}
    picks = [(k, int(SCENES[k][1]["labels"][0])) for k in range(2)]
    fig = figures.show_points(SCENES, NAMES, picks, found, boxes)
    assert [ax.get_title() for ax in fig.axes[:3]] == [NAMES[picks[0][1]], "beam", "scores"]
    assert [len(ax.lines) for ax in fig.axes[:3]] == [0, 1, 0]  # a map of zeros points nowhere
    assert torch.allclose(found["scores"].scores, LOSS.scores(net(load_scenes(SCENES, 4, side=32).images)), atol=0.02)


def test_costs(net: GridClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path))
    loaded = load_scenes(SCENES, 4, side=48)
    assert loaded.present.sum(dim=1).tolist() == [len(set(t["labels"].tolist())) for t in loaded.targets]
    searches = {"greedy": BeamSearch(1, 6, recrop=False), "all": BeamSearch(None, 6, recrop=False)}
    found = compare_searches(net, LOSS, loaded, searches)
    assert found["all"]["windows"].tolist() == [100] * 4  # (4 * 5 / 2)^2 windows
    assert bool((found["greedy"]["windows"] < 60).all())
    assert bool((found["greedy"]["best_score"] <= found["all"]["best_score"]).all())
    alone = BeamSearch(1, 6, recrop=False)(net, loaded.images[:1], LOSS.scores, loaded.present[:1])
    assert float(found["greedy"]["windows"][0]) == sum(alone.windows)
    assert float(found["greedy"]["best_score"][0]) == pytest.approx(float(alone.best()[1].mean()))
    searched = search_scenes(SCENES, net, LOSS, BeamSearch(depth=3), [1, 2], side=48)
    curves = width_and_depth(searched, depths=[1, 3])
    assert [list(curve) for curve in curves.values()] == [[1, 3], [1, 3]]
    assert all(0 <= value <= 1 for curve in curves.values() for value in curve.values())
    fig = figures.plot_cost(curves, {name: cost.get("windows", 0) for name, cost in searched.per_image().items()})
    assert [line.get_label().split(":")[0] for line in fig.axes[0].lines] == ["M = 1", "M = 2"]
    means = {name: (float(v["windows"].mean()), float(v["best_score"].mean())) for name, v in found.items()}
    assert len(figures.plot_searches(means).axes[0].lines) == 2


def test_gains_start_at_zero() -> None:
    fig = figures.plot_alpha({"a": {0.0: 0.5, 1.0: 0.6}, "b": {0.0: 0.4, 1.0: 0.3}}, {"a": 1.0, "b": 0.0})
    lines = fig.axes[0].lines
    assert list(lines[0].get_ydata()) == pytest.approx([0, 10])
    assert list(lines[1].get_ydata()) == pytest.approx([10])
    assert list(lines[2].get_ydata()) == pytest.approx([0, -10])


def test_a_method_without_a_number_has_an_empty_row() -> None:
    measured = {
        "beam": {"a": Interval(0.5, 0.4, 0.6), "b": Interval(0.2, 0.1, 0.3)},
        "other": {"a": Interval(0.7, 0.6, 0.8)},
    }
    fig = figures.plot_methods(measured, {"a": "points", "b": "boxes"})
    assert [[text.get_text() for text in ax.texts] for ax in fig.axes] == [["50", "70"], ["20"]]
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["beam", "other"]
    assert list(fig.axes[1].lines[0].get_xdata()) == pytest.approx([10, 30])
