"""What a run costs before it is spent, in the lines of ``wsolnb run --dry-run``: trainings, steps, memory, disk, time.

What is trained is listed by :mod:`wsolnb.runs.trainings`; :mod:`wsolnb.runs.step_cost` counts and measures a step.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from wsolnb.data.download.sources import human
from wsolnb.runs.step_cost import Cost, Measured, count, measure
from wsolnb.runs.trainings import Budget, Training

PEAK, SHARE = 312e12, 0.30
"""Of one A100: bfloat16 operations per second by its data sheet, and the share of them that is assumed in training."""

ASSUMED = f"{SHARE:.0%} of {PEAK / 1e12:.0f} TFLOP/s in bfloat16"

_WIDTH, _INDENT = 100, 12


@dataclass(frozen=True)
class Bill:
    """The costs of a run, counted; the same on every machine.

    Args:
        costs: Of each training.
        memory: Largest peak of a device, in bytes.
        weights: Bytes of the trained weights of all trainings, which stay in the cache.
        checkpoint: Bytes of the largest checkpoint, which is deleted when its training ends; twice that while it is
            written.
        operations: Floating-point operations of all trainings, None where images are not counted.
        at_least: Whether images are known to be more.
    """

    costs: list[Cost]
    memory: int
    weights: int
    checkpoint: int
    operations: int | None
    at_least: bool

    @property
    def hours(self) -> float | None:
        """Hours on one A100, estimated: :data:`SHARE` of its peak, throughout."""
        return None if self.operations is None else self.operations / (SHARE * PEAK) / 3600


def bill(plan: Budget, *, processes: int = 1) -> Bill:
    """Count what a run costs whose `processes` share every batch, each on a device of its own.

    The device has bfloat16, so that passes are in it unless the parameter ``precision`` forbids that.

    Example:
        >>> from wsolnb.runs.trainings import budget
        >>> cost = bill(budget("primer", recipe="smoke"))
        >>> cost.weights, cost.operations
        (1305504, 14047395840)
    """
    parts = plan.parameters.get("accumulate", 1)
    mixed = plan.parameters.get("precision", "auto") not in ("32-true", "64-true")
    costs = [
        count(training, -(-training.share(processes) // parts), mixed=mixed, processes=processes)
        for training in plan.trainings
    ]
    both = list(zip(plan.trainings, costs, strict=True))
    known = [training.seen for training in plan.trainings]
    done = [seen * cost.operations for seen, cost in zip(known, costs, strict=True) if seen is not None]
    return Bill(
        costs,
        max((cost.memory for cost in costs), default=0),
        sum(training.times * 4 * cost.weights for training, cost in both),
        max((cost.checkpoint for cost in costs), default=0),
        sum(done) if len(done) == len(known) else None,
        any(training.images.at_least for training in plan.trainings),
    )


def describe(plan: Budget, *, processes: int = 1) -> Iterator[str]:
    """The lines of ``wsolnb run --dry-run``, of 100 characters at most; measures steps of every kind of network.

    Example:
        >>> from wsolnb.runs.trainings import budget
        >>> next(describe(budget("primer", recipe="smoke")))
        'data set    critters, drawn here'
    """
    values = plan.parameters
    yield from _line("data set", plan.data.title)
    yield from _line("parameters", ", ".join(f"{name}={value!r}" for name, value in values.items()))
    costs, parts = bill(plan, processes=processes), values.get("accumulate", 1)
    device, precision = values.get("device", "auto"), values.get("precision", "auto")
    measured: dict[object, Measured] = {}
    seconds, before = [0.0, 0.0, 0.0], None
    for training, cost in zip(plan.trainings, costs.costs, strict=True):
        kind = (training.model, training.batch, training.side, cost)
        if kind not in measured:
            share = training.share(processes)
            measured[kind] = measure(training, cost, share, device=device, precision=precision, parts=parts)
        step = measured[kind]
        yield from _training(training, cost, step, processes, parts, again=(kind, training.images) == before)
        before = (kind, training.images)
        for k, each in enumerate((step.median, step.fastest, step.slowest)):
            seconds[k] += (training.steps or 0) * each
    peak = max((step.memory or 0 for step in measured.values()), default=0)
    found = f"measured; {human(costs.memory)} counted" if peak else "counted"
    yield from _line("memory", f"{human(peak or costs.memory)} on each device ({found}), besides data and libraries")
    yield from _line("disk", _disk(plan, costs))
    most, apart = "at least " if costs.at_least else "", ""
    if processes > 1:
        apart = f" with {processes} processes that do not wait for each other, each on a device like this one"
    if costs.hours is None or costs.operations is None:
        yield from _line("time", "unknown: images are not counted, give data_root or train_images")
        return
    middle, low, high = map(_clock, seconds)
    yield from _line("time", f"{most}{middle} ({low} to {high}) of training{apart}; evaluation and figures come on top")
    spent = f"{most}{two_digits(costs.hours)} hours of one A100-class device"
    yield from _line("estimate", f"{spent}: {two_digits(costs.operations / 1e15)} PFLOP at an assumed {ASSUMED}")


def _training(
    training: Training, cost: Cost, step: Measured, processes: int, parts: int, *, again: bool
) -> Iterator[str]:
    images, steps, share = training.images, training.steps, training.share(processes)
    most = "at least " if images.at_least else ""
    yield from _line("training", f"{training.what}: {training.times} x {training.epochs} epochs")
    split = f", at most {share} in each of {processes} processes" if processes > 1 else ""
    split += f", in {parts} parts" if parts > 1 else ""
    count = f"{most}{steps:,}" if steps else "unknown"
    counted = _line("  steps", f"{count}, of {training.batch} images of {training.side} px{split}")
    if again:
        yield from counted
        return
    learn = "all trained" if cost.trained == cost.weights else f"{cost.trained:,} of them trained"
    yield from _line("  model", f"{training.model}; {cost.weights:,} weights, {learn}")
    number = f"{most}{images.number:,}" if images.number else "an unknown number of"
    classes = f", {images.classes} classes" if images.classes else ", of 100 classes, say"
    yield from _line("  images", f"{number} {images.what} in an epoch{classes}")
    yield from counted
    scaled = "" if step.images == share else f", scaled from {step.images} images to {share}"
    spread = f"{step.fastest:.3g} to {step.slowest:.3g} s, {step.steps} steps on {step.device}{scaled}"
    yield from _line("  a step", f"{step.median:.3g} s (median; {spread}); {human(step.memory or cost.memory)}")


def _disk(plan: Budget, costs: Bill) -> str:
    source = plan.data.official
    data = "none for data" if plan.data.drawn else "the photos"
    if source is not None:
        more = " and more" if any(file.size is None for file in source.files) else ""
        data = f"{human(source.size)}{more} of data to download" if source.size else "data of unknown size"
        data += ", about as much again unpacked"
    return (
        f"{data}; weights of all trainings in the cache {human(costs.weights)}; the largest checkpoint "
        f"{human(costs.checkpoint)}, twice that while it is written; the run's folder some MB and the weights again"
    )


def _line(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=f"{name:<{_INDENT}}", subsequent_indent=" " * _INDENT, break_on_hyphens=False
    )


def _clock(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{two_digits(seconds / size)} {unit}"
    return f"{seconds:.0f} s"


def two_digits(number: float) -> str:
    """A number of which two digits count.

    Example:
        >>> two_digits(1234.5), two_digits(0.0345), two_digits(2e-7)
        ('1,200', '0.035', '< 0.001')
    """
    return f"{float(f'{number:.2g}'):,.10g}" if number >= 0.001 else "< 0.001"
