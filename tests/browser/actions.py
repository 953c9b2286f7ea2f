"""What a reader does with an explorer, and how long the page takes to follow."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pandas as pd

ROOT = ".wsolnb-explorer[data-n]"

_MOVES = """async ([root, slider, count]) => {
  const times = [];
  for (let i = 0; i < count; i++) {
    const before = root.dataset.n;
    const started = performance.now();
    slider.value = 0.1 + 0.7 * Math.abs(Math.sin(i));
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise((done) => {
      const check = () => (root.dataset.n === before ? requestAnimationFrame(check) : done());
      requestAnimationFrame(check);
    });
    times.push(performance.now() - started);
  }
  return times;
}"""


def slide(page: Any, method: str, value: float) -> None:
    """Move the threshold of a method, and wait until that is painted."""
    before = page.locator(ROOT).get_attribute("data-n")
    page.locator(f"input[data-name=threshold][data-method={method}]").fill(str(value))
    page.wait_for_function("([root, n]) => document.querySelector(root).dataset.n !== n", arg=[ROOT, before])


def found(page: Any) -> dict[str, list[dict[str, Any]]]:
    """The boxes that the page shows, by method."""
    return page.evaluate("(root) => document.querySelector(root).found", ROOT)


def agrees(shown: dict[str, list[dict[str, Any]]], table: pd.DataFrame, classes: list[str]) -> None:
    """Assert that boxes, scores and IoU in the page are those that Python computes."""
    assert [method for method in shown if shown[method]] == list(dict.fromkeys(table.method))
    for method, boxes in shown.items():
        rows = table[table.method == method]
        assert [classes[box["label"]] for box in boxes] == rows.label.tolist()
        assert [box["box"] for box in boxes] == rows[["x0", "y0", "x1", "y1"]].to_numpy().tolist()
        for box, row in zip(boxes, rows.itertuples(), strict=True):
            for value, wanted in ((box["iou"], row.iou), (box["score"], row.score)):
                assert (value is None and math.isnan(wanted)) or abs(value - wanted) < 1e-6


def follows_the_hand(page: Any, rounds: int = 10, moves: int = 40) -> tuple[float, float]:
    """Move a slider many times; median and worst time until the repaint, in ms, of the quietest round.

    A machine that does other things too delays frames now and then, so the best of a few rounds counts.
    """
    root, slider = page.locator(ROOT), page.locator("input[data-name=threshold][data-method=cam]")
    slider.scroll_into_view_if_needed()
    best = (math.inf, math.inf)
    for _ in range(rounds):
        times = page.evaluate(_MOVES, [root.element_handle(), slider.element_handle(), moves])
        best = min(best, (statistics.median(times), max(times)), key=max)
        if best[0] <= 20 and best[1] <= 50:
            break
    return best
