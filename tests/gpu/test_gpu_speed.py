"""Our loop in bf16 and channels_last against a plain loop in single precision, in one run: speed and peak memory."""

from __future__ import annotations

import pytest
import torch
from loop_rates import Work, loop_rate, plain_rate


@pytest.mark.parametrize("network", ["resnet50", "vgg16"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.bench])])
def test_against_a_plain_loop(
    device: str, network: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSOLNB_HEADLESS", "1")
    if device == "cpu":  # nothing is measured here: what a GPU runs is known to run
        work = Work("resnet18" if network == "resnet50" else "squeezenet1_0", 64, batch=2, steps=2, epochs=1)
        assert loop_rate(work, device, "bf16-mixed").images > 0
        assert plain_rate(work, device).images > 0
        return
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    work = Work(network, 224, batch=64, steps=30)
    plain, ours = plain_rate(work, device), loop_rate(work, device, "bf16-mixed")
    with capsys.disabled():
        print(f"\n{torch.cuda.get_device_name()}, {network}, 224 px, batches of {work.batch}: ", end="")
        print(f"bf16 {ours.images:.0f} images/s with {ours.memory / 1e9:.2f} GB at the peak, ", end="")
        print(f"a plain loop in single precision {plain.images:.0f} images/s with {plain.memory / 1e9:.2f} GB")
    assert ours.images > plain.images
    assert ours.memory < plain.memory
