"""Processes that train together decode an image once, and all of them have what one process has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import read_together
import torch


@pytest.mark.slow
def test_every_process_reads_its_share_and_has_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WSOLNB_HEADLESS": "1", "WSOLNB_CACHE": str(tmp_path / "3")}
    subprocess.run([*command, read_together.__file__, str(tmp_path)], env=environment, check=True, timeout=120)
    together = [torch.load(tmp_path / f"{rank}.pt") for rank in range(3)]
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path / "1"))
    for name, (decoded, expected) in read_together.results().items():
        assert sorted(index for result in together for index in result[name][0]) == decoded
        for result in together:
            assert len(result[name][1]) == len(expected)
            for got, alone in zip(result[name][1], expected, strict=True):
                torch.testing.assert_close(got, alone)
    assert [len(result["read_objects"][0]) for result in together] == [4, 4, 3]
