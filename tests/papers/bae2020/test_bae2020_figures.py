"""The figures of bae2020 draw what they are given, edge cases included."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest
import torch

from wsolnb.papers.bae2020 import figures


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def test_curves_and_bars_have_one_entry_per_method() -> None:
    shares = {"a": torch.tensor([0.2, 0.4, float("nan")]), "b": torch.tensor([0.9, 1.0, 0.8])}
    labels = [t.get_text() for t in figures.plot_inside(shares, chance=0.3).axes[0].get_legend().get_texts()]
    assert labels == ["a\n(mean 30 %)", "b\n(mean 90 %)", "the box's share\nof the image (30%)"]
    panels = figures.plot_covered({"a": {"mark": 0.5, "body": 0.25}, "b": {"mark": 1.0, "body": 0.0}}).axes
    assert [[bar.get_width() for bar in ax.patches] for ax in panels] == [[50, 100], [25, 0]]


def test_analyses_are_drawn() -> None:
    curves = {"maximum": torch.rand(3, 40).sort(descending=True).values, "percentile": torch.full((3, 40), torch.nan)}
    curves["percentile"][0] = 0.5
    assert len(figures.plot_sorted(curves, {"maximum": 0.2, "percentile": 0.35}).axes) == 2
    areas = {"average": (torch.tensor([0.0, 0.1, 0.2, 0.3]), torch.rand(4))}
    assert len(figures.plot_areas(areas).axes) == 1
    image = torch.randint(0, 255, (3, 48, 64), dtype=torch.uint8)
    assert len(figures.show_parts(image, {"positive": torch.rand(6, 8), "negative": -torch.rand(6, 8)}).axes) == 4
