"""Trainings in separate processes, to be killed: forks of a server that has imported everything.

The server reads JSON lines: `{"cache": ..., ...}` starts a training and answers with its process id, `{"wait": id}`
answers with the exit status of one, negative for a signal.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class Server:
    """Starts trainings and waits for them."""

    def __init__(self) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "WSOLNB_HEADLESS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def _request(self, **message: Any) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(message), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def start(self, cache: Path, **options: Any) -> int:
        cache.mkdir(exist_ok=True)
        return self._request(cache=str(cache), **options)

    def wait(self, process: int) -> int:
        return self._request(wait=process)

    def train(self, cache: Path, **options: Any) -> int:
        return self.wait(self.start(cache, **options))

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def result(cache: Path) -> tuple[list[dict[str, float]], str]:
    """History (without speeds) and hash of the weights of a finished training, which leaves no other files."""
    (path,) = (cache / "weights").glob("*.json")
    record = json.loads(path.read_text())
    assert path.with_suffix(".safetensors").is_file()
    assert not [*cache.rglob("*.checkpoint"), *cache.rglob("*.partial"), *cache.rglob("*.lock")]
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in record["history"]], record["sha256"]


def _train(cache: str, seed: int = 0, every: float = 0.0, slow: float = 0.0, room: int = 0, die: str = "") -> None:
    """Train 3 epochs of 6 steps.

    `every`: seconds between checkpoints; `slow`: seconds per image; `room`: largest size of a file;
    `die`: `torn 3`, `replace 3` or `replaced 3`: be killed when the third file is half written, complete but not yet
    renamed, or just renamed.
    """
    import numpy as np
    import torch
    from torch import nn
    from torch.utils.data import Dataset

    import wsolnb.train.loop
    from wsolnb.losses import CrossEntropy
    from wsolnb.train import AdamPlan, train

    class Noise(Dataset[Any]):
        classes = ("a", "b")

        def __len__(self) -> int:
            return 22

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            time.sleep(slow)
            image = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(index))
            return image + torch.rand(3, 1, 1) + random.random() + float(np.random.rand()), index % 2

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.Linear(32, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(nn.functional.dropout(self.norm(self.conv(images)).mean((2, 3)), 0.3, self.training))

    torch.set_num_threads(1)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(seed)
    os.environ["WSOLNB_CACHE"] = cache
    signal.signal(signal.SIGINT, signal.default_int_handler)
    wsolnb.train.loop.SAVE_EVERY = every
    if room:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    if die:
        _die(*die.split())
    train(Net(), Noise(), CrossEntropy(), AdamPlan(3, 4, lr=0.01), device="cpu", precision="32-true")


def _die(how: str, turn: str) -> None:
    fsync, replace, files = os.fsync, os.replace, iter(range(1, 10**6))

    def torn(file: int) -> None:
        if next(files) == int(turn):
            os.ftruncate(file, os.fstat(file).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(file)

    def renamed(source: Path, target: Path) -> None:
        last = next(files) == int(turn)
        if not last or how == "replaced":
            replace(source, target)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)

    if how == "torn":
        os.fsync = torn
    else:
        os.replace = renamed  # type: ignore[assignment]


def _serve() -> None:
    import wsolnb.train  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]), flush=True)
        elif child := os.fork():
            print(child, flush=True)
        else:
            log = os.open(Path(request["cache"]) / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = 0
            try:
                _train(**request)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}")
                code = 1
            sys.stdout.flush()
            os._exit(code)


if __name__ == "__main__":
    _serve()
