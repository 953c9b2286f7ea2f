"""A run's page, opened from the file system with the network off: everything still moves, and nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from actions import ROOT, agrees, follows_the_hand, found, slide
from example import example

from wsolnb.runs.report.report import report
from wsolnb.runs.run import NOTEBOOK, run

SOURCE = "from example import example\nexplorer = example()\nexplorer"
FORMULA = r"$$\mathcal{L}_{\cos} = 1 - \frac{\langle x, \varphi(c) \rangle}{\lVert x \rVert}$$ and [a card](../card.md)"


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of one run; made before the browser starts, because both need the event loop."""
    root = tmp_path_factory.mktemp("page")
    path = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})"
    cells = [nbformat.v4.new_markdown_cell(FORMULA), *map(nbformat.v4.new_code_cell, (path, SOURCE))]
    cells.append(nbformat.v4.new_code_cell("import ipywidgets\nipywidgets.IntSlider()"))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), root / "demo.ipynb")
    made = run(root / "demo.ipynb", name="one", root=root / "runs")
    assert (made / NOTEBOOK).exists()
    report([root / "runs"], root / "report")
    return root / "report"


@pytest.fixture
def opened(page: Any, folder: Path) -> Any:
    """The page of the run, in a browser without a network; a request to anywhere fails the test."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.context.set_offline(True)
    page.add_init_script(
        """const look = () => document.querySelector(".wsolnb-explorer[data-n]")
             ? (window.drawnAt = performance.now()) : requestAnimationFrame(look);
           requestAnimationFrame(look);"""
    )
    page.goto((folder / "demo-one.html").as_uri())
    page.wait_for_selector(ROOT)
    yield page
    assert [url for url in asked if not url.startswith(("file:", "blob:", "data:"))] == []


def test_opens_at_once_and_is_small(opened: Any, folder: Path, pictures: Path) -> None:
    assert (folder / "demo-one.html").stat().st_size < 3_000_000
    drawn = opened.evaluate("window.drawnAt")
    if drawn > 1000:  # the machine may be busy: once more
        opened.reload()
        opened.wait_for_selector(ROOT)
        drawn = opened.evaluate("window.drawnAt")
    assert drawn < 1000
    assert opened.locator("math").count() == 1
    assert opened.get_by_text("needs a running kernel").count() == 1
    assert opened.locator("a[href*='card.md']").count() == 0
    opened.locator(ROOT).screenshot(path=pictures / "page.png")


def test_boxes_are_those_of_python_at_every_threshold(opened: Any) -> None:
    explorer = example()
    seen = set()
    for threshold in (0.05, 0.2, 0.41, 0.77):
        for method in ("cam", "dcm"):
            slide(opened, method, threshold)
        explorer.thresholds = {"cam": threshold, "dcm": threshold}
        shown = found(opened)
        agrees(shown, explorer.table(), explorer._classes)
        seen.add(json.dumps(shown))
    assert len(seen) == 4


def test_every_control_does_what_python_says(opened: Any) -> None:
    explorer = example()
    classes = explorer._classes

    def check() -> None:
        opened.wait_for_timeout(60)
        agrees(found(opened), explorer.table(), classes)

    opened.get_by_label("next image").click()
    explorer.image = 1
    check()
    opened.locator("select[data-name=image]").select_option("7")
    explorer.image = 7
    check()
    opened.locator("details summary").click()
    opened.locator("input[data-name=class][data-value='2']").check()
    explorer.labels = [2]
    check()
    opened.locator("input[data-name=all-classes]").check()
    explorer.labels = []
    check()
    opened.locator("select[data-name=reference]").select_option("percentile")
    opened.locator("input[data-name=percentile]").fill("97")
    opened.keyboard.press("Tab")
    explorer.reference, explorer.percentile = "percentile", 97
    check()
    opened.locator("input[data-name=presence][data-method=dcm]").fill("0.3")
    explorer.presences = {"dcm": 0.3}
    check()
    opened.locator("input[data-name=method][data-value=cam]").uncheck()
    explorer.methods = ["dcm"]
    check()
    assert opened.locator("canvas[data-method=cam]").count() == 0


def test_dense_class_map_has_a_legend(opened: Any) -> None:
    opened.locator("select[data-name=view]").select_option("classes")
    opened.locator("input[data-name=sim_threshold]").fill("0.4")
    legend = opened.locator("section[aria-label=dcm] .we-legend li")
    legend.first.wait_for()
    assert set(legend.all_inner_texts()) <= set(example(1)._classes)
    opened.locator("input[data-name=sim_threshold]").fill("1")
    opened.get_by_text("background only").wait_for()


def test_keyboard_moves_sliders_and_reads_cells(opened: Any) -> None:
    explorer = example()
    opened.locator("input[data-name=threshold][data-method=cam]").focus()
    before = opened.locator("input[data-name=threshold][data-method=cam]").input_value()
    opened.keyboard.press("ArrowRight")
    opened.wait_for_timeout(50)
    assert float(opened.locator("input[data-name=threshold][data-method=cam]").input_value()) > float(before)

    opened.locator(".we-stage canvas[data-method=cam]").focus()
    opened.keyboard.press("ArrowDown")
    values = opened.locator(".we-values[data-method=cam]")
    values.get_by_text("cell 14, 14").wait_for()
    maps = explorer._shipped["cam"].maps[0][:, 14, 14]
    wanted = {f"{name} {value:.2f}" for name, value in zip(explorer._classes, maps.tolist(), strict=True)}
    assert set(values.locator("span").all_inner_texts()) == wanted
    opened.keyboard.press("Escape")
    values.wait_for(state="hidden")


def test_hovering_reads_the_cell_below_the_pointer(opened: Any) -> None:
    frame = opened.locator(".we-stage canvas[data-method=dcm]").bounding_box()
    opened.mouse.move(frame["x"] + frame["width"] * 3.5 / 28, frame["y"] + frame["height"] * 20.5 / 28)
    opened.locator(".we-values[data-method=dcm]").get_by_text("cell 20, 3").wait_for()
    opened.locator(".we-values[data-method=cam]").get_by_text("cell 20, 3").wait_for()


def test_everything_that_can_be_used_has_a_name(opened: Any) -> None:
    nameless = opened.evaluate(
        """(root) => [...document.querySelector(root).querySelectorAll("input, select, button, canvas")]
             .filter((node) => !node.closest("label")?.textContent && !node.ariaLabel && !node.textContent)
             .map((node) => node.outerHTML)""",
        ROOT,
    )
    assert nameless == []


def test_follows_the_hand_frame_by_frame(opened: Any) -> None:
    median, worst = follows_the_hand(opened)
    print(f"page: median {median:.1f} ms, worst {worst:.1f} ms")
    assert median <= 20
    assert worst <= 50


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (('id="wsolnb-state', 'data-lost="'), "its state is not in this page"),
        (('{"state": {', '{"state": {,'), "cannot be run"),
        (('"codes"]', '"cods"]'), "the maps of cam are incomplete"),
        (('"_pictures", 0, "jpeg"]', '"_pictures", 0, "jpg"]'), "image 0 cannot be read"),
    ],
    ids=["lost", "garbled", "maps", "image"],
)
def test_a_broken_page_says_so(page: Any, folder: Path, tmp_path: Path, damage: tuple[str, str], said: str) -> None:
    text = (folder / "demo-one.html").read_text(encoding="utf-8")
    assert text.count(damage[0]) >= 1
    (tmp_path / "broken.html").write_text(text.replace(*damage), encoding="utf-8")
    page.goto((tmp_path / "broken.html").as_uri())
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert said in alert.inner_text()


def test_index_lists_the_run(page: Any, folder: Path) -> None:
    page.context.set_offline(True)
    page.goto((folder / "index.html").as_uri())
    assert page.get_by_role("heading", name="demo-one").count() == 1
    sheet = page.get_by_alt_text("contact sheet of detections")
    assert sheet.evaluate("(image) => image.naturalHeight") > 500
    page.get_by_role("link", name="Open the notebook").click()
    page.wait_for_selector(ROOT)
