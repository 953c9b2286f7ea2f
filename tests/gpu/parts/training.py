"""Images per second of our training loop in bf16 and channels_last, and with torch.compile; memory at the peak."""

from __future__ import annotations

from gpu_parts import DEVICE, NETWORKS, TINY, row
from loop_rates import Work, loop_rate

BATCH, STEPS = (2, 2) if TINY else (64, 30)

for compiled in (False, True):
    for network, side in NETWORKS.items():
        with row(f"{network}, compiled" if compiled else network) as cells:
            rate = loop_rate(Work(network, side, BATCH, STEPS), DEVICE, "bf16-mixed", compiled)
            cells |= {"images/s": rate.images, "GB at the peak": rate.memory / 1e9}
