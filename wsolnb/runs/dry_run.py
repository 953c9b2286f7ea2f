"""What a run would cost: its trainings, their steps, and memory and time from one step that is really taken.

``papers/<key>/trainings.yaml`` lists what the notebook trains, an entry for each kind of training, in the names of the
notebook's parameters:

- ``what`` it is, in words;
- ``network``: a name of a backbone, or the parameter that holds one or a list of them;
- ``stride``, ``images``, ``epochs``, ``side``, ``batch``: a number, or the parameter that holds it;
- ``times``: how many, or a list whose parts are added; there the name of a parameter counts the items of its list, or
  is 1 if its text is not empty;
- ``only: critters`` for what is left out on photos;
- ``frozen``: the parameter that says whether the backbone is;
- ``counts: objects`` where every object of a photo is an image of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wsolnb.data.download.sources import Source, human, read_sources
from wsolnb.runs.paper import Paper
from wsolnb.runs.run import resolve

_FIELDS = {"what", "network", "stride", "images", "epochs", "side", "batch", "times", "only", "frozen", "counts"}
_SUFFIXES = (".jpg", ".jpeg", ".png")
_OWN_SIDE = 224


@dataclass(frozen=True)
class Budget:
    """What a run of a paper will do.

    Attributes:
        key: Of the paper.
        dataset: The data set in words.
        parameters: All parameters of the notebook.
        classes: Number of classes, or None if that is not known here.
        trainings: In the order of the notebook.
    """

    key: str
    dataset: str
    parameters: dict[str, Any]
    classes: int | None
    trainings: list[Training]


def budget(source: str, parameters: Mapping[str, object] | None = None, *, recipe: str | None = None) -> Budget:
    """Work out what a run of a paper will do, without data and without a network.

    The number of images is ``train_images``, or where that is 0, what is found in ``metadata`` or ``data_root``, or
    what the official data set has that the recipe is named for.

    Args:
        source: Key of the paper.
        parameters: As for :func:`wsolnb.runs.run.run`.
        recipe: The same.

    Raises:
        ValueError: If paper, recipe or a parameter is not known, a value does not fit its type, or ``trainings.yaml``
            does not fit the notebook.
        FileNotFoundError: If ``data_root`` or ``metadata`` is given and not there, or ``trainings.yaml`` is missing.

    Example:
        >>> [(each.what, each.steps) for each in budget("primer", recipe="smoke").trainings]
        [('average and maximum pooling', 6)]
    """
    if source.endswith(".ipynb"):
        raise ValueError(f"{source}: only what a paper's trainings.yaml lists can be foretold, give the paper's key")
    paper = Paper(source)
    values = resolve(source, parameters, recipe=recipe).resolved
    drawn = values.get("dataset", "critters") == "critters"
    official = None if drawn else _official(values, Path(recipe).stem if recipe else "")
    images, where = (None, "drawn here") if drawn else _count(values, official)
    title = "critters" if drawn else official.title if official else str(values["dataset"])
    classes = official.classes if official else None
    if drawn:
        classes = values.get("families", 4) * values.get("species", 3)
    path = paper.folder / "trainings.yaml"
    trainings: list[Training] = []
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
        try:
            trainings += _read(entry, values, images, drawn)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: {entry.get('what')!r} does not fit the notebook: {error!r}") from error
    return Budget(source, f"{title} ({where})", values, classes, trainings)


def _read(entry: Mapping[str, Any], values: Mapping[str, Any], images: int | None, drawn: bool) -> Iterator[Training]:
    if unknown := set(entry) - _FIELDS:
        raise TypeError(f"unknown fields {sorted(unknown)}")
    if entry.get("only") == "critters" and not drawn:
        return

    def value(field: str, usual: str) -> Any:
        said = entry.get(field, usual)
        return values[said] if isinstance(said, str) else said

    said = entry.get("network", "backbone")
    networks = values.get(said, said)
    parts = entry.get("times", 1)
    times = sum(_size(part, values) for part in (parts if isinstance(parts, list) else [parts]))
    frozen = value("frozen", "") if "frozen" in entry else False
    for network in networks if isinstance(networks, list) else [networks]:
        training = Training(
            entry["what"],
            network,
            value("images", "train_images") or images,
            value("epochs", "epochs"),
            value("batch", "batch_size"),
            value("side", "image_size") or _OWN_SIDE,
            value("stride", "stride") or None if "stride" in values else None,
            times,
            "backbone" in frozen if isinstance(frozen, list) else bool(frozen),
            not drawn and entry.get("counts") == "objects",
        )
        if training.times and training.epochs:
            yield training


def _size(part: int | str, values: Mapping[str, Any]) -> int:
    if isinstance(part, int):
        return part
    return len(values[part]) if isinstance(values[part], list) else int(bool(values[part]))


def _split(values: Mapping[str, Any]) -> str:
    return values.get("train_split") or next(iter(values.get("splits", [])), "")


def _official(values: Mapping[str, Any], recipe: str) -> Source | None:
    """The official data set that is meant: the recipe is named for it, or data set or split have its name."""
    table, dataset = read_sources(), values["dataset"]
    for name in (recipe.partition("-")[0], dataset):
        if name in table and table[name].splits:
            return table[name]
    if values.get("data_root") or dataset != "coco":
        return None
    return next((source for source in table.values() if _split(values) in source.splits), None)


def _count(values: Mapping[str, Any], official: Source | None) -> tuple[int | None, str]:
    """Images of the training split, and where that number is from."""
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


def describe(found: Budget) -> Iterator[str]:
    """Say in lines what a run will do and cost, with a step measured for each kind of network.

    Args:
        found: What :func:`budget` gave.
    """
    values = found.parameters
    yield f"data set    {found.dataset}"
    yield f"            {found.classes or 'unknown number of'} classes"
    yield "parameters  " + ", ".join(f"{name}={value!r}" for name, value in values.items())
    steps: dict[tuple[object, ...], Step] = {}
    total, known, memory = 0.0, True, 0
    for training in found.trainings:
        same = (training.network, training.stride, training.batch, training.side, training.frozen)
        if same not in steps:
            device, precision = values.get("device", "auto"), values.get("precision", "auto")
            steps[same] = measure_step(training, found.classes or 100, device=device, precision=precision)
        step = steps[same]
        least = "at least " if training.objects else ""
        yield f"training    {training.what}: {training.times} x {training.epochs} epochs"
        frozen = ", backbone frozen" if training.frozen else ""
        yield f"  model     {training.network} with a linear head, {step.parameters:,} weights{frozen}"
        of = f"{least}{training.images:,}" if training.images else "an unknown number of"
        count = f"{least}{training.steps:,}" if training.steps else "unknown"
        yield f"  steps     {count}, of {training.batch} images of {training.side} px, {of} images in an epoch"
        measured = f"measured on {step.measured} images on {step.device}"
        yield f"  a step    {step.seconds:.3g} s, {human(step.memory)} ({measured})"
        memory = max(memory, step.memory)
        if training.steps is None:
            known = False
        else:
            total += training.steps * step.seconds
    objects = any(training.objects for training in found.trainings)
    yield f"memory      about {human(memory)} for the largest step, besides data and libraries"
    said = f"{'at least' if objects else 'about'} {_clock(total)}" if known else "unknown: images are not counted"
    yield f"time        {said} of training; evaluation and figures come on top"


def _clock(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


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
    from wsolnb.train.training import resolve_device

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
