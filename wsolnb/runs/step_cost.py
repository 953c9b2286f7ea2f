"""What a step of training costs: counted on tensors without values, the same on every machine, or measured here."""

from __future__ import annotations

import statistics
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from wsolnb.losses import MultiLabelCrossEntropy
from wsolnb.runs.trainings import Training
from wsolnb.train.training import bfloat16_is_fast, resolve_device

_STEPS = 5  # measured, after one that warms up
_PATIENCE = 10.0  # seconds, after which three have to do
_CPU_WORK = 1e11  # operations of a measured step on a CPU, where the time of more images is in proportion


@dataclass(frozen=True)
class Cost:
    """What one training of a kind needs, counted.

    Args:
        weights: Of the network, trained or not.
        trained: Those that are trained.
        operations: Floating-point operations per image, forward and backward, of convolutions and matrix products.
        memory: Peak bytes of one process: weights, gradients, the optimizer's state, and what is kept for the backward
            pass. What a library needs inside an operation, and images that wait for their turn, are not counted.
        checkpoint: Bytes of a checkpoint: network, optimizer and what belongs to the objective.
    """

    weights: int
    trained: int
    operations: int
    memory: int
    checkpoint: int


def count(training: Training, images: int, *, mixed: bool, processes: int = 1) -> Cost:
    """Count what a training costs whose passes take so many images.

    Nothing is computed: the network is built on torch's `meta` device. `mixed`: passes in bfloat16, of weights kept in
    32 bits. Several `processes` keep one more copy of the gradients, to exchange them.

    Example:
        >>> from wsolnb.models.cam import classifier
        >>> from wsolnb.runs.images_seen import Images
        >>> tiny = Training("cam", "tiny", lambda: classifier("tiny", 5), Images(100, 5), 6, batch=2, side=48)
        >>> cost = count(tiny, 2, mixed=False)
        >>> cost.weights, cost.trained, cost.checkpoint
        (162509, 162509, 1300072)
    """
    with torch.device("meta"):
        ways = [build().to("meta") for build in (training.network, *training.turns)]
        objective = training.objective() if training.embed else None
    other = list(objective.to("meta").parameters()) if isinstance(objective, nn.Module) else []
    network = ways[0]
    weights = sum(weight.numel() for weight in network.parameters())
    trained = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    beside = sum(weight.numel() for weight in other)
    passes = [_pass(training, way, objective, images, mixed) for way in ways]
    moments = (2 if training.adam else 1) * trained
    state = 4 * (weights + beside + trained + moments)
    memory = state + max(kept for _, kept in passes) + (2 * (weights + beside) if mixed else 0)
    memory += 4 * trained if processes > 1 else 0
    operations = sum(done for done, _ in passes) // len(passes) // images
    return Cost(weights, trained, operations, memory, 4 * (weights + moments + beside))


