"""Training, the same for all papers: on one device or many, cached, and sure to go on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import lightning_fabric
import torch
from filelock import FileLock, Timeout
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from torch import nn
from torch.utils.data import Dataset, Sampler

from wsolnb._utils.cache import cache_folder, fingerprint
from wsolnb._utils.files import read_tensors, tensor_bytes, write_whole
from wsolnb.data.readers.images import Readable
from wsolnb.losses import Objective
from wsolnb.train.checkpoint import Checkpoint, restore_module
from wsolnb.train.loop import Loop
from wsolnb.train.plans import Plan
from wsolnb.train.sharding import sharding, whole

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces every choice of precision


@dataclass
class Training:
    """What a training gave: one record per epoch, and where the weights are kept."""

    history: list[dict[str, float]] = field(default_factory=list)
    weights: Path | None = None
    cached: bool = False


def resolve_device(device: str = "auto") -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:1` or `mps` into a device of this machine.

    Raises:
        ValueError: If this machine has no such device (those it has are named).

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    here = ["cpu"]
    if torch.cuda.is_available():
        here = [f"cuda:{i}" for i in range(torch.cuda.device_count())] + here
    elif torch.backends.mps.is_available():
        here = ["mps", *here]
    if device == "auto":
        return torch.device(here[0])
    if device not in (*here, *(["cuda"] if here[0] == "cuda:0" else [])):
        raise ValueError(f"device {device!r} is not there; this machine has {', '.join(here)}")
    return torch.device(device)


def train(
    model: nn.Module,
    dataset: Dataset[Any],
    objective: Objective,
    plan: Plan,
    *,
    batches: Sampler[list[int]] | None = None,
    device: str = "auto",
    precision: str = "auto",
    workers: int = 0,
    accumulate: int = 1,
    compile: bool = False,
    strategy: str = "ddp",
    retrain: bool = False,
) -> Training:
    """Train a classifier, or take its weights from the cache if the very same training was done.

    The key of the cache covers model and initial weights, data, objective, plan, precision and version. While it
    trains, a checkpoint is kept: after every epoch, within long epochs every five minutes, and when Ctrl-C or SIGTERM
    comes. A training that was stopped, or killed at any moment, goes on from there when it is started again, and ends
    as if nothing had happened. Of two that train the same at once, the second waits for the first.

    Under `torchrun`, all processes train together (DDP), each on a device of its own; all need to see the same cache
    folder. With random batches, n processes see the batches that one would take with n times the batch size, and
    follow it to rounding; only batch normalisation looks at the images of its own process alone. The same holds for
    n times as many batches accumulated.

    Args:
        model: Gives outputs `(B, E)` for images in [0, 1]; trained in place and left on the device, in evaluation mode.
        dataset: Items `(image, label)` or `(image, {"labels": one label, ...})`; a label is a number or, where images
            show several classes, a float vector over all of them. uint8 images are scaled to [0, 1]. For one in
            `wsolnb.data.readers.images.Readable`, the records of the epochs count the images that were found unreadable.
        objective: Loss of outputs and labels (`wsolnb.losses`). If it has a method `begin_epoch(epoch, epochs)`, that
            is called before every epoch, counted from 0: for weights that change while it trains.
        plan: How long and how fast. Its batch size is that of one process.
        batches: Which images stand together in a batch (`wsolnb.papers.kou2021.sampler`), in place of random batches of the
            plan's size; told apart by its `repr`. A method `set_epoch(epoch)` of it is called before every epoch.
        device: `auto`, or one of this machine's.
        precision: Fabric's names; `auto` is `bf16-mixed` where the device has instructions for it (on a 2-core AVX-512
            processor: tiny 1.5x, mobilenet_v2 1.3x, resnet18 1.7x the images per second), else `32-true`.
        workers: Processes that load data. With some, the random numbers that augment an image follow from epoch and
            image, whatever process loads it.
        accumulate: Batches whose gradients are averaged for one step.
        strategy: What processes under `torchrun` share: `ddp`, images only; or `fsdp`, weights, gradients and optimizer
            too, for models that would not fit otherwise (slower; not in channels_last).
        compile: Compile the model with `torch.compile`: a minute at the start, fewer and larger kernels afterwards.
        retrain: Train even if the cache has the weights, and from the start.

    Raises:
        FloatingPointError: If the loss is no longer finite; the last checkpoint stays.
        KeyboardInterrupt: After Ctrl-C, once the training is saved. SIGTERM ends the process.
        UnreadableImage: For an image that does not decode, unless it is to be skipped.
        OSError: If the weights cannot be written, for example on a full disk; the last checkpoint stays. One that
            cannot be written while it trains is only warned about.
        ValueError: If the data set is empty, the device is not there, `batches` is not shared out to the processes, or
            the checkpoint or the weights are damaged or of another training.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> from wsolnb.losses import CrossEntropy
        >>> from wsolnb.models.cam import classifier
        >>> images, labels = torch.rand(8, 3, 16, 16), torch.arange(8) % 2
        >>> net = classifier("tiny", 2)
        >>> data, plan = TensorDataset(images, labels), Plan(epochs=2, batch_size=4)
        >>> training = train(net, data, CrossEntropy(), plan, device="cpu")  # doctest: +ELLIPSIS
        epoch   1/2  loss ... images/s
        epoch   2/2  loss ... images/s
        >>> [record["epoch"] for record in training.history], training.cached, training.weights.suffix
        ([1, 2], False, '.safetensors')
        >>> net(images).shape  # trained in place
        torch.Size([8, 2])
    """
    if not len(dataset):  # type: ignore[arg-type]
        raise ValueError("the training set is empty")
    if accumulate < 1:
        raise ValueError(f"accumulate={accumulate}: must be at least 1")
    if strategy not in ("ddp", "fsdp"):
        raise ValueError(f"strategy={strategy!r}: must be ddp or fsdp")
    where = resolve_device(device)
    if precision == "auto":
        precision = "bf16-mixed" if bfloat16_is_fast(where) else "32-true"
    fabric = _fabric(where, precision, strategy)
    sharded = strategy == "fsdp" and fabric.world_size > 1
    if (processes := fabric.world_size) > 1:
        where = fabric.device
        if batches is not None and getattr(batches, "replicas", 1) != processes:
            raise ValueError(f"{batches!r} does not share its batches out to {processes} processes")
    special = [] if batches is None else [repr(batches)]
    special += [f"{name} {n}" for name, n in (("accumulate", accumulate), ("processes", processes)) if n > 1]
    special += ["compiled"] if compile else []
    special += ["sharded"] if sharded else []
    version = _version()
    key = fingerprint(model, dataset, cast(nn.Module, objective), asdict(plan), precision, version, *special)
    key = fabric.broadcast(key)
    weights = cache_folder() / "weights" / f"{key}.safetensors"
    checkpoint = Checkpoint(weights.with_suffix(".checkpoint"), key, version)
    if not retrain and fabric.broadcast(weights.is_file()):
        if fabric.is_global_zero:
            _tidy_if_alone(weights, checkpoint)
        return _cached(model, dataset, weights, where)
    with _alone(weights.with_suffix(".lock"), fabric):
        if not retrain and fabric.broadcast(weights.is_file()):  # another run made them
            return _cached(model, dataset, weights, where)
        if retrain and fabric.is_global_zero:
            checkpoint.remove()
        fabric.barrier()
        loop = Loop(
            fabric,
            model,
            dataset,
            objective,
            plan,
            checkpoint,
            batches=batches,
            workers=workers,
            accumulate=accumulate,
            compile=compile,
        )
        history = loop.run()
        trained = whole(loop.bare.state_dict())
        model.to(where).eval()
        if fabric.is_global_zero:
            data = tensor_bytes(trained)
            unreadable = dataset.broken if isinstance(dataset, Readable) else []
            record = {"plan": asdict(plan), "history": history, "unreadable": unreadable}
            record["sha256"] = hashlib.sha256(data).hexdigest()
            write_whole(weights.with_suffix(".json"), json.dumps(record).encode())
            write_whole(weights, data)
            _tidy(weights, checkpoint)
        fabric.barrier()
        if sharded:
            _cached(model, dataset, weights, where)  # a copy of it was trained
        return Training(history, weights)


def _cached(model: nn.Module, dataset: Dataset[Any], weights: Path, where: torch.device) -> Training:
    record = json.loads(weights.with_suffix(".json").read_text())
    restore_module(model, read_tensors(weights, record.get("sha256"), "train again with retrain=True"), weights)
    model.to(where).to(memory_format=torch.channels_last).eval()
    if isinstance(dataset, Readable):
        dataset.flags[record["unreadable"]] = 1
    return Training(record["history"], weights, cached=True)


def _tidy(weights: Path, checkpoint: Checkpoint) -> None:
    """Delete what is of no use once the weights are there."""
    checkpoint.remove()
    for partial in weights.parent.glob(f"{weights.stem}.*.partial"):
        partial.unlink(missing_ok=True)


def _tidy_if_alone(weights: Path, checkpoint: Checkpoint) -> None:
    """Do the same after a run that was killed just before it could; its lock still lies there."""
    if (path := weights.with_suffix(".lock")).exists():
        try:
            with FileLock(path, timeout=0):
                _tidy(weights, checkpoint)
                path.unlink(missing_ok=True)
        except Timeout:  # another run is at it
            pass


def _fabric(device: torch.device, precision: str, strategy: str = "ddp") -> Fabric:
    """Fabric for this process alone, or under `torchrun` for one of many."""
    if TorchElasticEnvironment.detect() and (processes := int(os.environ["WORLD_SIZE"])) > 1:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        fabric = Fabric(
            accelerator=device.type,
            devices=here,
            num_nodes=processes // here,
            strategy=sharding(processes) if strategy == "fsdp" else strategy,
            precision=cast(Any, precision),
        )
        fabric.launch()
        return fabric
    return Fabric(
        accelerator=device.type,
        devices=[device.index] if device.index is not None else 1,
        precision=cast(Any, precision),
    )


@contextmanager
def _alone(path: Path, fabric: Fabric) -> Iterator[None]:
    """Keep others from the same training; the first of many processes holds the lock for all."""
    lock = FileLock(path)
    if fabric.is_global_zero:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"another run trains the very same: waiting for it (it holds {path})", flush=True)
            lock.acquire()
    fabric.barrier()
    try:
        yield
    finally:
        if lock.is_locked:
            path.unlink(missing_ok=True)
            lock.release()


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16, so that `auto` stands for `bf16-mixed` there.

    Example:
        >>> bfloat16_is_fast(torch.device("mps"))
        False
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _version() -> str:
    from wsolnb import __version__

    return f"wsolnb {__version__}, torch {torch.__version__}, fabric {lightning_fabric.__version__}"
