"""`everything.sh` runs to its end without a GPU, loses nothing to a part that fails, and its table is as committed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SCRIPT = HERE / "everything.sh"
COUNTED = {"parity": 5, "peers": 3, "sweeping": 3, "localizing": 8, "training": 8, "recipe": 1}


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    import everything

    return everything


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    import table

    return table


@pytest.mark.slow
def test_it_runs_to_its_end_with_tiny_shapes(tmp_path: Path, table: Any) -> None:
    environment = {**os.environ, "WSOLNB_TINY": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTEST_ADDOPTS"] = f"--basetemp={tmp_path}"  # as of the run that this test belongs to
    results = tmp_path / "new" / "gpu.json"
    done = subprocess.run(["bash", str(SCRIPT), str(results)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(results.read_text())
    assert found["tiny"] is True
    assert {name: part["state"] for name, part in found["parts"].items()} == dict.fromkeys(COUNTED, "finished")
    for name, (_, rows, columns) in table.PARTS.items():
        shown = found["parts"][name]["rows"]
        named = [row for row in rows if row in shown]
        assert len(named) == COUNTED[name], name
        for row in named:
            missing = "torchcam" in shown[row].get("failed", "") or "pytorch_grad_cam" in shown[row].get("failed", "")
            assert missing or set(columns) <= set(shown[row]), (name, row, shown[row])
    page = table.table(found)
    rows = [line.split(" | ", 1)[1] for line in page.splitlines() if line.startswith("| ") and line[2] != "|"]
    assert len(rows) == sum(len(rows) for _, rows, _ in table.PARTS.values())
    assert {cell for row in rows for cell in row.strip(" |").split(" | ") if "failed" not in row} == {"not measured"}
    assert "Nobody has run it" in page


def test_a_part_that_fails_or_takes_too_long_keeps_its_rows(everything: Any) -> None:
    line = 'print(\'{"row": "a", "images/s": 2}\', flush=True); '
    for end, state, limit in (
        ("import time; time.sleep(60)", "stopped after 4 s", 4.0),
        ("import sys; sys.exit('no more memory')", "failed: no more memory", 60.0),
    ):
        outcome = everything.run_part([sys.executable, "-c", line + end], limit)
        assert outcome.rows == {"a": {"images/s": 2}}
        assert outcome.state == state


def test_failures_stand_in_the_table(table: Any) -> None:
    rows = {"torchcam, CAM": {"failed": "ModuleNotFoundError: No module named 'torchcam'"}}
    parts = {
        "peers": {"state": "failed: no more memory", "rows": rows | {"a forward pass alone": {"images/s": 1234.5}}}
    }
    lines = table.table({"tiny": False, "day": "2001-02-03", "machine": {"device": "A"}, "parts": parts}).splitlines()
    assert "| torchcam, CAM | failed: ModuleNotFoundError: No module named 'torchcam' |  |  |" in lines
    assert "| a forward pass alone | 1234 | not measured | not measured |" in lines
    assert "The part failed: no more memory." in lines
    assert "Measured on 2001-02-03: device A." in lines


def test_the_page_is_what_the_results_say(repo: Path, table: Any) -> None:
    results = repo / "docs" / "gpu.json"
    found = json.loads(results.read_text()) if results.exists() else {}
    assert (repo / "docs" / "gpu.md").read_text() == table.table(found)


def test_every_part_has_a_script_a_limit_and_rows(everything: Any, table: Any) -> None:
    assert set(everything.LIMITS) == set(table.PARTS) == {path.stem for path in (HERE / "parts").glob("*.py")}
    assert sum(everything.LIMITS.values()) <= 470
