"""How fast the drawn world is drawn, truth included: a core draws images far faster than it learns from them.

Both rates depend on the processor: a core with AVX-512 drew over 1000 images a second, one without it 600 to 760. So
what is asked for is their ratio: drawing must never be what a training waits for.
"""

from __future__ import annotations

import time

import pytest
import torch
from loop_rates import Work, loop_rate

from wsolnb.data.critters import World
from wsolnb.train.training import bfloat16_is_fast

SIDE = 96


@pytest.mark.bench
def test_a_core_draws_more_than_twice_as_many_images_as_it_learns_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSOLNB_HEADLESS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        data = World(size=SIDE).singles(200)
        drawn = 0.0
        for _ in range(20):  # the first round also draws the bodies and marks, which are kept
            start = time.process_time()
            for index in range(200):
                data[index]
            drawn = max(drawn, 200 / (time.process_time() - start))
        precision = "bf16-mixed" if bfloat16_is_fast(torch.device("cpu")) else "32-true"
        learned = loop_rate(Work("tiny", SIDE, 32, steps=8), "cpu", precision).images
    finally:
        torch.set_num_threads(threads)
    print(f"{drawn:.0f} single images of {SIDE} px drawn per second and core, {learned:.0f} learned from")
    assert drawn >= 2 * learned
