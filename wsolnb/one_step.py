"""One step of a training that was never begun: what it takes in time and memory on this machine."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

_FEW = 4  # images of the step on a processor


@dataclass(frozen=True)
class Training:
    """One kind of training of a run.

    Attributes:
        what: What is trained.
        network: Name of the backbone.
        images: How many images an epoch has, or None if that is not known here.
        epochs: Passes over them.
        batch: Images per step.
        side: Side of the images in pixels.
        stride: Pixels per cell of the features, or None for the backbone's own.
        times: How many trainings of this kind.
        frozen: Whether the backbone keeps its weights.
        objects: Whether every object is an image of its own, so that an epoch has at least that many.
    """

    what: str
    network: str
    images: int | None
    epochs: int
    batch: int
    side: int
    stride: int | None = None
    times: int = 1
    frozen: bool = False
    objects: bool = False

    @property
    def steps(self) -> int | None:
        """Steps of all trainings of this kind, or None if the number of images is not known.

        Example:
            >>> Training("cam", "tiny", images=100, epochs=6, batch=32, side=64, times=2).steps
            48
        """
        return None if self.images is None else self.times * self.epochs * math.ceil(self.images / self.batch)


@dataclass(frozen=True)
class Step:
    """One step of training that was taken.

    Attributes:
        seconds: How long a whole batch takes.
        memory: Bytes that it needs at its peak: weights, gradients, momentum and what the backward pass keeps.
        parameters: Number of weights.
        measured: Images of the step that was taken; time and memory were scaled from there.
        device: Where.
    """

    seconds: float
    memory: int
    parameters: int
    measured: int
    device: str


def measure_step(training: Training, classes: int, *, device: str = "auto", precision: str = "auto") -> Step:
    """Take a step of a training with random images: the backbone with a linear head and cross-entropy.

    On a GPU it is a whole batch; on a processor a few images, from which time and memory are scaled in proportion. What
    a paper puts on top (more heads, a second network) is not in it.

    Args:
        training: The training.
        classes: Number of classes.
        device: As in the notebooks.
        precision: The same; ``auto`` is ``bf16-mixed`` on a GPU.

    Raises:
        ValueError: If the device is not there, or a batch does not fit into its memory.

    Example:
        >>> step = measure_step(Training("cam", "tiny", 100, 6, batch=2, side=48), 5, device="cpu")
        >>> step.measured, step.parameters
        (2, 162509)
    """
    import torch
    from torch.nn.functional import cross_entropy

    from wsolnb.models.cam import classifier
    from wsolnb.train import resolve_device

    where = resolve_device(device)
    gpu = where.type == "cuda"
    count = training.batch if gpu else min(training.batch, _FEW)
    net = classifier(training.network, classes, stride=training.stride).to(where).train()
    if training.frozen:
        net.backbone.requires_grad_(False)
    learn = [weight for weight in net.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(learn, lr=1e-6, momentum=0.9)
    images = torch.rand(count, 3, training.side, training.side, device=where)
    labels = torch.zeros(count, dtype=torch.int64, device=where)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    mixed = precision == "bf16-mixed" or (gpu and precision == "auto")
    try:
        for _ in range(2):  # the first warms up
            kept.clear()
            if gpu:
                torch.cuda.reset_peak_memory_stats(where)
                torch.cuda.synchronize(where)
            started = time.perf_counter()
            with (
                torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
                torch.autocast(where.type, torch.bfloat16, enabled=mixed),
            ):
                loss = cross_entropy(net(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if gpu:
                torch.cuda.synchronize(where)
            seconds = time.perf_counter() - started
    except torch.OutOfMemoryError:
        size = f"{count} images of {training.side} px through {training.network}"
        raise ValueError(f"a step of {size} does not fit into the memory of {where}: lower batch_size") from None
    weights = sum(weight.nbytes for weight in net.parameters())
    state = weights + 2 * sum(weight.nbytes for weight in learn)
    owned = {weight.untyped_storage().data_ptr() for weight in net.parameters()}
    activations = sum(size for pointer, size in kept.items() if pointer not in owned)
    scale = training.batch / count
    memory = torch.cuda.max_memory_allocated(where) if gpu else int(state + scale * activations)
    return Step(seconds * scale, memory, sum(weight.numel() for weight in net.parameters()), count, str(where))
