"""The epochs of a training: forward, backward and step, on one process or several, with resumable checkpoints."""

from __future__ import annotations

import math
import signal
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from typing import Any, cast

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2.functional import to_dtype

from wsolnb._utils.cache import fingerprint
from wsolnb._utils.progress import headless, skip, time_left, track
from wsolnb._utils.signals import Interruption
from wsolnb._utils.whole_batch import Draws, Share
from wsolnb.data.readers.images import SkipUnreadable
from wsolnb.losses import Objective
from wsolnb.train.batches import ResumableSampler, SeededDataset, ShuffledBatchSampler, collate
from wsolnb.train.checkpoint import (
    Checkpoint,
    from_text,
    optimizer_parts,
    random_states,
    restore_module,
    restore_optimizer,
    restore_random_states,
    to_text,
)
from wsolnb.train.plans import Plan, groups
from wsolnb.train.shared_layers import share_layers

_CHECK_EVERY = 10  # steps between two checks of the loss, which make a GPU wait, and of requests by other processes
SAVE_EVERY = 300.0  # seconds between two checkpoints within an epoch


class Loop:
    """A training on a launched `fabric`, kept in `checkpoint`; all else is as for :func:`wsolnb.train.train`.

    Example:
        >>> from pathlib import Path
        >>> from wsolnb.losses import CrossEntropy
        >>> data = [(torch.rand(3, 8, 8), label) for label in (0, 1, 0)]
        >>> net, checkpoint = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), Checkpoint(Path("net"), "a1", "1.0")
        >>> len(Loop(Fabric(accelerator="cpu", devices=1), net, data, CrossEntropy(), Plan(1, 2), checkpoint).loader)
        2
    """

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        dataset: Dataset[Any],
        objective: Objective,
        plan: Plan,
        checkpoint: Checkpoint,
        *,
        batches: Sampler[list[int]] | None = None,
        workers: int = 0,
        accumulate: int = 1,
        compile: bool = False,
    ) -> None:
        self.fabric, self.objective, self.plan = fabric, objective, plan
        self.checkpoint, self.accumulate = checkpoint, accumulate
        self.module = model.to(memory_format=torch.channels_last)
        fabric.to_device(cast(nn.Module, objective))
        self.model = fabric.setup_module(cast(nn.Module, torch.compile(self.module)) if compile else self.module)
        self.inner = plan.optimizer(groups(self.module, plan))
        self.schedule = plan.schedule(self.inner)
        self.optimizer = cast(Any, fabric.setup_optimizers(self.inner))
        length, rank, replicas = len(dataset), fabric.global_rank, fabric.world_size  # type: ignore[arg-type]
        self.shuffled = ShuffledBatchSampler(length, plan.batch_size, rank=rank, replicas=replicas)
        self.batches = self.shuffled if batches is None else batches
        self.sampler = ResumableSampler(self.batches)
        loader: DataLoader[Any] = DataLoader(
            SeededDataset(dataset),
            batch_sampler=self.sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=fabric.device.type == "cuda",
            collate_fn=collate,
            generator=torch.Generator(),  # so that it draws nothing from the generator of the network
        )
        self.loader = fabric.setup_dataloaders(loader, use_distributed_sampler=False)
        self.readable = dataset if isinstance(dataset, SkipUnreadable) else None
        self.history: list[dict[str, float]] = []
        self.sums = torch.zeros(3, device=fabric.device)  # of this epoch and process: loss, hits, images
        self.seconds = 0.0
        self.parted = fabric.world_size > 1 or accumulate > 1
        self.draws = Draws(fabric.device.type)  # of whole batches, where they are parted
        self.random: tuple[list[Tensor], dict[str, Any]]  # states at the checkpoint: of draws, and of all generators
        self.interruption = Interruption()
        self.signal = 0  # that all processes agreed to obey
        self.saved_at, self.saved_position = time.monotonic(), ""

    def run(self) -> list[dict[str, float]]:
        """Train from the checkpoint, if there is one, to the end of the plan; one record per epoch."""
        norms = [nn.BatchNorm2d] * (self.fabric.world_size > 1)
        try:
            share_layers(self.module, nn.Dropout, *norms)
            self._load()
            with self.interruption:
                for epoch in range(len(self.history), self.plan.epochs):
                    record = self._epoch(epoch)
                    self.schedule.step()
                    self.history.append(record)
                    self.sampler.start, self.seconds = 0, 0.0
                    self.sums.zero_()
                    self._save()
                    self._obey(self.signal if self.fabric.world_size > 1 else self.interruption.number)
        finally:
            share_layers(self.module)
        return self.history

    def _epoch(self, epoch: int) -> dict[str, float]:
        # The epoch alone decides its randomness, so that a resumed training repeats it.
        seed = int(fingerprint(self.plan.seed, epoch), 16) % 2**31
        self.shuffled.seed = self.sampler.seed = seed
        torch.manual_seed(seed)
        if hasattr(self.batches, "set_epoch"):
            self.batches.set_epoch(epoch)
        if hasattr(self.objective, "begin_epoch"):
            self.objective.begin_epoch(epoch, self.plan.epochs)
        if self.batches is not self.shuffled:
            torch.empty((), dtype=torch.int64).random_()  # as a DataLoader over them draws
        self.draws = Draws(self.fabric.device.type)
        if self.parted:  # what is not drawn for the whole batch differs from it, and between processes
            torch.manual_seed(int(fingerprint(self.plan.seed, epoch, self.fabric.global_rank), 16) % 2**31)
        if self.sampler.start:
            self._restore_draws()
        self.model.train()
        started, lr = time.perf_counter() - self.seconds, self.optimizer.param_groups[0]["lr"]
        batches, first = len(self.batches), self.sampler.start  # type: ignore[arg-type]
        name, left = f"epoch {epoch + 1}/{self.plan.epochs}", batches - first
        loaded = track(self.loader, name, left, units=left / batches)
        for number, (images, labels) in zip(count(first), loaded, strict=False):
            self.optimizer.zero_grad()
            parts = self._parts(number, images, labels)
            for step, (part, truth, weight, at_hand) in enumerate(parts, start=1):
                with at_hand, self.fabric.no_backward_sync(self.model, enabled=step < len(parts)):
                    outputs = self.model(to_dtype(part, torch.float32, scale=True))
                    loss = self.objective(outputs, truth)
                    self.fabric.backward(loss if weight == 1 else loss * weight)
                if weight:
                    with torch.no_grad():
                        best = self.objective.scores(outputs).argmax(dim=1)
                        hits = best == truth if truth.ndim == 1 else truth.gather(1, best[:, None]) > 0
                        self.sums[0] += loss.detach() * len(truth)
                        self.sums[1] += hits.sum()
                        self.sums[2] += len(truth)
            if clip := self.plan.clip:
                self.fabric.clip_gradients(self.model, self.optimizer, max_norm=clip, error_if_nonfinite=False)
            self.optimizer.step()
            self.seconds = time.perf_counter() - started
            self._check(epoch, number, batches, lr)
        # Summed over the processes, so that all have the same record.
        total, hit, seen = cast(Tensor, self.fabric.all_reduce(self.sums.clone(), reduce_op="sum"))
        record = {"epoch": epoch + 1, "loss": float(total / seen), "accuracy": float(hit / seen), "lr": lr}
        self.seconds = time.perf_counter() - started  # the loss has waited for a GPU
        record["images_per_second"] = float(seen) / self.seconds
        if self.readable is not None:
            flags = cast(Tensor, self.fabric.all_reduce(self.readable.flags.to(self.fabric.device), reduce_op="max"))
            self.readable.flags.copy_(flags)
            record["unreadable"] = float(flags.sum())
        if headless() and self.fabric.is_global_zero:
            print(
                f"epoch {epoch + 1:>3}/{self.plan.epochs}  loss {record['loss']:.4f}  "
                f"accuracy {record['accuracy']:.1%}  {record['images_per_second']:.0f} images/s"
                + (f"  {record['unreadable']:.0f} unreadable" if record.get("unreadable") else "")
                + time_left(),
                flush=True,
            )
        return record

    def _parts(self, number: int, images: Tensor, labels: Tensor) -> Sequence[_Part]:
        """Parts of this process's share of a batch, as many in all processes, and the weight of each one's mean loss.

        A part without images has one of weight 0. Gradients are averaged over the processes: weights add up to their
        number.
        """
        if not self.parted:
            return [(images, labels, 1.0, nullcontext())]
        rank, processes = self.fabric.global_rank, self.fabric.world_size
        total = len(labels) * processes
        rows: Sequence[int] = range(rank, total, processes)
        if hasattr(self.batches, "share"):
            rows, total = self.batches.share(number)
        count = min(self.accumulate, -(-total // processes))
        local, places = len(rows), torch.tensor(rows, dtype=torch.int64, device=images.device)
        shares = (values[:local].tensor_split(count) for values in (images, labels, places))
        spare, parts = (images[:1], labels[:1], places.new_zeros(1)), []
        for share in zip(*shares, strict=True):
            weight = len(share[1]) * processes / total
            part, truth, mine = share if weight else spare
            at_hand = Share(mine, total, self.draws, counted=weight > 0, entire=count == 1).at_hand()
            parts.append((part, truth, weight, at_hand))
        return parts

    def _check(self, epoch: int, number: int, batches: int, lr: float) -> None:
        """After a step: stop at a loss that is not finite; save if it is time or a signal came, and obey that."""
        last, distributed = number + 1 == batches, self.fabric.world_size > 1
        requests = [self.interruption.number, int(time.monotonic() - self.saved_at >= SAVE_EVERY)]
        due = last or number % _CHECK_EVERY == 0
        if not due and (distributed or not any(requests)):
            return
        # All processes check at the same step, and all do what any of them has to.
        flags = torch.tensor([not math.isfinite(self.sums[0]), *requests], device=self.fabric.device)
        broken, *requests = cast(Tensor, self.fabric.all_reduce(flags, reduce_op="max")).tolist()
        if broken:
            kept = f"the checkpoint of {self.saved_position} stays at {self.checkpoint.folder}"
            raise FloatingPointError(
                f"the loss became {float(self.sums[0])} in epoch {epoch + 1}, at batch {number + 1} or up to "
                f"{_CHECK_EVERY - 1} before it (learning rate {lr:g}): lower the learning rate or clip the gradient; "
                f"{kept if self.saved_position else 'nothing was saved yet'}"
            )
        self.signal = requests[0]
        if any(requests) and not last:
            self._save(number + 1)
            self._obey(self.signal)

    def _obey(self, number: int) -> None:
        if number:
            where = f"saved in {self.checkpoint.folder}"
            saved = f"{self.saved_position} is {where}: run the same again to go on from there"
            message = f"{signal.Signals(number).name}: training stopped; "
            message += saved if self.saved_position else "nothing could be saved"
            self.interruption.obey(number, message if self.fabric.is_global_zero else "")

    def _save(self, done: int = 0) -> None:
        """Save, `done` batches after the last complete epoch; a full disk only gives a warning."""
        states: list[Any] = [random_states()]
        sums = cast(Tensor, self.fabric.all_gather(self.sums)).reshape(-1, 3)
        if self.fabric.world_size > 1:
            states *= self.fabric.world_size
            dist.all_gather_object(states, states[0])
        self.saved_at = time.monotonic()
        if not self.fabric.is_global_zero:
            return
        optimizer, values = optimizer_parts(self.inner)
        parts = {"model": self.module.state_dict(), "optimizer": optimizer, "epoch": {"sums": sums}}
        if isinstance(self.objective, nn.Module):
            parts["objective"] = self.objective.state_dict()
        state = {
            "history": self.history,
            "done": done,
            "seconds": self.seconds,
            "optimizer": values,
            "schedule": self.schedule.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "draws": [to_text(state) for state in self.draws.states],
            "random": states,
            "unreadable": self.readable.broken if self.readable else [],
        }
        try:
            self.checkpoint.save({f"{p}.{n}": t for p, tensors in parts.items() for n, t in tensors.items()}, state)
        except OSError as error:
            warnings.warn(f"no checkpoint was saved, training goes on: {error}", RuntimeWarning, stacklevel=2)
        else:
            self.saved_position = _position(len(self.history), done)

    def _load(self) -> None:
        if (loaded := self.checkpoint.load()) is None:
            return
        tensors, values = loaded
        rank, path = self.fabric.global_rank, self.checkpoint.folder
        restore_module(self.module, _part(tensors, "model"), path)
        if isinstance(self.objective, nn.Module):
            restore_module(self.objective, _part(tensors, "objective"), path)
        restore_optimizer(self.inner, _part(tensors, "optimizer"), values["optimizer"])
        self.schedule.load_state_dict(values["schedule"])
        self.fabric.strategy.precision.load_state_dict(values["precision"])
        self.history, self.seconds, self.sampler.start = values["history"], values["seconds"], values["done"]
        self.sums.copy_(tensors["epoch.sums"][rank])
        if self.readable is not None:
            self.readable.flags[values["unreadable"]] = 1
        skip(len(self.history) + self.sampler.start / len(self.batches))  # type: ignore[arg-type]
        self.random = [from_text(text) for text in values["draws"]], values["random"][rank]
        self._restore_draws()
        self.saved_position = _position(len(self.history), values["done"])

    def _restore_draws(self) -> None:
        self.draws.states, others = self.random
        restore_random_states(others)


_Part = tuple[Tensor, Tensor, float, AbstractContextManager[None]]  # images, labels, weight, and what is drawn for them


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}


def _position(epochs: int, done: int) -> str:
    return f"epoch {epochs}" if not done else f"epoch {epochs + 1} up to batch {done}"
