"""One object per image: read the map of the true class from a classifier, cut one box out of it, and judge that.

    images -> features -> the true class's map, for one or more sets of head weights -> box rule -> right or wrong

A set of weights is one way to read the same network: all of them (class activation maps), the negative ones clamped to
zero, or the negative ones alone. The network runs once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import to_dtype

from wsolnb._utils.progress import track
from wsolnb.data.readers.scenes import scene_batches
from wsolnb.localization.maps import ObjectMaps, SceneMaps
from wsolnb.losses import Objective
from wsolnb.models.cam import Classifier, class_activation_maps

_BATCH = 64
_MASKS = ("masks", "mark_masks", "ignore")


@torch.inference_mode()
def read_objects(
    model: Classifier,
    images: Dataset[Any],
    weights: Mapping[str, Tensor],
    *,
    image_size: int | None = None,
    workers: int = 0,
) -> dict[str, ObjectMaps]:
    """Run a classifier over images with one object class each, once, and read the true class's map in several ways.

    The map is `M_k = sum_c w_ck F_c` (bae2020 Eq. 2), without the bias. Scores are the model's own, whatever weights a
    map is read with.

    Args:
        model: In evaluation mode, on its device.
        images: Items `(image, target)` with one or more boxes of one class and their "labels".
        weights: Named head weights `(C, D)`: `head.weight` for class activation maps, `head.weight.clamp(min=0)` for
            negative weight clamping (bae2020 Eq. 5).
        image_size: Side of the square to which images are brought first, boxes with them; None keeps their size, which
            then must be the same for all.
        workers: Processes that decode.

    Returns:
        For every set of weights the maps of all images.

    Raises:
        ValueError: If weights do not have one row per output.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.models.cam import classifier
        >>> world, net = World(families=2, species=2, size=(48, 64)), classifier("tiny", 4).eval()
        >>> weight = net.head.weight.detach()
        >>> found = read_objects(net, world.singles(3), {"cam": weight, "nwc": weight.clamp(min=0)})
        >>> found["nwc"].maps.shape, found["nwc"].labels, found["nwc"].frame
        (torch.Size([3, 6, 8]), tensor([0, 1, 2]), (48, 64))
    """
    for name, each in weights.items():
        if each.shape != model.head.weight.shape:
            raise ValueError(f"weights {name!r} are {tuple(each.shape)}, the head's {tuple(model.head.weight.shape)}")
    device = next(model.parameters()).device
    loader = DataLoader(Framed(images, image_size), _BATCH, num_workers=workers, collate_fn=list)
    maps: dict[str, list[Tensor]] = {name: [] for name in weights}
    scores, frame = [], (0, 0)
    targets: list[dict[str, Any]] = []
    for rows in track(loader, "images"):
        batch = torch.stack([image for image, _ in rows]).to(device)
        frame = (batch.shape[2], batch.shape[3])
        features = model.features(batch)
        truth = torch.tensor([int(target["labels"][0]) for _, target in rows])
        for name, each in weights.items():
            maps[name].append(torch.einsum("bdhw,bd->bhw", features, each[truth.to(device)]).float().cpu())
        scores.append(model.classify(features).float().cpu())
        targets += [target for _, target in rows]
    labels, boxes, masks = truth_of(targets)
    shared = (torch.cat(scores), labels, boxes, frame, masks)
    return {name: ObjectMaps(torch.cat(each), *shared) for name, each in maps.items()}


def truth_of(targets: Sequence[Mapping[str, Any]]) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
    """Labels `(N,)`, boxes and masks of images with one object class each, as `ObjectMaps` keeps them.

    Example:
        >>> from wsolnb.data.critters import World
        >>> images = World(families=2, species=2, size=(48, 64)).singles(3)
        >>> labels, boxes, masks = truth_of([images[k][1] for k in range(3)])
        >>> labels, boxes[0].shape, {name: mask.shape[1:] for name, mask in masks.items()}
        (tensor([0, 1, 2]), torch.Size([1, 4]), {'mark_masks': torch.Size([48, 64]), 'masks': torch.Size([48, 64])})
    """
    labels = torch.tensor([int(target["labels"][0]) for target in targets])
    boxes = [target["boxes"].as_subclass(Tensor) for target in targets]
    known = set(_MASKS).intersection(*targets)
    masks = {k: torch.stack([target[k].as_subclass(Tensor).any(dim=0) for target in targets]) for k in sorted(known)}
    return labels, boxes, masks


@torch.inference_mode()
def mean_statistic(
    model: Classifier,
    images: Dataset[Any],
    statistic: Callable[[Tensor], Tensor],
    *,
    image_size: int | None = None,
    workers: int = 0,
) -> Tensor:
    """Average something over the features of all images, on the CPU.

    Args:
        model: In evaluation mode, on its device.
        images: As for `read_objects`.
        statistic: Features `(B, D, h, w)` to one row per image, such as `wsolnb.papers.bae2020.analysis.activated_area`.
        image_size: As for `read_objects`.
        workers: Processes that decode.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.models.cam import classifier
        >>> net = classifier("tiny", 4).eval()
        >>> areas = mean_statistic(net, World(families=2, species=2, size=48).singles(3), activated_area)
        >>> areas.shape == net.head.weight.shape[1:]  # one number per channel
        True
    """
    device = next(model.parameters()).device
    loader = DataLoader(Framed(images, image_size), _BATCH, num_workers=workers, collate_fn=list)
    rows = [statistic(model.features(torch.stack([i for i, _ in batch]).to(device))).cpu() for batch in loader]
    return torch.cat(rows).mean(dim=0)


class Framed(Dataset[tuple[Tensor, dict[str, Any]]]):
    """Images in [0, 1] and their truth, all brought to one size: squares of `side` pixels, or as they are.

    Example:
        >>> from wsolnb.data.critters import World
        >>> image, target = Framed(World(size=(48, 64)).singles(1), 32)[0]
        >>> image.shape, image.dtype, target["boxes"].canvas_size
        (torch.Size([3, 32, 32]), torch.float32, (32, 32))
    """

    def __init__(self, images: Dataset[Any], side: int | None) -> None:
        self.images, self.side = images, side

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        image, target = self.images[index]
        if self.side is not None:
            image, target = v2.Resize([self.side, self.side])(image, target)
        return to_dtype(image, torch.float32, scale=True).as_subclass(Tensor), target


Reader = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images `(B, 3, S, S)` in [0, 1], and which classes they truly show, bool `(B, K)`, to maps `(B, K, h, w)` and class
scores `(B, K)`. The truth is there for readers that save the time of looking where no metric looks."""


