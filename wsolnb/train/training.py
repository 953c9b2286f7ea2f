"""Training, the same for all papers: on one device or many, cached, and resumed where it was stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import lightning_fabric
import torch
from filelock import FileLock, Timeout
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from torch import nn
from torch.utils.data import Dataset, Sampler

from wsolnb._utils.cache import cache_folder, fingerprint, machine
from wsolnb._utils.files import read_verified, to_bytes, write_atomic
from wsolnb._utils.progress import skip
from wsolnb.data.readers.images import SkipUnreadable
from wsolnb.losses import Objective
from wsolnb.train.checkpoint import Checkpoint, restore_module
from wsolnb.train.loop import Loop
from wsolnb.train.plans import Plan

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces every choice of precision


@dataclass
class Training:
    """Result of a training: one record per epoch, the file of the weights, and whether they were cached."""

    history: list[dict[str, float]] = field(default_factory=list)
    weights: Path | None = None
    cached: bool = False


def resolve_device(device: str = "auto") -> torch.device:
    """The device of this machine that `auto`, `cpu`, `cuda`, `cuda:1` or `mps` stands for.

    If there is none, the ValueError lists those of this machine.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] + devices
    elif torch.backends.mps.is_available():
        devices = ["mps", *devices]
    if device == "auto":
        return torch.device(devices[0])
    if device not in (*devices, *(["cuda"] if devices[0] == "cuda:0" else [])):
        raise ValueError(f"device {device!r} is not there; this machine has {', '.join(devices)}")
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
    """Train a classifier, or reuse cached weights if the configuration matches.

    The cache key covers model and initial weights, which of them learn, data, objective, plan, batches, precision,
    device, threads, versions and the code of all of these. A checkpoint is saved after every epoch, every five minutes
    within one, and on Ctrl-C or SIGTERM. A training that was stopped or killed resumes from it when started again, with
    the same result as without the interruption; a checkpoint of another number of processes, precision, device or
    version is passed over, and named. A second process that trains the same configuration waits for the first.

    Epoch and image seed the augmentation, whatever process loads it. Under `torchrun` all processes train together
    (DDP), one device each; they need the same cache folder. They share every batch, with its statistics for batch
    normalization (`nn.BatchNorm2d`), what the methods draw at random, dropout (`nn.Dropout`) and pairs of images, and
    follow one process up to rounding. So does a batch in parts (`accumulate`) follow a whole one, but for statistics
    and pairs, which are those of a part. What else a network draws, each process draws for its own images. Neither
    works in a network that computes activations twice to save memory (`torch.utils.checkpoint`).

    Args:
        model: Maps images in [0, 1] to outputs `(B, E)`; trained in place, left on the device in evaluation mode.
        dataset: Items `(image, label)` or `(image, {"labels": label, ...})`; a label is one class index, or a float
            vector over the classes. uint8 images are scaled to [0, 1]. The records of the epochs count the unreadable
            images of a `wsolnb.data.readers.images.SkipUnreadable`.
        objective: Loss of outputs and labels (`wsolnb.losses`). If it has a method `begin_epoch(epoch, epochs)`, that
            is called before every epoch, counted from 0: for loss weights that follow a schedule. What it sets there is
            named in the class attribute `epoch_state`, so that an objective that has trained has the key of a new one.
        plan: Optimizer, schedule and number of epochs; its batch size is that of all processes together.
        batches: Batch sampler in place of random batches (class-balanced ones, say); its `repr` enters the cache key,
            and its method `set_epoch(epoch)`, if any, is called before every epoch. Unless each of n processes gets
            every n-th image, and all equally many, its method `share(batch)` gives the places of this one's images
            in a batch, and the number of images in it.
        device: As for :func:`resolve_device`.
        precision: As in Fabric; `auto` is `bf16-mixed` on devices with bfloat16 instructions (on a 2-core AVX-512
            processor: tiny 1.5x, mobilenet_v2 1.3x, resnet18 1.7x the images per second), else `32-true`.
        workers: Processes that load data.
        accumulate: Parts into which a process splits its share of every batch, one forward and backward pass each, so
            that a large batch fits into memory; a step has the mean gradient of all.
        compile: Use `torch.compile`: a minute at the start, fewer and larger kernels afterwards. It draws other random
            numbers, unless a batch is shared or in parts.
        strategy: How processes under `torchrun` train together: `ddp`.
        retrain: Train from the start, even if the weights are cached.

    Raises:
        FloatingPointError: If the loss is no longer finite; the last checkpoint stays.
        KeyboardInterrupt: After Ctrl-C, once the checkpoint is saved. SIGTERM ends the process.
        UnreadableImage: For an image that does not decode, unless `SkipUnreadable` skips it.
        OSError: If the weights cannot be written; the last checkpoint stays. A failed checkpoint only gives a warning.
        ValueError: If the data set is empty, an argument is out of range, the device is missing, `batches` are not
            shared between the processes, or the checkpoint or the weights are damaged or of another training.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> from wsolnb.losses import CrossEntropy
        >>> from wsolnb.models.cam import classifier
        >>> net, images, plan = classifier("tiny", 2), torch.rand(8, 3, 16, 16), Plan(epochs=2, batch_size=4)
        >>> data = TensorDataset(images, torch.arange(8) % 2)
        >>> training = train(net, data, CrossEntropy(), plan, device="cpu")  # doctest: +ELLIPSIS
        epoch   1/2  loss ... images/s
        epoch   2/2  loss ... images/s
        >>> [record["epoch"] for record in training.history], training.cached, training.weights.suffix
        ([1, 2], False, '.safetensors')
    """
    if not len(dataset):  # type: ignore[arg-type]
        raise ValueError("the training set is empty")
    if accumulate < 1:
        raise ValueError(f"accumulate={accumulate}: must be at least 1")
    if strategy != "ddp":
        raise ValueError(f"strategy={strategy!r}: must be ddp")
    resolved = resolve_device(device)
    if precision == "auto":
        precision = "bf16-mixed" if bfloat16_is_fast(resolved) else "32-true"
    fabric = _fabric(resolved, precision)
    if (processes := fabric.world_size) > 1:
        resolved = fabric.device
        if batches is not None and getattr(batches, "replicas", 1) != processes:
            raise ValueError(f"{batches!r} does not share its batches out to {processes} processes")
    what = [model, dataset, cast(nn.Module, objective), type(plan), asdict(plan)]
    what += [] if batches is None else [type(batches), repr(batches)]
    versions = f"wsolnb {version('wsolnb')}, torch {torch.__version__}, fabric {lightning_fabric.__version__}"
    how = {
        "processes": str(processes),
        "precision": precision,
        "device": machine(resolved),
        "accumulate": str(accumulate),
        "compile": str(compile),
        "versions": versions,
        "code": fingerprint(train),
    }
    training = fabric.broadcast(fingerprint(*what))
    key = fabric.broadcast(fingerprint(training, how))
    weights = cache_folder() / "weights" / f"{key}.safetensors"
    checkpoint = Checkpoint(weights.with_suffix(".checkpoint"), key, versions, training=training, how=how)
    if not retrain and fabric.broadcast(weights.is_file()):
        if fabric.is_global_zero:
            _tidy_if_unlocked(weights, checkpoint)
        return _cached(model, objective, dataset, weights, resolved)
    with _locked(weights.with_suffix(".lock"), fabric):
        if not retrain and fabric.broadcast(weights.is_file()):  # trained by the process that held the lock
            return _cached(model, objective, dataset, weights, resolved)
        if retrain and fabric.is_global_zero:
            checkpoint.remove()
        if fabric.is_global_zero:
            for line in checkpoint.passed_over():
                print(line, flush=True)
        fabric.barrier()
        options: Any = {"batches": batches, "workers": workers, "accumulate": accumulate, "compile": compile}
        dtype = next(model.parameters()).dtype
        history = Loop(fabric, model, dataset, objective, plan, checkpoint, **options).run()
        model.to(resolved, dtype).eval()  # some precisions convert the model
        if fabric.is_global_zero:
            data = to_bytes(model.state_dict())
            unreadable = dataset.broken if isinstance(dataset, SkipUnreadable) else []
            record = {"plan": asdict(plan), "history": history, "unreadable": unreadable}
            record["sha256"] = hashlib.sha256(data).hexdigest()
            write_atomic(weights.with_suffix(".json"), json.dumps(record).encode())
            write_atomic(weights, data)
            _tidy(weights, checkpoint)
        fabric.barrier()
        return Training(history, weights)


