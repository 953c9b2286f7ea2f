"""Figures hold what they were given: every panel, every line, every label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from wsolnb import plots
from wsolnb.boxes import BoxRule
from wsolnb.data.critters import World
from wsolnb.localization.locate import LocalizationResult, tune_and_evaluate
from wsolnb.localization.maps import LocalizationMaps
from wsolnb.metrics import Interval
from wsolnb.plots.style import compact, render
from wsolnb.train import Training


@pytest.fixture(autouse=True)
def _headless() -> Iterator[None]:
    matplotlib.use("agg")
    plots.use_style()
    yield
    plt.close("all")


WORLD = World(families=2, species=2, size=(48, 64))


@pytest.fixture
def scenes() -> World:
    return World(size=48, families=2, species=2)


@pytest.fixture
def located() -> LocalizationResult:
    images = WORLD.singles(4)
    masks = torch.stack([images[i][1]["masks"][0] for i in range(4)]).float()
    boxes = [images[i][1]["boxes"].as_subclass(Tensor) for i in range(4)]
    found = LocalizationMaps(masks, torch.eye(4), torch.arange(4), boxes, (48, 64))
    return tune_and_evaluate(found, found, BoxRule.preset("rethinking", reference="maximum", far_corner="exclusive"))


def test_class_colours_are_stable_and_distinct() -> None:
    colours = plots.class_colours([7, 3, 3, 11])
    assert list(colours) == [3, 7, 11]
    assert len(set(colours.values())) == 3
    assert len(set(plots.class_colours(range(25)).values())) >= 10


def test_figures_of_scenes_show_every_panel(scenes: World) -> None:
    data = scenes.scenes(3, size=(48, 64))
    boxes = [data[k][1] for k in range(3)]
    assert len(plots.show_scenes(data, scenes.classes, [0, 2]).axes) == 2
    grid = plots.show_detections(data, scenes.classes, [0, 1], {"a": boxes, "b": boxes})
    assert [ax.get_title() for ax in grid.axes[:3]] == ["truth", "a", "b"]


def test_maps_keep_their_own_scale(scenes: World) -> None:
    image, target = scenes.scenes(1, size=(48, 64))[0]
    figure = plots.show_maps(image, {"one": torch.rand(6, 8), "two": 50 * torch.rand(6, 8)}, target=target)
    assert len(figure.axes) == 3 + 2  # the image, two maps, and a colour bar for each
    assert figure.axes[2].images[0].norm.vmax > 10 > figure.axes[1].images[0].norm.vmax


def test_curves_carry_their_values() -> None:
    bars = plots.plot_measured({"cam": {"ap0": Interval(0.5, 0.4, 0.6, 0.95)}}, {"ap0": "AP"})
    assert bars.axes[0].patches[0].get_height() == 50
    runs = plots.plot_training({"net": Training([{"epoch": 1, "accuracy": 0.25}])})
    assert runs.axes[0].lines[0].get_ydata().tolist() == [25]


def test_boxes_are_drawn_with_their_overlap(located: LocalizationResult) -> None:
    nothing = replace(located, rule=replace(located.rule, threshold=1.0, empty="none"))
    fig = plots.show_located(WORLD.singles(4), {"good": located, "empty": nothing}, [0, 2], WORLD.classes)
    texts = [text.get_text() for ax in fig.axes for text in ax.texts]
    assert len(fig.axes) == 6
    assert [float(t) for t in texts[:2]] == pytest.approx([1, 1], abs=0.1)
    assert texts[2:] == ["0.00", "0.00"]


def test_a_curve_and_a_dot_per_method(located: LocalizationResult) -> None:
    assert len(plots.plot_thresholds({"a": located, "b": located}).axes[0].lines) == 4


def test_cuts_without_a_box_have_no_overlap() -> None:
    image = torch.randint(0, 255, (3, 48, 64), dtype=torch.uint8)
    boxes = torch.tensor([[0.0, 0.0, 30.0, 20.0], [torch.nan] * 4])
    fig = plots.show_thresholds(image, torch.rand(48, 64), (0.2, 0.8), boxes, torch.tensor([[0.0, 0.0, 30.0, 20.0]]))
    assert [ax.get_title() for ax in fig.axes] == ["map", "above 20%: IoU 1.00", "above 80%: IoU 0.00"]


def test_components_show_values_and_baselines() -> None:
    measured = {"cam": {"gt_known": Interval(0.5, 0.4, 0.6)}, "tap+nwc+pas": {"gt_known": Interval(0.75, 0.7, 0.8)}}
    names = {"cam": "CAM", "tap+nwc+pas": "all", "absent": "not measured"}
    ax = plots.plot_components(measured, names, baselines={"centre": 0.3}).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["CAM", "all"]
    assert [text.get_text() for text in ax.texts] == ["50.0", "75.0"]


def test_a_picture_is_cut_to_what_is_drawn() -> None:
    figure = Figure(figsize=(4, 2))
    figure.add_artist(Rectangle((0.25, 0.5), 0.5, 0.25, color="black", linewidth=0))
    picture = render(figure, dpi=100)
    assert picture.size == (200 + 16, 50 + 16)  # 8 pixels of white on every side
    assert picture.getpixel((8, 8)) == (0, 0, 0)
    assert picture.getpixel((7, 7)) == (255, 255, 255)
    assert render(Figure(figsize=(4, 2)), dpi=50).size == (200, 100)


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
    assert render(figure, dpi=100).height > 50
