"""The one training loop of all papers, on Lightning Fabric: seeds, schedule, clipping, checkpoint, cached weights."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import lightning_fabric
import torch
from lightning_fabric import Fabric
from platformdirs import user_cache_path
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2.functional import to_dtype

from wsolnb.fingerprints import fingerprint
from wsolnb.losses import Objective
from wsolnb.plans import AdamPlan as AdamPlan
from wsolnb.plans import Plan
from wsolnb.plans import StepPlan as StepPlan
from wsolnb.progress import headless, track

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces every choice of precision

_CHECK_EVERY = 10  # steps between two looks at the loss: a look makes a GPU wait


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


def cache_folder() -> Path:
    """Where trained weights are kept: `WSOLNB_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("WSOLNB_CACHE") or user_cache_path("wsolnb"))


def collate(batch: list[tuple[Tensor, Any]]) -> tuple[Tensor, Tensor]:
    """Stack samples: images `(B, 3, H, W)` and labels, int64 `(B,)`, or float `(B, C)` of several classes per image.

    A target is a label, a float vector with an entry per class, or a dictionary whose `labels` holds one of them.
    """
    labels = [t["labels"] if isinstance(t, Mapping) else t for _, t in batch]
    images = torch.stack([i.as_subclass(Tensor) for i, _ in batch])
    if all(isinstance(k, Tensor) and k.is_floating_point() for k in labels):
        return images, torch.stack(labels)
    return images, torch.as_tensor([int(k) for k in labels])


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
    retrain: bool = False,
) -> Training:
    """Train a classifier, or take its weights from the cache if the very same training was done.

    The key of the cache covers model and initial weights, data, objective, plan, precision and version. While it
    trains, a checkpoint is kept after every epoch; an interrupted training goes on from there.

    Args:
        model: Gives outputs `(B, E)` for images in [0, 1]; trained in place and left on the device, in evaluation mode.
        dataset: Items `(image, label)` or `(image, {"labels": one label, ...})`; a label is a number or, where images
            show several classes, a float vector over all of them. uint8 images are scaled to [0, 1].
        objective: Loss of outputs and labels (`wsolnb.losses`). If it has a method `begin_epoch(epoch, epochs)`, that
            is called before every epoch, counted from 0: for weights that change while it trains.
        plan: How long and how fast.
        batches: Which images stand together in a batch (`wsolnb.data.balanced`), in place of random batches of the
            plan's size; told apart by its `repr`. A method `set_epoch(epoch)` of it is called before every epoch.
        device: `auto`, or one of this machine's.
        precision: Fabric's names; `auto` is `bf16-mixed` where the device has instructions for it (on a 2-core AVX-512
            processor: tiny 1.5x, mobilenet_v2 1.3x, resnet18 1.7x the images per second), else `32-true`.
        workers: Processes that load data.
        retrain: Train even if the cache has the weights.

    Raises:
        FloatingPointError: If the loss is no longer finite; the checkpoint of the last good epoch stays.
        ValueError: If the data set is empty or the device is not there.
    """
    if not len(dataset):  # type: ignore[arg-type]
        raise ValueError("the training set is empty")
    where = resolve_device(device)
    if precision == "auto":
        precision = "bf16-mixed" if _bfloat16_is_fast(where) else "32-true"
    drawn = [] if batches is None else [repr(batches)]
    key = fingerprint(model, dataset, cast(nn.Module, objective), asdict(plan), precision, _version(), *drawn)
    weights = cache_folder() / "weights" / f"{key}.safetensors"
    if weights.is_file() and not retrain:
        record = json.loads(weights.with_suffix(".json").read_text())
        model.load_state_dict(load_file(weights))
        model.to(where).to(memory_format=torch.channels_last).eval()
        return Training(record["history"], weights, cached=True)

    weights.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = weights.with_suffix(".ckpt")
    if retrain:
        checkpoint.unlink(missing_ok=True)
    loop = _Loop(model, dataset, objective, plan, where, precision, workers, batches)
    history = loop.run(checkpoint)
    model.to(where).eval()
    _write(
        weights.with_suffix(".json"),
        lambda p: p.write_text(json.dumps({"plan": asdict(plan), "history": history})),
    )
    _write(weights, lambda p: save_file({k: v.contiguous() for k, v in model.state_dict().items()}, p))
    checkpoint.unlink(missing_ok=True)
    return Training(history, weights)


class _Loop:
    """One training: what Fabric set up, and the epochs."""

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset[Any],
        objective: Objective,
        plan: Plan,
        device: torch.device,
        precision: str,
        workers: int,
        batches: Sampler[list[int]] | None = None,
    ) -> None:
        self.plan = plan
        self.fabric = Fabric(
            accelerator=device.type,
            devices=[device.index] if device.index is not None else 1,
            precision=cast(Any, precision),
        )
        self.fabric.to_device(cast(nn.Module, objective))
        self.objective = objective
        optimizer = plan.optimizer(_groups(model, plan))
        self.schedule = plan.schedule(optimizer)
        self.model, self.optimizer = self.fabric.setup(model.to(memory_format=torch.channels_last), optimizer)
        self.shuffle, self.batches = torch.Generator(), batches
        drawn: dict[str, Any] = {"batch_size": plan.batch_size, "shuffle": True, "generator": self.shuffle}
        loader: DataLoader[Any] = DataLoader(
            dataset,
            **(drawn if batches is None else {"batch_sampler": batches}),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            collate_fn=collate,
        )
        self.loader = self.fabric.setup_dataloaders(loader, use_distributed_sampler=batches is None)

    def run(self, checkpoint: Path) -> list[dict[str, float]]:
        """Train all epochs that the checkpoint does not hold yet."""
        state: dict[str, Any] = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "history": [],
        }
        if checkpoint.is_file():
            self.fabric.load(checkpoint, state)
        history: list[dict[str, float]] = state["history"]
        for epoch in range(len(history), self.plan.epochs):
            history.append(self._epoch(epoch, checkpoint))
            self.schedule.step()
            _write(checkpoint, lambda path: self.fabric.save(path, state))
        return history

    def _epoch(self, epoch: int, checkpoint: Path) -> dict[str, float]:
        seed = int(fingerprint(self.plan.seed, epoch), 16) % 2**31
        torch.manual_seed(seed)  # the epoch alone decides its randomness, so a resumed training repeats it
        self.shuffle.manual_seed(seed)
        if self.batches is not None and hasattr(self.batches, "set_epoch"):
            self.batches.set_epoch(epoch)
        if hasattr(self.objective, "begin_epoch"):
            self.objective.begin_epoch(epoch, self.plan.epochs)
        self.model.train()
        started, lr = time.perf_counter(), self.optimizer.param_groups[0]["lr"]
        total, right, seen = (torch.zeros((), device=self.fabric.device) for _ in range(3))
        for step, (images, labels) in enumerate(track(self.loader, f"epoch {epoch + 1}/{self.plan.epochs}")):
            outputs = self.model(to_dtype(images, torch.float32, scale=True))
            loss = self.objective(outputs, labels)
            self.optimizer.zero_grad()
            self.fabric.backward(loss)
            if self.plan.clip:
                self.fabric.clip_gradients(
                    self.model, self.optimizer, max_norm=self.plan.clip, error_if_nonfinite=False
                )
            self.optimizer.step()
            with torch.no_grad():
                total += loss.detach() * len(labels)
                right += _hits(self.objective.scores(outputs).argmax(dim=1), labels).sum()
                seen += len(labels)
            if step % _CHECK_EVERY == 0 or step + 1 == len(self.loader):
                _refuse_nan(float(total), epoch, step, lr, checkpoint)
        seconds = time.perf_counter() - started
        record = {
            "epoch": epoch + 1,
            "loss": float(total / seen),
            "accuracy": float(right / seen),
            "lr": lr,
            "images_per_second": float(seen) / seconds,
        }
        if headless():
            print(
                f"epoch {epoch + 1:>3}/{self.plan.epochs}  loss {record['loss']:.4f}  "
                f"accuracy {record['accuracy']:.1%}  {record['images_per_second']:.0f} images/s",
                flush=True,
            )
        return record


def _groups(model: nn.Module, plan: Plan) -> list[dict[str, Any]]:
    new = tuple(f"{part}." for part in getattr(model, "new_parts", ("head",)))
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    rest = [p for name, p in named if not name.startswith(new)]
    head = [p for name, p in named if name.startswith(new)]
    groups: list[dict[str, Any]] = [{"params": rest}, {"params": head, "lr": plan.head_rate * plan.lr}]
    return groups if rest and head else groups[:1] if rest else groups[1:]


def _hits(best: Tensor, labels: Tensor) -> Tensor:
    """Whether the best-scored class is the true one, or one of the true ones."""
    return best == labels if labels.ndim == 1 else labels.gather(1, best[:, None]) > 0


def _bfloat16_is_fast(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _refuse_nan(total: float, epoch: int, step: int, lr: float, checkpoint: Path) -> None:
    if math.isfinite(total):
        return
    kept = f"the checkpoint of epoch {epoch} stays at {checkpoint}" if checkpoint.is_file() else "nothing was saved yet"
    raise FloatingPointError(
        f"the loss became {total} in epoch {epoch + 1}, at step {step + 1} or up to {_CHECK_EVERY - 1} before it "
        f"(learning rate {lr:g}): lower the learning rate or clip the gradient; {kept}"
    )


def _write(path: Path, write: Any) -> None:
    """Write a file under another name first, so that nobody ever sees half of it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    write(partial)
    os.replace(partial, path)


def _version() -> str:
    from wsolnb import __version__

    return f"wsolnb {__version__}, torch {torch.__version__}, fabric {lightning_fabric.__version__}"