def cam_reader(model: Classifier, objective: Objective, side: int) -> Reader:
    """Class activation maps without their negative parts, and the classifier's scores, of images of `side` pixels.

    Example:
        >>> from wsolnb.losses import MultiLabelCrossEntropy
        >>> from wsolnb.models.cam import classifier
        >>> read = cam_reader(classifier("tiny", 4).eval(), MultiLabelCrossEntropy(), side=64)
        >>> maps, scores = read(torch.rand(2, 3, 96, 96), torch.ones(2, 4, dtype=torch.bool))
        >>> maps.shape, scores.shape
        (torch.Size([2, 4, 8, 8]), torch.Size([2, 4]))
    """

    def read(images: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        features = model.features(_resized(images, side))
        maps = class_activation_maps(features, model.head.weight, model.head.bias)
        return maps.clamp(min=0), objective.scores(model.classify(features))

    return read


@torch.inference_mode()
def read_maps(
    scenes: Dataset[Any],
    readers: Mapping[str, Reader],
    classes: int,
    *,
    side: int,
    device: torch.device | str = "cpu",
    batch_size: int = 16,
    workers: int = 0,
) -> dict[str, SceneMaps]:
    """Go through a data set once and read it in several ways.

    Args:
        scenes: Items `(image, target)` without a transform, of any sizes.
        readers: By name.
        classes: Number of classes.
        side: Side of the square in pixels to which images are brought first. The search crops out of that square.
        device: Where the readers' networks are.
        batch_size: Images at a time.
        workers: Processes that decode.

    Returns:
        For every reader maps and scores of all images, on the CPU, with the truth in original pixels.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.losses import MultiLabelCrossEntropy
        >>> from wsolnb.models.cam import classifier
        >>> scenes = World(families=2, species=2, size=32).scenes(3, size=(48, 64))
        >>> readers = {"cam": cam_reader(classifier("tiny", 4).eval(), MultiLabelCrossEntropy(), side=64)}
        >>> found = read_maps(scenes, readers, 4, side=64)["cam"]
        >>> len(found), found.maps[0].shape, found.sizes[0].tolist()
        (3, torch.Size([4, 8, 8]), [48, 64])
    """
    maps: dict[str, list[Tensor]] = {name: [] for name in readers}
    scores: dict[str, list[Tensor]] = {name: [] for name in readers}
    sizes: list[list[int]] = []
    targets: list[Any] = []
    for images, frames, truths in square_batches(scenes, side, batch_size, workers):
        present = shown(truths, classes)
        for name, read in readers.items():
            found, score = read(images.to(device), present.to(device))
            maps[name] += found.float().cpu().unbind()
            scores[name] += score.float().cpu().unbind()
        sizes += frames
        targets += truths
    return {name: SceneMaps(maps[name], torch.stack(scores[name]), torch.tensor(sizes), targets) for name in readers}


def shown(targets: Sequence[Any], classes: int) -> Tensor:
    """Which classes images truly show, as crowd or not: bool `(n, K)`.

    Example:
        >>> shown([{"labels": torch.tensor([2, 2])}], 3)
        tensor([[False, False,  True]])
    """
    present = torch.zeros(len(targets), classes, dtype=torch.bool)
    for row, target in zip(present, targets, strict=True):
        row[target["labels"]] = True
    return present


def _resized(images: Tensor, side: int) -> Tensor:
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True, align_corners=False)


