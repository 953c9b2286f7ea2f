"""Commands that are killed with SIGKILL, with all their processes, at random moments: nothing that was written is
damaged, and given again they end with what they would have written without."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torchvision
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from safetensors.torch import save_file
from tiny_notebook import write_tiny_notebook

from wsolnb.data.readers.protocol import ProtocolSplit, write_split

KILLS = 4
RECORD = """\
import time
from wsolnb.runs.record import record
time.sleep(0.3)
_ = record(out, {"n": n, "seed": seed}, {"a": {"m": n / 8 + seed}})
"""


def localizing(folder: Path) -> list[str]:
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (300, 400, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:02}.png")
    torch.manual_seed(0)
    save_file(torchvision.models.shufflenet_v2_x0_5(num_classes=3).state_dict(), folder / "net.safetensors")
    photos = sorted(path.name for path in folder.glob("*.png"))
    options = ["--model", "shufflenet_v2_x0_5", "--weights", "net.safetensors", "-o", "out", "--batch-size", "1"]
    return ["localize", *photos, *options, "--classes", "2", "--format", "coco", "--format", "yolo"]


def evaluating(folder: Path) -> list[str]:
    ids = tuple(f"{number}.jpg" for number in range(8))
    boxes = tuple(torch.tensor([[4, 4, 40, 40]]) for _ in ids)
    write_split(
        ProtocolSplit(ids, torch.zeros(8, dtype=torch.int64), torch.tensor([[64, 64]] * 8), boxes), folder / "split"
    )
    (folder / "maps").mkdir()
    for number, image in enumerate(ids):
        np.save(folder / "maps" / f"{image}.npy", np.random.default_rng(number).random((64, 64)))
    return ["eval", "maps", "--metadata", "split", "--out", "out"]


def reporting(folder: Path) -> list[str]:
    for name in ("a", "b", "c"):
        run = folder / "runs" / name
        (run / "figures").mkdir(parents=True)
        nbformat.write(new_notebook(cells=[new_code_cell(f"print({name!r})")]), run / "notebook.ipynb")
        Image.new("RGB", (1200, 900), "red").save(run / "figures" / "f.png")
        metrics = {"cam": {"ap25": {"value": 0.5}}}
        (run / "metrics.json").write_text(json.dumps({"parameters": {"name": name}, "metrics": metrics}))
    return ["report", "-o", "out"]


def sweeping(folder: Path) -> list[str]:
    write_tiny_notebook(folder, RECORD)
    (folder / "grid.yaml").write_text("n: [1, 2, 3, 4]\n")
    return ["sweep", "tiny.ipynb", "--grid", "grid.yaml", "--jobs", "2"]


def studying(folder: Path) -> list[str]:
    write_tiny_notebook(folder, RECORD)
    return ["study", "tiny.ipynb", "--seeds", "4", "--jobs", "2"]


CASES: list[tuple[Callable[[Path], list[str]], str, list[str]]] = [
    (localizing, "out", ["coco.json", "yolo/labels/11.txt", "overlays/11.png"]),
    (evaluating, "out", ["eval.json", "eval.csv", "table.md"]),
    (reporting, "out", ["results.csv", "index.html", "runs-a.html"]),
    (sweeping, "runs/tiny/grid", ["points.yaml"]),
    (studying, "runs/tiny/study", ["study.csv", "parameters.yaml"]),
]


def start(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from wsolnb.cli.app import app; app()", *arguments]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **streams)  # type: ignore[call-overload]


def whole(path: Path) -> None:
    """Fail if a file is damaged, as a reader of its kind finds it."""
    if path.suffix in (".json", ".ipynb"):
        json.loads(path.read_text())
    elif path.suffix == ".jsonl":
        for line in path.read_text().splitlines()[:-1]:
            json.loads(line)
    elif path.suffix == ".png":
        Image.open(path).load()
    elif path.suffix == ".csv":
        with path.open() as file:
            assert len({len(row) for row in csv.reader(file)}) == 1, path
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith((">", "</p>")), path


@pytest.mark.slow
@pytest.mark.parametrize(("prepare", "out", "same"), CASES, ids=[case[0].__name__ for case in CASES])
def test_killed_at_random_moments(
    prepare: Callable[[Path], list[str]], out: str, same: list[str], tmp_path: Path
) -> None:
    (tmp_path / "whole").mkdir()
    arguments = prepare(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    began = time.monotonic()
    with start(arguments, tmp_path / "whole") as process:
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    seconds, moments, ended = time.monotonic() - began, random.Random(0), False
    for _ in range(KILLS):
        with start(arguments, tmp_path / "killed") as process:
            try:  # the later, the more there is to lose
                ended = process.wait(seconds * moments.uniform(0.3, 1)) == 0
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        for path in (tmp_path / "killed").rglob("*"):
            if path.is_file() and not path.name.endswith(".partial"):
                whole(path)
        result = tmp_path / "killed" / out
        if out == "out" and not (result / "unfinished.jsonl").exists():  # killed when all was written: refused again
            ended |= prepare is not reporting and all((result / name).exists() for name in same)
        if ended:
            break
    if not ended:
        with start(arguments, tmp_path / "killed") as process:
            _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    for name in same:
        made, wanted = (tmp_path / folder / out / name for folder in ("killed", "whole"))
        assert made.read_bytes() == wanted.read_bytes(), name
