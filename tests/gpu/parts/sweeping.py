"""Does MaxBoxAcc's sweep over 1000 thresholds keep up with the device? ResNet-50's maps of the true class, 224 px.

The device computes the maps of the next batch while the processor sweeps those of this one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from gpu_parts import DEVICE, TINY, row
from loop_rates import CLASSES
from torch import Tensor

from wsolnb.boxes.quantise import quantise
from wsolnb.localization.maps import stretched
from wsolnb.localization.read import true_class_reader
from wsolnb.metrics import MaxBoxAcc
from wsolnb.models.cam import classifier

NETWORK, BATCH, SIDE, BATCHES = ("tiny", 2, 64, 2) if TINY else ("resnet50", 64, 224, 30)
net = classifier(NETWORK, CLASSES, seed=0).eval().to(DEVICE, memory_format=torch.channels_last)
reader = true_class_reader(net, net.head.weight)
images = torch.rand(BATCH, 3, SIDE, SIDE).to(DEVICE, memory_format=torch.channels_last)
labels = list(torch.arange(BATCH, device=DEVICE)[:, None] % CLASSES)
boxes = [torch.tensor([[SIDE / 4, SIDE / 4, SIDE / 2, SIDE / 1.5]])] * BATCH


@torch.inference_mode()
def begun() -> tuple[Tensor, Callable[[], object]]:
    """Grey maps on their way to the processor, and what waits until they are there."""
    with torch.autocast(DEVICE, torch.bfloat16):
        maps, _ = reader(images, labels)
    grey = quantise(stretched(maps[:, 0], (SIDE, SIDE)))
    if DEVICE == "cpu":
        return grey, lambda: None
    arrived, host = torch.cuda.Event(), torch.empty(grey.shape, dtype=grey.dtype, pin_memory=True)
    host.copy_(grey, non_blocking=True)
    arrived.record()
    return host, arrived.synchronize


def alone() -> None:
    for _ in range(BATCHES):
        _, wait = begun()
        wait()


def swept() -> None:
    for _ in range(BATCHES):
        MaxBoxAcc().update(grey, boxes)


def one_behind_the_other() -> None:
    following = begun()
    for left in reversed(range(BATCHES)):
        (maps, wait), following = following, begun() if left else following
        wait()
        MaxBoxAcc().update(maps, boxes)


with row("warm-up") as cells:
    grey, ready = begun()
    ready()
    MaxBoxAcc().update(grey, boxes)

for name, work in {
    "device alone": alone,
    "sweep alone": swept,
    "sweep behind the device": one_behind_the_other,
}.items():
    with row(name) as cells:
        start = time.perf_counter()
        work()
        cells |= {"images/s": BATCH * BATCHES / (time.perf_counter() - start)}