class _Squared(Dataset[tuple[Tensor, list[int], Any]]):
    """Images brought to a square, their original sizes, and their truth in original pixels."""

    def __init__(self, scenes: Dataset[Any], side: int) -> None:
        self.scenes, self.resize = scenes, v2.Resize([side, side], antialias=True)

    def __len__(self) -> int:
        return len(self.scenes)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, list[int], Any]:
        image, target = self.scenes[index]
        pixels = image.as_subclass(Tensor)
        return to_dtype(self.resize(pixels), torch.float32, scale=True), list(pixels.shape[-2:]), target


def square_batches(
    scenes: Dataset[Any], side: int, batch_size: int = 16, workers: int = 0
) -> Iterator[tuple[Tensor, list[list[int]], list[Any]]]:
    """Go through a data set in batches of images brought to a square of `side` pixels.

    Yields:
        Images float `(B, 3, side, side)` in [0, 1], original heights and widths, and the truth in original pixels.

    Example:
        >>> from wsolnb.data.critters import World
        >>> scenes = World(families=2, species=2, size=32).scenes(3, size=(48, 64))
        >>> [(images.shape, sizes) for images, sizes, _ in square_batches(scenes, 40, batch_size=2)]
        [(torch.Size([2, 3, 40, 40]), [[48, 64], [48, 64]]), (torch.Size([1, 3, 40, 40]), [[48, 64]])]
    """
    loader = DataLoader(_Squared(scenes, side), batch_size, num_workers=workers, collate_fn=list)
    for rows in track(loader, "images"):
        yield torch.stack([row[0] for row in rows]), [row[1] for row in rows], [row[2] for row in rows]


Readout = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Features `(B, D, h, w)` to maps of all classes `(B, C, h, w)` and one score per class `(B, C)`."""


@torch.inference_mode()
def read_scenes(
    model: Classifier,
    scenes: Dataset[Any],
    readouts: Mapping[str, Readout],
    *,
    longer_side: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
) -> dict[str, SceneMaps]:
    """Run a classifier over whole scenes, once, and read its features in several ways.

    Args:
        model: In evaluation mode, on its device.
        scenes: Items `(image, target)` without a transform, of any sizes.
        readouts: Named ways to read the features.
        longer_side: Size to which images are brought first (barz2022 Sec. 3.3: 640); None keeps theirs.
        batch_size: Largest number of images, all of one size, in one pass.
        workers: Processes that decode.

    Returns:
        For every readout the maps of all images, on the model's device.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.losses import CrossEntropy
        >>> from wsolnb.models.cam import classifier
        >>> world = World(families=2, species=2)
        >>> net = classifier("tiny", 4).eval()
        >>> found = read_scenes(net, world.scenes(3, seed=0), {"cam": cam_readout(net, CrossEntropy())})["cam"]
        >>> found.scores.shape, len(found.maps)
        (torch.Size([3, 4]), 3)
    """
    device = next(model.parameters()).device
    count: int = len(scenes)  # type: ignore[arg-type]
    sizes = torch.zeros(count, 2, dtype=torch.int64)
    targets: list[Any] = [None] * count
    maps: dict[str, list[Any]] = {name: [None] * count for name in readouts}
    scores: dict[str, list[Any]] = {name: [None] * count for name in readouts}
    batches = scene_batches(scenes, longer_side=longer_side, batch_size=batch_size, workers=workers)
    for batch in track(batches, "scenes"):
        features = model.features(batch.images.to(device))
        sizes[batch.indices] = batch.sizes
        found = {name: read(features) for name, read in readouts.items()}
        for row, index in enumerate(batch.indices):
            targets[index] = batch.targets[row]
            for name, (m, s) in found.items():
                maps[name][index], scores[name][index] = m[row], s[row]
    return {name: SceneMaps(maps[name], torch.stack(scores[name]), sizes, targets) for name in readouts}
