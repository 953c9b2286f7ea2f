"""How fast the drawn world is drawn: at least 1000 single images of 96 px per second and core, truth included."""

from __future__ import annotations

import time

import pytest
import torch

from wsolnb.data.critters import World


@pytest.mark.bench
def test_a_core_draws_a_thousand_singles_per_second() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    data = World(size=96).singles(200)
    best = 0.0
    for _ in range(20):  # the first round also draws the bodies and marks, which are kept
        start = time.process_time()
        for index in range(200):
            data[index]
        best = max(best, 200 / (time.process_time() - start))
    torch.set_num_threads(threads)
    print(f"{best:.0f} single images of 96 px per second and core")
    assert best >= 1000