def _cached(
    model: nn.Module, objective: Objective, dataset: Dataset[Any], weights: Path, device: torch.device
) -> Training:
    path = weights.with_suffix(".json")
    remedy = f"delete {weights}, or train again with retrain=True"
    try:
        record = json.loads(path.read_text())
        history, unreadable, sha256 = record["history"], record["unreadable"], record.get("sha256")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is missing or damaged ({error!r}): {remedy}") from None
    restore_module(model, read_verified(weights, sha256, remedy), weights)
    model.to(device).to(memory_format=torch.channels_last).eval()
    if isinstance(objective, nn.Module):
        objective.to(device)  # as a training leaves it: a reader may need its embeddings
    if isinstance(dataset, SkipUnreadable):
        dataset.flags[unreadable] = 1
    skip(len(history))
    return Training(history, weights, cached=True)


def _tidy(weights: Path, checkpoint: Checkpoint) -> None:
    """Delete the files that finished weights make useless."""
    checkpoint.remove()
    for partial in weights.parent.glob(f"{weights.stem}.*.partial"):
        partial.unlink(missing_ok=True)


def _tidy_if_unlocked(weights: Path, checkpoint: Checkpoint) -> None:
    """Do so for a process that was killed just before; it left its lock file."""
    if (path := weights.with_suffix(".lock")).exists():
        with suppress(Timeout), FileLock(path, timeout=0):  # a living owner tidies up by itself
            _tidy(weights, checkpoint)
            path.unlink(missing_ok=True)


def _fabric(device: torch.device, precision: str) -> Fabric:
    """Fabric for this process alone, or under `torchrun` for one of many."""
    options: Any = {"accelerator": device.type, "precision": precision}
    if TorchElasticEnvironment.detect() and (processes := int(os.environ["WORLD_SIZE"])) > 1:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        fabric = Fabric(devices=local, num_nodes=processes // local, strategy="ddp", **options)
        fabric.launch()
        return fabric
    return Fabric(devices=1 if device.index is None else [device.index], **options)


@contextmanager
def _locked(path: Path, fabric: Fabric) -> Iterator[None]:
    """Keep others from the same training; the first of several processes holds the lock for all."""
    lock = FileLock(path)
    if fabric.is_global_zero:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"another process is training the same configuration; waiting for its lock {path}", flush=True)
            lock.acquire()
    fabric.barrier()
    try:
        yield
    finally:
        if lock.is_locked:
            path.unlink(missing_ok=True)
            lock.release()


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16, so that `auto` means `bf16-mixed`.

    Example:
        >>> bfloat16_is_fast(torch.device("mps"))
        False
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
