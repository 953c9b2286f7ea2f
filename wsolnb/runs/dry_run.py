"""An estimate of what a run costs: its trainings and their steps, with time and memory from one measured step.

``papers/<key>/trainings.yaml`` lists what the notebook trains, an entry for each kind of training, in the names of the
notebook's parameters:

- ``what`` it is, in words;
- ``network``: a name of a backbone, or the parameter that holds one or a list of them;
- ``stride``, ``images``, ``epochs``, ``side``, ``batch``: a number, or the parameter that holds it;
- ``times``: how many, or a list whose parts are added; there the name of a parameter counts the items of its list, or
  is 1 if its text is not empty;
- ``only: critters`` for what is left out on photos;
- ``frozen``: the parameter that says whether the backbone is, or lists the parts that are (``backbone``, ``dense``);
- ``dense``: fully connected layers on a grid of cells in place of a linear head: the parameters that hold the cells on
  a side (``grid``), the ``hidden`` widths and that of the last layer (``adapt``); under the name of a network, its own
  cells and widths, which hold where the grid is 0 or theirs;
- ``counts: objects`` where every object of a photo is an image of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from wsolnb.data.download.sources import Source, human, read_sources
from wsolnb.runs.paper import Paper
from wsolnb.runs.run import resolve

if TYPE_CHECKING:
    from torch import nn

_FIELDS = {
    "what",
    "network",
    "stride",
    "images",
    "epochs",
    "side",
    "batch",
    "times",
    "only",
    "frozen",
    "counts",
    "dense",
}
_SUFFIXES = (".jpg", ".jpeg", ".png")
_SIDE = 224  # pixels, where image_size is 0
_CPU_IMAGES = 4  # images of the measured step on a CPU; time and memory are scaled to the batch


@dataclass(frozen=True)
class Training:
    """One kind of training of a run."""

    what: str
    network: str  # name of the backbone
    images: int | None  # per epoch; None if unknown
    epochs: int
    batch: int  # images per step
    side: int  # of the images, in pixels
    stride: int | None = None  # pixels per cell of the features; None for the backbone's own
    times: int = 1  # trainings of this kind
    frozen: bool = False  # whether the backbone is
    objects: bool = False  # whether every object is an image of its own, so that there are at least as many as images
    grid: int = 0  # cells on a side that fully connected layers read; 0: a linear head on averaged features
    dense: tuple[int, ...] = ()  # widths of these layers
    dense_frozen: int = 0  # how many of them, from the first, are frozen

    @property
    def steps(self) -> int | None:
        """Steps of all trainings of this kind, or None if the number of images is unknown.

        Example:
            >>> Training("cam", "tiny", images=100, epochs=6, batch=32, side=64, times=2).steps
            48
        """
        return None if self.images is None else self.times * self.epochs * math.ceil(self.images / self.batch)


@dataclass(frozen=True)
class Budget:
    """What a run trains."""

    dataset: str  # in words
    parameters: dict[str, Any]  # all of them
    classes: int | None  # None if unknown
    trainings: list[Training]


def budget(source: str, parameters: Mapping[str, object] | None = None, *, recipe: str | None = None) -> Budget:
    """Work out what a run of a paper trains, without its data and without a network.

    The number of images is ``train_images`` or, if that is 0, counted in ``metadata`` or ``data_root``, or else that of
    the official data set that the recipe is named after. Arguments as for :func:`wsolnb.runs.run.run`.

    Raises:
        ValueError: If paper, recipe or a parameter is unknown, a value does not fit its type, or ``trainings.yaml``
            does not fit the notebook.
        FileNotFoundError: If ``data_root``, ``metadata`` or ``trainings.yaml`` does not exist.

    Example:
        >>> [(training.what, training.steps) for training in budget("primer", recipe="smoke").trainings]
        [('average and maximum pooling', 6)]
    """
    if source.endswith(".ipynb"):
        raise ValueError(f"{source}: only what a paper's trainings.yaml lists can be estimated, give the paper's key")
    path = Paper(source).folder / "trainings.yaml"
    values = resolve(source, parameters, recipe=recipe).parameters
    critters = values.get("dataset", "critters") == "critters"
    if critters:
        images, dataset, classes = None, "critters (drawn here)", values.get("families", 4) * values.get("species", 3)
    else:
        official = _official(values, Path(recipe).stem if recipe else "")
        images, origin = _count_images(values, official)
        dataset = f"{official.title if official else values['dataset']} ({origin})"
        classes = official.classes if official else None
    trainings: list[Training] = []
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
        try:
            trainings += _trainings(entry, values, images, critters)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: {entry.get('what')!r} does not fit the notebook: {error!r}") from error
    return Budget(dataset, values, classes, trainings)


def _trainings(
    entry: Mapping[str, Any], values: Mapping[str, Any], images: int | None, critters: bool
) -> Iterator[Training]:
    if unknown := set(entry) - _FIELDS:
        raise TypeError(f"unknown fields {sorted(unknown)}")
    if entry.get("only") == "critters" and not critters:
        return

    def value(field: str, default: str) -> Any:
        number = entry.get(field, default)
        return values[number] if isinstance(number, str) else number

    def count(part: int | str) -> int:
        if isinstance(part, int):
            return part
        return len(values[part]) if isinstance(values[part], list) else int(bool(values[part]))

    parts = entry.get("times", 1)
    frozen = value("frozen", "") if "frozen" in entry else False
    name = entry.get("network", "backbone")
    networks = values.get(name, name)
    for network in networks if isinstance(networks, list) else [networks]:
        grid, hidden, adapt = _dense_layers(entry["dense"], values, network) if "dense" in entry else (0, [], [])
        training = Training(
            entry["what"],
            network,
            images=value("images", "train_images") or images,
            epochs=value("epochs", "epochs"),
            batch=value("batch", "batch_size"),
            side=value("side", "image_size") or _SIDE,
            stride=value("stride", "stride") or None if "stride" in values else None,
            times=sum(map(count, parts if isinstance(parts, list) else [parts])),
            frozen="backbone" in frozen if isinstance(frozen, list) else bool(frozen),
            objects=not critters and entry.get("counts") == "objects",
            grid=grid,
            dense=(*hidden, *adapt),
            dense_frozen=len(hidden) if isinstance(frozen, list) and "dense" in frozen else 0,
        )
        if training.times and training.epochs:
            yield training


def _dense_layers(
    entry: Mapping[str, Any], values: Mapping[str, Any], network: str
) -> tuple[int, list[int], list[int]]:
    """Cells on a side, and widths of the hidden and of the last fully connected layers."""
    cells, *widths = entry.get(network, [7])
    grid, adapt = values[entry["grid"]] or cells, [values[entry["adapt"]]]
    return (grid, widths, adapt) if widths and grid == cells else (grid, values[entry["hidden"]], adapt)


def _split(values: Mapping[str, Any]) -> str:
    return values.get("train_split") or next(iter(values.get("splits", [])), "")


def _official(values: Mapping[str, Any], recipe: str) -> Source | None:
    """The official data set: the recipe is named after it, or it has the name of the data set or of the split."""
    sources, dataset = read_sources(), values["dataset"]
    for name in (recipe.partition("-")[0], dataset):
        if name in sources and sources[name].splits:
            return sources[name]
    if values.get("data_root") or dataset != "coco":
        return None
    return next((source for source in sources.values() if _split(values) in source.splits), None)


def _count_images(values: Mapping[str, Any], official: Source | None) -> tuple[int | None, str]:
    """The number of training images, and where it comes from."""
    if values.get("train_images"):
        return values["train_images"], "train_images"
    split = _split(values)
    for name in ("metadata", "data_root"):
        if values.get(name) and not Path(values[name]).is_dir():
            raise FileNotFoundError(f"no folder {values[name]}, given as {name}")
    if values.get("metadata"):
        ids = Path(values["metadata"]) / split / "image_ids.txt"
        return len(ids.read_text(encoding="utf-8").split("\n")) - 1, f"counted in {ids}"
    if values.get("data_root"):
        folder = Path(values["data_root"]) / split
        if split and folder.is_dir():
            return sum(path.suffix.lower() in _SUFFIXES for path in folder.rglob("*")), f"counted in {folder}"
    if official and split in official.splits:
        return official.splits[split], f"official {split} split"
    return None, "images not counted: give data_root or train_images"


@dataclass(frozen=True)
class Step:
    """One step of training that was measured."""

    seconds: float  # of a whole batch
    memory: int  # its peak in bytes: weights, gradients, momentum, and what is kept for the backward pass
    parameters: int  # number of weights
    measured: int  # images in the measured step
    device: str


def measure_step(training: Training, classes: int, *, device: str = "auto", precision: str = "auto") -> Step:
    """Take a step on random images: the backbone with a linear head or fully connected layers, and cross-entropy.

    On a GPU it is a whole batch; on a CPU a few images, and time and memory are scaled in proportion. What else a paper
    adds (further heads, a second network) is not included. Device and precision are those of the notebooks.

    Raises:
        ValueError: If the device does not exist, or a batch does not fit into its memory.

    Example:
        >>> step = measure_step(Training("cam", "tiny", 100, 6, batch=2, side=48), 5, device="cpu")
        >>> step.measured, step.parameters
        (2, 162509)
    """
    import torch
    from torch.nn.functional import cross_entropy

    from wsolnb.train.training import resolve_device

    target = resolve_device(device)
    gpu = target.type == "cuda"
    count = training.batch if gpu else min(training.batch, _CPU_IMAGES)
    net = _network(training, classes).to(target).train()
    trained = [weight for weight in net.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-6, momentum=0.9)
    images = torch.rand(count, 3, training.side, training.side, device=target)
    labels = torch.zeros(count, dtype=torch.int64, device=target)
    saved: dict[int, int] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    mixed = precision == "bf16-mixed" or (gpu and precision == "auto")
    try:
        for _ in range(2):  # the first warms up
            saved.clear()
            if gpu:
                torch.cuda.reset_peak_memory_stats(target)
                torch.cuda.synchronize(target)
            started = time.perf_counter()
            autocast = torch.autocast(target.type, torch.bfloat16, enabled=mixed)
            with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor), autocast:
                loss = cross_entropy(net(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if gpu:
                torch.cuda.synchronize(target)
            seconds = time.perf_counter() - started
    except torch.OutOfMemoryError:
        size = f"{count} images of {training.side} px through {training.network}"
        raise ValueError(f"a step of {size} does not fit into the memory of {target}: lower batch_size") from None
    scale, weights = training.batch / count, list(net.parameters())
    if gpu:
        memory = torch.cuda.max_memory_allocated(target)
    else:  # weights, their gradients and momentum, and whatever else autograd saved
        for weight in weights:
            saved.pop(weight.untyped_storage().data_ptr(), None)
        state = sum(weight.nbytes for weight in weights) + 2 * sum(weight.nbytes for weight in trained)
        memory = int(state + scale * sum(saved.values()))
    return Step(seconds * scale, memory, sum(weight.numel() for weight in weights), count, str(target))


def _network(training: Training, classes: int) -> nn.Module:
    from itertools import pairwise

    from torch import nn

    from wsolnb.models.backbones import backbone
    from wsolnb.models.cam import classifier

    if not training.grid:
        net = classifier(training.network, classes, stride=training.stride)
        net.backbone.requires_grad_(not training.frozen)
        return net
    body = backbone(training.network, stride=training.stride)
    widths = [body.out_channels * training.grid**2, *training.dense, classes]
    layers = [nn.Linear(*pair) for pair in pairwise(widths)]
    for layer in layers[: training.dense_frozen]:
        layer.requires_grad_(False)
    dense = [part for layer in layers for part in (nn.ReLU(), layer)][1:]
    return nn.Sequential(
        body.requires_grad_(not training.frozen), nn.AdaptiveAvgPool2d(training.grid), nn.Flatten(), *dense
    )


def describe(plan: Budget) -> Iterator[str]:
    """The lines of ``wsolnb run --dry-run``; measures a step for every kind of network.

    Example:
        >>> next(describe(budget("primer", recipe="smoke")))
        'data set    critters (drawn here)'
    """
    values = plan.parameters
    yield f"data set    {plan.dataset}"
    yield f"            {plan.classes or 'unknown number of'} classes"
    yield "parameters  " + ", ".join(f"{name}={value!r}" for name, value in values.items())
    steps: dict[tuple[object, ...], Step] = {}
    kind: tuple[object, ...]
    seconds = 0.0
    for training in plan.trainings:
        kind = (training.network, training.stride, training.batch, training.side, training.frozen)
        kind += (training.grid, training.dense, training.dense_frozen)
        if kind not in steps:
            device, precision = values.get("device", "auto"), values.get("precision", "auto")
            steps[kind] = measure_step(training, plan.classes or 100, device=device, precision=precision)
        step = steps[kind]
        frozen = ", backbone frozen" if training.frozen else ""
        at_least = "at least " if training.objects else ""
        images = f"{at_least}{training.images:,}" if training.images else "an unknown number of"
        count = f"{at_least}{training.steps:,}" if training.steps else "unknown"
        yield f"training    {training.what}: {training.times} x {training.epochs} epochs"
        head = "a linear head"
        if training.grid:
            widths = ", ".join(map(str, training.dense))
            head = f"fully connected layers of {widths} on {training.grid} x {training.grid} cells"
            frozen += f", {training.dense_frozen} of these layers too" if training.dense_frozen else ""
        yield f"  model     {training.network} with {head}, {step.parameters:,} weights{frozen}"
        yield f"  steps     {count}, of {training.batch} images of {training.side} px, {images} images in an epoch"
        measured = f"measured on {step.measured} images on {step.device}"
        yield f"  a step    {step.seconds:.3g} s, {human(step.memory)} ({measured})"
        seconds += (training.steps or 0) * step.seconds
    memory = max((step.memory for step in steps.values()), default=0)
    yield f"memory      about {human(memory)} for the largest step, besides data and libraries"
    if any(training.steps is None for training in plan.trainings):
        total = "unknown: images are not counted"
    else:
        total = f"{'at least' if any(t.objects for t in plan.trainings) else 'about'} {_clock(seconds)}"
    yield f"time        {total} of training; evaluation and figures come on top"


def _clock(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
