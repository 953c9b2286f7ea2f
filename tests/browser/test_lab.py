"""JupyterLab with a real kernel: sliders move, boxes change, and the state reaches Python and comes back."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from actions import ROOT, agrees, follows_the_hand, found, slide

from wsolnb.runs.paper import Paper

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
CELLS = [
    "from example import example\nexplorer = example()\nexplorer",
    "heard = []\nexplorer.observe(lambda change: heard.append(change['name']))",
]
SETTINGS: dict[str, Any] = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
_ASK = """async (code) => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const future = kernel.requestExecute({ code });
  let text = "";
  future.onIOPub = (message) => (text += message.content.text ?? (message.content.evalue ?? ""));
  await future.done;
  return text;
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A JupyterLab server that knows nothing of the user's settings; its address."""
    root = tmp_path_factory.mktemp("lab")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), root / "demo.ipynb")
    shutil.copy(Paper("barz2022").notebook, root / "paper.ipynb")
    _shorten(root / "paper.ipynb", Paper("barz2022").recipe("smoke"))
    for plugin, values in SETTINGS.items():
        path = root / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    places = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime"}
    environment = {**os.environ, **{f"JUPYTER_{key}": str(root / value) for key, value in places.items()}}
    environment |= {"JUPYTERLAB_SETTINGS_DIR": str(root / "settings"), "IPYTHONDIR": str(root / "ipython")}
    environment |= {"JUPYTERLAB_WORKSPACES_DIR": str(root / "workspaces"), "WSOLNB_HEADLESS": "0"}
    search = [str(Path(__file__).parent), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, search))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0", "--LabApp.news_url=None",
               "--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={root}",
               "--LabApp.extension_manager=readonly"]  # fmt: skip
    with (root / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=environment, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(server, address, root / "server.log")
        yield address
    finally:
        server.terminate()
        server.wait(timeout=20)


def _shorten(path: Path, parameters: dict[str, Any]) -> None:
    """Put other parameters behind those of a notebook, as a run does."""
    notebook = nbformat.read(path, as_version=4)
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    lines = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(lines))
    nbformat.write(notebook, path)


def _wait_for(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/api/status", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture
def notebook(page: Any, lab: str) -> Any:
    """The short notebook, run in JupyterLab."""
    return opened(page, lab, "demo.ipynb")


def opened(page: Any, lab: str, name: str) -> Any:
    """Open a notebook and run all its cells."""
    page.set_default_timeout(180_000)
    page.goto(f"{lab}/lab/tree/{name}?reset")
    page.wait_for_function(
        "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    )
    assert page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')"), errors(page)
    page.wait_for_selector(ROOT)
    return page


def errors(page: Any) -> list[str]:
    return page.evaluate(
        """() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells
             .flatMap((cell) => cell.outputs ?? []).map((output) => output.evalue).filter(Boolean)"""
    )


def ask(page: Any, code: str) -> Any:
    """Run code in the notebook's kernel; what it prints, as JSON."""
    text = page.evaluate(_ASK, code)
    try:
        return json.loads(text)
    except ValueError:
        raise AssertionError(f"{code}: {text}") from None


def wait_until(page: Any, code: str, wanted: Any) -> None:
    for _ in range(100):
        if ask(page, f"import json; print(json.dumps({code}))") == wanted:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{code} did not become {wanted}")


def test_state_goes_both_ways(notebook: Any, pictures: Path) -> None:
    assert errors(notebook) == []
    for threshold in (0.1, 0.62):
        slide(notebook, "cam", threshold)
        wait_until(notebook, "explorer.thresholds['cam']", threshold)
        table = pd.DataFrame(ask(notebook, "print(explorer.table().to_json(orient='records'))"))
        classes = ask(notebook, "import json; print(json.dumps(explorer._classes))")
        agrees(found(notebook), table.astype({"iou": float, "score": float}), classes)
    assert "thresholds" in ask(notebook, "import json; print(json.dumps(heard))")

    ask(notebook, "explorer.image = 5; explorer.labels = [1]; explorer.methods = ['dcm']; print(0)")
    notebook.wait_for_selector(".wsolnb-explorer[data-image='5']")
    notebook.locator("canvas[data-method=cam]").first.wait_for(state="detached")
    notebook.wait_for_function(
        "(root) => document.querySelector(root).found.dcm.every((box) => box.label === 1)", arg=ROOT
    )
    assert notebook.locator("input[data-name=class][data-value='1']").is_checked()

    ask(notebook, "explorer.image, explorer.labels, explorer.methods = 2, [], ['cam', 'dcm']; print(0)")
    ask(notebook, "explorer.thresholds, explorer.view = {'cam': 0.3}, 'classes'; print(0)")
    notebook.wait_for_selector(".wsolnb-explorer[data-image='2']")
    slider = notebook.locator("input[data-name=threshold][data-method=cam]")
    notebook.wait_for_function("(node) => node.value === '0.3'", arg=slider.element_handle())
    for theme in ("Light", "Dark"):
        notebook.evaluate(
            "(t) => window.jupyterapp.commands.execute('apputils:change-theme', { theme: t })", f"JupyterLab {theme}"
        )
        if notebook.locator("#jp-left-stack").is_visible():
            notebook.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
        notebook.wait_for_timeout(700)
        notebook.screenshot(path=pictures / f"lab-{theme.lower()}.png")


def test_follows_the_hand_frame_by_frame(notebook: Any) -> None:
    median, worst = follows_the_hand(notebook)
    print(f"JupyterLab: median {median:.1f} ms, worst {worst:.1f} ms")
    assert median <= 20
    assert worst <= 50


def test_a_papers_notebook_runs_and_its_explorer_answers(page: Any, lab: str) -> None:
    opened(page, lab, "paper.ipynb")
    assert errors(page) == []
    page.locator(ROOT).scroll_into_view_if_needed()
    method = ask(page, "import json; print(json.dumps(explorer.methods[0]))")
    slide(page, method, 0.45)
    wait_until(page, f"explorer.thresholds[{method!r}]", 0.45)
    table = pd.DataFrame(ask(page, "print(explorer.table().to_json(orient='records'))"))
    classes = ask(page, "import json; print(json.dumps(explorer._classes))")
    agrees(found(page), table.astype({"iou": float, "score": float}), classes)
