"""How fast the loop trains a network on random images: images per second, and memory on a GPU."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import get_model

from wsolnb.losses import CrossEntropy
from wsolnb.models.cam import classifier
from wsolnb.train import Plan
from wsolnb.train.checkpoint import Checkpoint
from wsolnb.train.loop import Loop
from wsolnb.train.training import _fabric

CLASSES = 200


@dataclass(frozen=True)
class Work:
    """A training on random images: `epochs` of them are measured, after one to warm up."""

    network: str
    side: int
    batch: int
    steps: int
    epochs: int = 2

    def images(self) -> TensorDataset:
        count = self.batch * self.steps
        pixels = torch.randint(256, (self.batch, 3, self.side, self.side), dtype=torch.uint8)
        return TensorDataset(pixels.expand(self.steps, *pixels.shape).flatten(0, 1), torch.arange(count) % CLASSES)


@dataclass(frozen=True)
class Rate:
    """Images per second of the fastest epoch, and bytes at the peak; 0 where that is not known."""

    images: float
    memory: int


def loop_rate(work: Work, device: str, precision: str, compiled: bool = False) -> Rate:
    """Our loop: channels_last, and the precision asked for."""
    where = torch.device(device)
    net, plan = classifier(work.network, CLASSES), Plan(1 + work.epochs, work.batch, lr=1e-4)
    forget(where)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder, "checkpoint"), "rate", "rate")
        fabric, data = _fabric(where, precision), work.images()
        history = Loop(fabric, net, data, CrossEntropy(), plan, checkpoint, compile=compiled).run()
    return Rate(max(row["images_per_second"] for row in history[1:]), peak(where))


def plain_rate(work: Work, device: str) -> Rate:
    """The loop of a tutorial: torchvision's network in single precision, a DataLoader, no memory format."""
    where = torch.device(device)
    net = get_model(work.network, weights=None, num_classes=CLASSES).to(where).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)
    loader = DataLoader(work.images(), work.batch, shuffle=True, pin_memory=where.type == "cuda")
    forget(where)
    best = 0.0
    for epoch in range(1 + work.epochs):
        started = time.perf_counter()
        for images, labels in loader:
            loss = torch.nn.functional.cross_entropy(net(images.to(where).float() / 255), labels.to(where))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
            optimizer.step()
        loss.item()  # waits for a GPU
        rate = work.batch * work.steps / (time.perf_counter() - started)
        best = max(best, rate) if epoch else best
    return Rate(best, peak(where))


def forget(where: torch.device) -> None:
    """Let a GPU start to count its peak anew."""
    if where.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(where)


def peak(where: torch.device) -> int:
    """Bytes at the peak since `forget`."""
    return torch.cuda.max_memory_allocated(where) if where.type == "cuda" else 0
