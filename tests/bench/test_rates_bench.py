"""Images per second that the loop trains on this machine, with the precision that it chooses here: a table."""

from __future__ import annotations

import pytest
import torch
from loop_rates import Work, loop_rate

from wsolnb.train.training import bfloat16_is_fast, resolve_device

SIDES = {"tiny": 64, "mobilenet_v2": 224, "resnet50": 224, "vgg16": 224}
BATCHES = {"cpu": {"tiny": 32, "mobilenet_v2": 8, "resnet50": 8, "vgg16": 4}}


@pytest.mark.bench
def test_images_per_second(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSOLNB_HEADLESS", "1")
    where = resolve_device()
    precision = "bf16-mixed" if bfloat16_is_fast(where) else "32-true"
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else f"{torch.get_num_threads()} threads"
    lines = [f"{where} ({name}), {precision}", "| network | side | batch | images/s |", "|---|---|---|---|"]
    for network, side in SIDES.items():
        batch = BATCHES.get(where.type, {}).get(network, 64)
        rate = loop_rate(Work(network, side, batch, steps=4 if where.type == "cpu" else 40), str(where), precision)
        lines.append(f"| {network} | {side} | {batch} | {rate.images:.{1 if rate.images < 100 else 0}f} |")
        assert rate.images > 0
    with capsys.disabled():
        print("\n" + "\n".join(lines))
