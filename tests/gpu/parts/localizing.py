"""Images per second of `localize`, in bf16 and channels_last, and with a compiled backbone; memory at the peak."""

from __future__ import annotations

from statistics import median

import torch
from gpu_parts import DEVICE, NETWORKS, TINY, row
from loop_rates import CLASSES, forget, peak
from turns import rounds

from wsolnb.inference.localize import localize
from wsolnb.models.cam import Classifier, classifier

BATCH, TURNS = (2, 1) if TINY else (64, 20)


@torch.no_grad()
def rate(net: Classifier, images: torch.Tensor) -> float:
    """Images per second from images on the device to boxes on the device."""
    with torch.autocast(DEVICE, torch.bfloat16):
        times = rounds(TURNS, DEVICE, ours=lambda: localize(net, images))
    return len(images) / median(times["ours"])


for compiled in (False, True):
    for network, side in NETWORKS.items():
        with row(f"{network}, compiled" if compiled else network) as cells:
            forget(torch.device(DEVICE))
            net = classifier(network, CLASSES, seed=0).eval().to(DEVICE, memory_format=torch.channels_last)
            if compiled:
                net.backbone.compile()
            images = torch.rand(BATCH, 3, side, side).to(DEVICE, memory_format=torch.channels_last)
            cells |= {"images/s": rate(net, images), "GB at the peak": peak(torch.device(DEVICE)) / 1e9}
