"""A training step at the paper's size: VGG16 with thresholded pooling, 224 px; prints images per second."""

from __future__ import annotations

import time

import pytest
import torch

from wsolnb.losses import CrossEntropy
from wsolnb.models.cam import classifier
from wsolnb.papers.bae2020.masking import attention_dropout, hide_and_seek
from wsolnb.papers.bae2020.pooling import ThresholdedAveragePooling

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_a_full_size_training_step_runs(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    batch = 40 if device == "cuda" else 4
    net = classifier("vgg16_gap", 200, pool=ThresholdedAveragePooling(0.1))
    net.backbone = hide_and_seek(attention_dropout(net.backbone), patch=32)
    net.to(device).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.003, momentum=0.9, nesterov=True, weight_decay=5e-4)
    images, labels = torch.rand(batch, 3, 224, 224, device=device), torch.arange(batch, device=device)
    losses = []
    for step in range(3):
        if step == 1:  # the first step warms up
            started = time.perf_counter()
        loss = CrossEntropy()(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())  # waits for the device
    rate = 2 * batch / (time.perf_counter() - started)
    with capsys.disabled():
        print(f"\nvgg16_gap, 224 px, HaS, ADL and TAP on {device}: {rate:.1f} images/s")
    assert all(0 < value < 20 for value in losses)
