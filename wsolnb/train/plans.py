"""Training plans: optimizer, learning-rate schedule and number of epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LRScheduler, StepLR


@dataclass(frozen=True)
class Plan:
    """Stochastic gradient descent with warm restarts (barz2022 Sec. 4.2).

    In every cycle the learning rate falls from `lr` to 1e-6 along half a cosine; each cycle is twice as long as the
    one before. Paper scale is `epochs=372, cycle=12`: cycles of 12, 24, 48, 96 and 192 epochs.

    Args:
        cycle: Epochs of the first cycle; 0: one cycle over all epochs.
        clip: Largest norm of the gradient; 0: no clipping.
        head_rate: Multiple of the learning rate for new layers (`model.head`, or `model.new_parts`); above 1, as is
            common in WSOL code, it spares the pretrained ones.
        seed: Seed of the order of the images and of their augmentation.

    Raises:
        ValueError: For values out of range, and if `epochs` would cut the last cycle off.
    """

    epochs: int
    batch_size: int = 96
    lr: float = 0.1
    cycle: int = 0
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip: float = 10.0
    head_rate: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch_size", 1), ("cycle", 0), ("momentum", 0), ("clip", 0)):
            if (value := getattr(self, name)) < low:
                raise ValueError(f"{name}={value}: must be at least {low}")
        for name in ("lr", "head_rate"):
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"{name}={value}: must be above 0")
        ends, length = [0], self.cycle
        while self.cycle and ends[-1] < self.epochs:
            ends.append(ends[-1] + length)
            length *= 2
        if self.cycle and ends[-1] != self.epochs:
            raise ValueError(
                f"epochs={self.epochs} ends inside a cycle; with cycle={self.cycle} take "
                f"{' or '.join(str(end) for end in ends[-2:] if end)}, or cycle=0 for one cycle over all epochs"
            )

    def optimizer(self, parameters: list[dict[str, Any]]) -> Optimizer:
        """The optimizer of these parameter groups."""
        return SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

    def schedule(self, optimizer: Optimizer) -> LRScheduler:
        """The learning-rate schedule, stepped after every epoch."""
        low = min(1e-6, self.lr)
        return CosineAnnealingWarmRestarts(optimizer, T_0=self.cycle or self.epochs, T_mult=2, eta_min=low)


@dataclass(frozen=True)
class StepPlan(Plan):
    """Gradient descent whose learning rate is multiplied by `factor` after `every` epochs; `cycle` must be 0.

    With `nesterov`, the gradient is taken where the momentum leads, as in the code of bae2020.

    Example:
        >>> StepPlan(epochs=60, lr=0.001, every=20).factor
        0.1
    """

    every: int = 20
    factor: float = 0.1
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cycle:
            raise ValueError(f"cycle={self.cycle}: a learning rate that falls in steps has no cycles")
        if self.every < 1:
            raise ValueError(f"every={self.every}: must be at least 1")
        if not 0 < self.factor <= 1:
            raise ValueError(f"factor={self.factor}: must be above 0 and at most 1")

    def optimizer(self, parameters: list[dict[str, Any]]) -> Optimizer:
        """The optimizer of these parameter groups."""
        return SGD(parameters, self.lr, self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov)

    def schedule(self, optimizer: Optimizer) -> LRScheduler:
        """The learning-rate schedule, stepped after every epoch."""
        return StepLR(optimizer, step_size=self.every, gamma=self.factor)


@dataclass(frozen=True)
class AdamPlan(Plan):
    """Adam, with a learning rate that falls along half a cosine; `momentum` is its beta1, `beta2` the other in [0, 1).

    Example:
        >>> AdamPlan(epochs=70, batch_size=16).lr
        0.001
    """

    lr: float = 0.001
    beta2: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta2 < 1:
            raise ValueError(f"beta2={self.beta2}: must be at least 0 and below 1")

    def optimizer(self, parameters: list[dict[str, Any]]) -> Optimizer:
        """The optimizer of these parameter groups."""
        return Adam(parameters, lr=self.lr, betas=(self.momentum, self.beta2), weight_decay=self.weight_decay)


def groups(model: nn.Module, plan: Plan) -> list[dict[str, Any]]:
    """Parameter groups without frozen parameters: new layers, with their learning rate, after the others.

    Example:
        >>> from wsolnb.models.cam import classifier
        >>> [group.get("lr") for group in groups(classifier("tiny", 3), Plan(1, lr=0.01, head_rate=10))]
        [None, 0.1]
    """
    new = tuple(f"{part}." for part in getattr(model, "new_parts", ("head",)))
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    rest = [p for name, p in named if not name.startswith(new)]
    head = [p for name, p in named if name.startswith(new)]
    result: list[dict[str, Any]] = [{"params": rest}, {"params": head, "lr": plan.head_rate * plan.lr}]
    return result if rest and head else result[:1] if rest else result[1:]