def _pass(training: Training, network: nn.Module, objective: Any, images: int, mixed: bool) -> tuple[int, int]:
    """Operations of a pass there and back, and the bytes that it keeps in between."""
    operations = 0
    kept: dict[int, int] = {}
    alive: list[Any] = []  # so that no other storage takes the place of a kept one

    def work(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal operations
        ways = 1 + layer.weight.requires_grad + inputs[0].requires_grad
        operations += 2 * ways * output.numel() * layer.weight[0].numel()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes() // (2 if mixed and tensor.dtype == torch.float32 else 1)
        alive.append(storage)
        return tensor

    parts = [network.train(), *([objective] if objective is not None else [])]
    layers = [each for part in parts for each in part.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(work) for layer in layers]
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        pixels = torch.empty(images, 3, training.side, training.side, device="meta")
        outputs = network(pixels)
        if training.embed:
            training.embed(objective, outputs, pixels)
    for hook in hooks:
        hook.remove()
    for weight in (weight for part in parts for weight in part.parameters()):
        kept.pop(weight.untyped_storage()._cdata, None)
    return operations, sum(kept.values())


@dataclass(frozen=True)
class Measured:
    """Steps that were taken: seconds of a process's share of a batch."""

    median: float
    fastest: float
    slowest: float
    steps: int
    images: int  # in a measured step; seconds are scaled from them to the share
    memory: int | None  # peak bytes on a GPU
    device: str


def measure(
    training: Training, cost: Cost, share: int, *, device: str = "auto", precision: str = "auto", parts: int = 1
) -> Measured:
    """Take steps on random images: network, objective and optimizer as in the training, on one device.

    On a GPU a step has the images that a process has of a batch, in `parts` whose gradients are averaged; on a CPU so
    many that it takes some seconds at most by its `cost`, two at least. From one part or few images the time is scaled.
    Loading images, and exchanging gradients with other processes, is not included.

    Raises:
        ValueError: If the device does not exist, or a step does not fit into its memory.

    Example:
        >>> from wsolnb.models.cam import classifier
        >>> from wsolnb.runs.images_seen import Images
        >>> tiny = Training("cam", "tiny", lambda: classifier("tiny", 5), Images(100, 5), 6, batch=2, side=48)
        >>> measured = measure(tiny, count(tiny, 2, mixed=False), 2, device="cpu")
        >>> measured.steps, measured.images, measured.fastest <= measured.median <= measured.slowest
        (5, 2, True)
    """
    target = resolve_device(device)
    gpu = target.type == "cuda"
    images = -(-share // parts)
    images = images if gpu else min(images, max(2, int(_CPU_WORK // cost.operations)))
    mixed = precision == "bf16-mixed" or (precision == "auto" and bfloat16_is_fast(target))
    seconds: list[float] = []
    try:
        ways = [_Stepper(training, build, images, target, mixed) for build in (training.network, *training.turns)]
        if gpu:
            torch.cuda.reset_peak_memory_stats(target)
        begun = time.perf_counter()
        for number in range(1 + _STEPS):
            taken = statistics.fmean(way.step() for way in ways)
            if number:
                seconds.append(taken * share / images)
            if len(seconds) >= 3 and time.perf_counter() - begun > _PATIENCE:
                break
    except torch.OutOfMemoryError:
        size = f"{images} images of {training.side} px through {training.model}"
        raise ValueError(f"a step of {size} does not fit into the memory of {target}: raise accumulate") from None
    memory = torch.cuda.max_memory_allocated(target) if gpu else None
    middle = statistics.median(seconds)
    return Measured(middle, min(seconds), max(seconds), len(seconds), images, memory, str(target))


class _Stepper:
    def __init__(self, training: Training, build: Any, images: int, device: torch.device, mixed: bool) -> None:
        self.network = build().to(device).to(memory_format=torch.channels_last).train()
        self.objective = training.objective()
        if isinstance(self.objective, nn.Module):
            self.objective.to(device)
        weights = [weight for weight in self.network.parameters() if weight.requires_grad]
        kind: Any = torch.optim.Adam if training.adam else torch.optim.SGD
        self.optimizer = kind(weights, lr=1e-9) if training.adam else kind(weights, lr=1e-9, momentum=0.9)
        self.images = torch.rand(images, 3, training.side, training.side, device=device)
        classes = training.images.classes or 100
        self.labels = torch.arange(images, device=device) // 2 % classes  # pairs, as CoAug needs them
        if isinstance(self.objective, MultiLabelCrossEntropy):
            self.labels = nn.functional.one_hot(self.labels, classes).float()
        self.device, self.mixed = device, mixed

    def step(self) -> float:
        """Seconds of a step."""
        mixed: AbstractContextManager[Any] = nullcontext()
        if self.mixed:
            mixed = torch.autocast(self.device.type, torch.bfloat16)
        self._wait()
        started = time.perf_counter()
        with mixed:
            loss = self.objective(self.network(self.images), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
