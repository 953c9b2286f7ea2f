"""The epochs of a training: forward, backward, step; in one process or in many; saved so that it can go on."""

from __future__ import annotations

import copy
import math
import signal
import time
import warnings
from collections.abc import Mapping
from itertools import count
from typing import Any, cast

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2.functional import to_dtype

from wsolnb._utils.cache import fingerprint
from wsolnb._utils.progress import headless, track
from wsolnb._utils.signals import Interruption
from wsolnb.data.readers.images import Readable
from wsolnb.losses import Objective
from wsolnb.train.batches import Rest, Seeded, Shuffled, collate
from wsolnb.train.checkpoint import (
    Checkpoint,
    optimizer_parts,
    random_states,
    restore_module,
    restore_optimizer,
    restore_random_states,
)
from wsolnb.train.plans import Plan, groups
from wsolnb.train.sharding import shared_out, whole

_CHECK_EVERY = 10  # batches between two looks at the loss, which make a GPU wait, and at what other processes want
SAVE_EVERY = 300.0  # seconds between two checkpoints within an epoch


class Loop:
    """One training: what Fabric set up, where it stands, and the epochs.

    Args:
        fabric: Launched.
        model: Trained in place; where its weights are shared out, a copy of it, `bare`.
        dataset: As for :func:`wsolnb.train.train`, like all that follows.
        objective: The loss.
        plan: How long and how fast.
        checkpoint: Where the training is kept after every epoch, and within long ones.
        batches: What draws the batches; None for random ones of the plan's size.
        workers: Processes that load data.
        accumulate: Batches of a process per step.
        compile: Compile the model.
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
        self.fabric, self.plan, self.checkpoint, self.accumulate = fabric, plan, checkpoint, accumulate
        sharded = isinstance(fabric.strategy, ModelParallelStrategy)  # that takes no other memory format
        self.bare = copy.deepcopy(model) if sharded else model.to(memory_format=torch.channels_last)
        self.objective = objective
        fabric.to_device(cast(nn.Module, objective))
        self.model = fabric.setup_module(cast(nn.Module, torch.compile(self.bare)) if compile else self.bare)
        self.inner = plan.optimizer(groups(self.bare, plan))
        self.schedule = plan.schedule(self.inner)
        self.optimizer = cast(Any, fabric.setup_optimizers(self.inner))
        self.shuffled = Shuffled(
            len(dataset),  # type: ignore[arg-type]
            plan.batch_size,
            rank=fabric.global_rank,
            replicas=fabric.world_size,
        )
        self.batches = self.shuffled if batches is None else batches
        self.rest = Rest(self.batches, seeded=workers > 0)
        loader: DataLoader[Any] = DataLoader(
            Seeded(dataset) if workers else dataset,
            batch_sampler=self.rest,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=fabric.device.type == "cuda",
            collate_fn=collate,
            generator=torch.Generator(),  # so that it draws nothing from the one that augments
        )
        self.loader = fabric.setup_dataloaders(loader, use_distributed_sampler=False)
        self.readable = dataset if isinstance(dataset, Readable) else None
        self.history: list[dict[str, float]] = []
        self.sums = torch.zeros(3, device=fabric.device)  # of this epoch and process: loss, hits, images
        self.seconds = 0.0
        self.random: dict[str, Any] = {}
        self.interruption = Interruption()
        self.wanted = 0  # the signal that all processes agreed to obey
        self.saved, self.place = time.monotonic(), ""  # when, and how far the training was then

    def run(self) -> list[dict[str, float]]:
        """Train all that the checkpoint does not hold yet.

        Returns:
            One record per epoch.

        Raises:
            FloatingPointError: If the loss is no longer finite.
            KeyboardInterrupt: After Ctrl-C, once everything is saved.
            ValueError: If the checkpoint is damaged or of another training.
        """
        self._load()
        with self.interruption:
            for epoch in range(len(self.history), self.plan.epochs):
                record = self._epoch(epoch)
                self.schedule.step()
                self.history.append(record)
                self.rest.start, self.seconds = 0, 0.0
                self.sums.zero_()
                self._save()
                self._obey(self.wanted if self.fabric.world_size > 1 else self.interruption.number)
        return self.history

    def _epoch(self, epoch: int) -> dict[str, float]:
        seed = int(fingerprint(self.plan.seed, epoch), 16) % 2**31
        self.shuffled.seed = self.rest.seed = seed
        if rank := self.fabric.global_rank:
            seed = int(fingerprint(self.plan.seed, epoch, rank), 16) % 2**31  # every process draws its own masks
        torch.manual_seed(seed)  # the epoch alone decides its randomness, so a resumed training repeats it
        if hasattr(self.batches, "set_epoch"):
            self.batches.set_epoch(epoch)
        if hasattr(self.objective, "begin_epoch"):
            self.objective.begin_epoch(epoch, self.plan.epochs)
        if self.batches is not self.shuffled:
            torch.empty((), dtype=torch.int64).random_()  # as a DataLoader over them draws
        if self.rest.start:
            restore_random_states(self.random)
        self.model.train()
        started, lr = time.perf_counter() - self.seconds, self.optimizer.param_groups[0]["lr"]
        batches, first = len(self.batches), self.rest.start  # type: ignore[arg-type]
        name = f"epoch {epoch + 1}/{self.plan.epochs}"
        for number, (images, labels) in zip(count(first), track(self.loader, name, len(self.rest)), strict=False):
            weight, counts = self._weight(number, batches)
            last = (number + 1) % self.accumulate == 0 or number + 1 == batches
            with self.fabric.no_backward_sync(self.model, enabled=not last):
                outputs = self.model(to_dtype(images, torch.float32, scale=True))
                loss = self.objective(outputs, labels)
                if number % self.accumulate == 0:
                    self.optimizer.zero_grad()
                self.fabric.backward(loss if weight == 1 else loss * weight)
            if counts:
                with torch.no_grad():
                    self.sums[0] += loss.detach() * len(labels)
                    self.sums[1] += _hits(self.objective.scores(outputs).argmax(dim=1), labels).sum()
                    self.sums[2] += len(labels)
            if last:
                self._step()
                self.seconds = time.perf_counter() - started
                self._look(epoch, number, batches, lr)
        total, right, seen = cast(Tensor, self.fabric.all_reduce(self.sums.clone(), reduce_op="sum"))
        mean = float(total / seen)  # waits for a GPU
        self.seconds = time.perf_counter() - started
        record = {
            "epoch": epoch + 1,
            "loss": mean,
            "accuracy": float(right / seen),
            "lr": lr,
            "images_per_second": float(seen) / self.seconds,
        }
        if self.readable is not None:
            flags = cast(Tensor, self.fabric.all_reduce(self.readable.flags.to(self.fabric.device), reduce_op="max"))
            self.readable.flags.copy_(flags)  # what all processes found
            record["unreadable"] = float(flags.sum())
        if headless() and self.fabric.is_global_zero:
            print(
                f"epoch {epoch + 1:>3}/{self.plan.epochs}  loss {record['loss']:.4f}  "
                f"accuracy {record['accuracy']:.1%}  {record['images_per_second']:.0f} images/s"
                + (f"  {record['unreadable']:.0f} unreadable" if record.get("unreadable") else ""),
                flush=True,
            )
        return record

    def _weight(self, number: int, batches: int) -> tuple[float, bool]:
        """What a batch's mean loss counts in its step, times the number of processes; and whether it counts at all."""
        first = number - number % self.accumulate
        together = range(first, min(first + self.accumulate, batches))
        if self.batches is not self.shuffled:
            return 1 / len(together), True
        mine, _ = self.shuffled.images(number)
        return mine * self.fabric.world_size / sum(self.shuffled.images(n)[1] for n in together), mine > 0

    def _step(self) -> None:
        if self.plan.clip:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=self.plan.clip, error_if_nonfinite=False)
        self.optimizer.step()

    def _look(self, epoch: int, number: int, batches: int, lr: float) -> None:
        """After a step: stop at a loss that is no number; save if it is time to, or if a signal came; obey that."""
        end, many = number + 1 == batches, self.fabric.world_size > 1
        wants = [self.interruption.number, int(time.monotonic() - self.saved >= SAVE_EVERY)]
        turn = end or (number // self.accumulate) % _CHECK_EVERY == 0
        if not turn and (many or not any(wants)):
            return
        broken = int(not math.isfinite(self.sums[0]))
        if many:  # they look at the same step, and all do the same
            said = torch.tensor([broken, *wants], device=self.fabric.device)
            broken, *wants = cast(Tensor, self.fabric.all_reduce(said, reduce_op="max")).tolist()
        if broken:
            kept = f"the checkpoint of {self.place} stays at {self.checkpoint.folder}" if self.place else ""
            raise FloatingPointError(
                f"the loss became {float(self.sums[0])} in epoch {epoch + 1}, at batch {number + 1} or up to "
                f"{_CHECK_EVERY * self.accumulate - 1} before it (learning rate {lr:g}): lower the learning rate or "
                f"clip the gradient; {kept or 'nothing was saved yet'}"
            )
        self.wanted = wants[0]
        if any(wants) and not end:
            self._save(number + 1)
            self._obey(self.wanted)

    def _obey(self, number: int) -> None:
        if number:
            said = f"{signal.Signals(number).name}: training stopped; "
            said += f"{self.place} is saved in {self.checkpoint.folder}: run the same again to go on from there"
            if not self.place:
                said = f"{signal.Signals(number).name}: training stopped; nothing could be saved"
            self.interruption.obey(number, said if self.fabric.is_global_zero else "")

    def _save(self, done: int = 0) -> None:
        """Save, `done` batches after the last whole epoch; a full disk is only reported."""
        everyone: list[Any] = [random_states()]
        sums = cast(Tensor, self.fabric.all_gather(self.sums)).reshape(-1, 3)
        if self.fabric.world_size > 1:
            everyone *= self.fabric.world_size
            dist.all_gather_object(everyone, everyone[0])
        self.saved = time.monotonic()
        optimizer, values = optimizer_parts(self.inner)
        parts = {"model": whole(self.bare.state_dict()), "optimizer": whole(optimizer), "epoch": {"sums": sums}}
        if not self.fabric.is_global_zero:
            return
        if isinstance(self.objective, nn.Module):
            parts["objective"] = self.objective.state_dict()
        state = {
            "history": self.history,
            "done": done,
            "seconds": self.seconds,
            "optimizer": values,
            "schedule": self.schedule.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "random": everyone,
            "unreadable": self.readable.broken if self.readable else [],
        }
        try:
            self.checkpoint.save({f"{p}.{n}": t for p, tensors in parts.items() for n, t in tensors.items()}, state)
        except OSError as error:
            warnings.warn(f"no checkpoint was saved, training goes on: {error}", RuntimeWarning, stacklevel=2)
        else:
            self.place = _place(len(self.history), done)

    def _load(self) -> None:
        if (loaded := self.checkpoint.load()) is None:
            return
        tensors, values = loaded
        rank, path = self.fabric.global_rank, self.checkpoint.folder
        restore_module(self.bare, shared_out(_part(tensors, "model"), self.bare.state_dict()), path)
        if isinstance(self.objective, nn.Module):
            restore_module(self.objective, _part(tensors, "objective"), path)
        slots = _part(tensors, "optimizer")
        weights = [weight for group in self.inner.param_groups for weight in group["params"]]
        slots = shared_out(slots, {name: weights[int(name.partition(".")[0])] for name in slots})
        restore_optimizer(self.inner, slots, values["optimizer"])
        self.schedule.load_state_dict(values["schedule"])
        self.fabric.strategy.precision.load_state_dict(values["precision"])
        self.history, self.seconds, self.rest.start = values["history"], values["seconds"], values["done"]
        self.sums.copy_(tensors["epoch.sums"][rank])
        if self.readable is not None:
            self.readable.flags[values["unreadable"]] = 1
        self.random = values["random"][rank]
        restore_random_states(self.random)
        self.place = _place(len(self.history), values["done"])


def _hits(best: Tensor, labels: Tensor) -> Tensor:
    """Whether the best-scored class is the true one, or one of the true ones."""
    return best == labels if labels.ndim == 1 else labels.gather(1, best[:, None]) > 0


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}


def _place(epochs: int, done: int) -> str:
    return f"epoch {epochs}" if not done else f"epoch {epochs + 1} up to batch {done}"
