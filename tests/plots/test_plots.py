"""Figures hold what they were given: every panel, every line, every label."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from wsolnb import plots
from wsolnb.boxes import BoxRule
from wsolnb.data.critters import World
from wsolnb.localization.detect import detections
from wsolnb.localization.maps import SceneMaps
from wsolnb.metrics import DetectionAP, Interval
from wsolnb.plots.picture import compact, pixels
from wsolnb.train import Training


@pytest.fixture(autouse=True)
def _headless() -> Iterator[None]:
    matplotlib.use("agg")
    plots.use_style()
    yield
    plt.close("all")


@pytest.fixture
def scenes() -> World:
    return World(size=48, families=2, species=2)


def test_class_colours_are_stable_and_distinct() -> None:
    colours = plots.class_colours([7, 3, 3, 11])
    assert list(colours) == [3, 7, 11]
    assert len(set(colours.values())) == 3
    assert len(set(plots.class_colours(range(25)).values())) >= 10


def test_figures_of_scenes_show_every_panel(scenes: World) -> None:
    data = scenes.scenes(3, size=(48, 64))
    maps = torch.rand(3, 4, 6, 8)
    found = SceneMaps(list(maps), maps.amax((2, 3)), torch.tensor([[48, 64]] * 3), [data[i][1] for i in range(3)])
    boxes = detections(found, BoxRule.preset("dcm", threshold=0.9))
    assert len(plots.show_scenes(data, scenes.classes, [0, 2]).axes) == 2
    grid = plots.show_detections(data, scenes.classes, [0, 1], {"a": boxes, "b": boxes})
    assert [ax.get_title() for ax in grid.axes[:3]] == ["truth", "a", "b"]
    figure = plots.show_comparison(
        data, scenes.classes, 1, cam=(found, boxes), dcm=(found, boxes), score_threshold=0.1, sim_threshold=0.1
    )
    figure.canvas.draw()
    names = {text.get_text() for text in figure.axes[2].get_legend().get_texts()}
    assert names <= set(scenes.classes)
    assert names


def test_maps_keep_their_own_scale(scenes: World) -> None:
    image, target = scenes.scenes(1, size=(48, 64))[0]
    figure = plots.show_maps(image, {"one": torch.rand(6, 8), "two": 50 * torch.rand(6, 8)}, target=target)
    assert len(figure.axes) == 3 + 2  # the image, two maps, and a colour bar for each
    assert figure.axes[2].images[0].norm.vmax > 10 > figure.axes[1].images[0].norm.vmax


def test_curves_carry_their_values() -> None:
    judged = DetectionAP(1, (0, 0.25))
    box = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    judged.update(
        [{"boxes": box, "scores": torch.tensor([0.5]), "labels": torch.tensor([0])}],
        [{"boxes": box, "labels": torch.tensor([0])}],
    )
    figure = plots.plot_precision_recall({"cam": judged}, (0, 0.25))
    assert figure.axes[1].get_legend().get_texts()[0].get_text() == "cam (mAP 100.0 %)"
    tuned = plots.plot_tuning({"cam": {0.2: 0.1, 0.4: 0.3}}, iou=0.25)
    assert tuned.axes[0].lines[1].get_xdata().tolist() == [0.4]  # the dot marks the best threshold
    bars = plots.plot_measured({"cam": {"ap0": Interval(0.5, 0.4, 0.6, 0.95)}}, {"ap0": "AP"})
    assert bars.axes[0].patches[0].get_height() == 50
    runs = plots.plot_training({"net": Training([{"epoch": 1, "accuracy": 0.25}])})
    assert runs.axes[0].lines[0].get_ydata().tolist() == [25]


def test_chance_falls_with_the_number_of_classes() -> None:
    line = plots.plot_chance({12: 0.6}, draws=500).axes[0].lines[0]
    heights = line.get_ydata().tolist()
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] < 0.15


def test_a_picture_is_cut_to_what_is_drawn() -> None:
    figure = Figure(figsize=(4, 2))
    figure.add_artist(Rectangle((0.25, 0.5), 0.5, 0.25, color="black", linewidth=0))
    picture = pixels(figure, dpi=100)
    assert picture.size == (200 + 16, 50 + 16)  # 8 pixels of white on every side
    assert picture.getpixel((8, 8)) == (0, 0, 0)
    assert picture.getpixel((7, 7)) == (255, 255, 255)
    assert pixels(Figure(figsize=(4, 2)), dpi=50).size == (200, 100)


def test_photos_become_jpeg_and_drawings_keep_their_lines() -> None:
    noise = torch.randint(256, (200, 300, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    kind, content = compact(Image.fromarray(noise.numpy()), scale=0.5)
    assert kind == "jpeg"
    assert Image.open(BytesIO(content)).size == (150, 100)
    drawing = Image.new("RGB", (800, 600), "white")
    drawing.paste("navy", (100, 100, 700, 120))
    kind, content = compact(drawing)
    assert kind == "png"
    assert Image.open(BytesIO(content)).size == (800, 600)
    assert len(content) < 4000


def test_what_stands_over_the_edge_is_in_the_picture() -> None:
    figure = Figure(figsize=(2, 1))
    figure.add_artist(Rectangle((0.5, 0.9), 0.25, 0.5, color="black", linewidth=0))
    assert pixels(figure, dpi=100).height > 50
