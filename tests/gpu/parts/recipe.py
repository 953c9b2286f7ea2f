"""Two seeds of a recipe between toy and paper, both at once, as a person runs it: seconds, and scores of the maps."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from gpu_parts import TINY, row

KEY, RECIPE, SEEDS = "barz2022", "drawn-128-resnet18", (0,) if TINY else (0, 1)
METHODS = ("cam", "dcm-onehot", "dcm-semantic")
SHAPES = {"train_images": 112, "tune_images": 8, "test_images": 8, "image_size": 32, "epochs": 1, "draws": 20,
          "workers": 0} if TINY else {}  # fmt: skip

with tempfile.TemporaryDirectory() as folder:
    runs = {}
    for seed in SEEDS:
        command = [sys.executable, "-m", "wsolnb", "run", KEY, "--recipe", RECIPE, "--out", folder, "--name", f"{seed}"]
        for name, value in {**SHAPES, "seed": seed}.items():
            command += ["-p", name, str(value)]
        with Path(folder, f"{seed}.log").open("wb") as log:
            runs[seed] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    for seed, run in runs.items():
        with row(f"seed {seed}") as cells:
            if run.wait():
                raise RuntimeError(Path(folder, f"{seed}.log").read_text(errors="replace").strip().splitlines()[-1])
            found = json.loads(Path(folder, KEY, str(seed), "metrics.json").read_text())
            cells["seconds"] = found["wall_time"]
            for method in METHODS:
                cells[f"AP25 of {method}"] = found["metrics"][method]["ap25"]["value"]
