"""One loop over a data set for every method: images -> readers -> maps and class scores.

`read` keeps the maps of all classes; `read_objects` the true class's, for images with objects of one class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import to_dtype

from wsolnb._utils.processes import share_out
from wsolnb._utils.progress import track
from wsolnb.data.readers.scenes import SceneBatch, scene_batches
from wsolnb.localization.maps import LocalizationMaps, SceneMaps, stretched
from wsolnb.losses import Objective
from wsolnb.models.cam import Classifier, class_activation_maps

_BATCH = 64
_MASKS = ("masks", "mark_masks", "ignore")

Labels = Sequence[Tensor]
"""The classes that each image shows, int64 `(n,)` per image."""

Reader = Callable[[Tensor, Labels | None], tuple[Tensor, Tensor]]
"""Images `(B, 3, H, W)` in [0, 1], and their labels if known, to maps `(B, K, h, w)` and class scores `(B, K)`. Given
labels, a reader may skip maps that no metric needs, and return the true class's alone."""


@dataclass(frozen=True)
class FeatureReader:
    """A reader in two parts, so that readers of one network share its forward pass.

    Args:
        forward: From images to features, or another output of the network; readers with an equal one share it.
        readout: From features and labels to maps and scores.

    Example:
        >>> mean = FeatureReader(torch.nn.AvgPool2d(4), lambda features, labels: (features, features.amax((2, 3))))
        >>> [part.shape for part in mean(torch.rand(2, 3, 8, 12), None)]
        [torch.Size([2, 3, 2, 3]), torch.Size([2, 3])]
    """

    forward: Callable[[Tensor], Any]
    readout: Callable[[Any, Labels | None], tuple[Tensor, Tensor]]

    def __call__(self, images: Tensor, labels: Labels | None) -> tuple[Tensor, Tensor]:
        """Maps and scores of a batch."""
        return self.readout(self.forward(images), labels)


def cam_reader(model: Classifier, objective: Objective) -> FeatureReader:
    """Class activation maps (barz2022 Eq. 4), with the classifier's scores of the whole image.

    Example:
        >>> from wsolnb.losses import CrossEntropy
        >>> from wsolnb.models.cam import classifier
        >>> maps, scores = cam_reader(classifier("tiny", 5).eval(), CrossEntropy())(torch.rand(2, 3, 64, 96), None)
        >>> maps.shape, scores.shape
        (torch.Size([2, 5, 8, 12]), torch.Size([2, 5]))
    """

    def readout(features: Tensor, labels: Labels | None) -> tuple[Tensor, Tensor]:
        maps = class_activation_maps(features, model.head.weight, model.head.bias)
        return maps, objective.scores(model.classify(features))

    return FeatureReader(model.features, readout)


def true_class_reader(model: Classifier, weight: Tensor) -> FeatureReader:
    """The map of the true class alone, `M_k = sum_c w_ck F_c` without the bias (bae2020 Eq. 2).

    Scores are the model's own outputs, whatever weights the map is read with.

    Args:
        model: In evaluation mode.
        weight: Head weights `(C, D)`: `head.weight` for class activation maps, `head.weight.clamp(min=0)` for negative
            weight clamping (bae2020 Eq. 5).

    Raises:
        ValueError: If the weights do not have the shape of the head's.

    Example:
        >>> from wsolnb.models.cam import classifier
        >>> net = classifier("tiny", 4).eval()
        >>> read = true_class_reader(net, net.head.weight)
        >>> [part.shape for part in read(torch.rand(2, 3, 48, 64), [torch.tensor([1]), torch.tensor([3])])]
        [torch.Size([2, 1, 6, 8]), torch.Size([2, 4])]
    """
    if weight.shape != model.head.weight.shape:
        raise ValueError(f"the weights are {tuple(weight.shape)}, the head's {tuple(model.head.weight.shape)}")

    def readout(features: Tensor, labels: Labels | None) -> tuple[Tensor, Tensor]:
        rows = weight[first_labels(labels).to(weight.device)]
        return torch.einsum("bdhw,bd->bhw", features, rows)[:, None], model.classify(features)

    return FeatureReader(model.features, readout)


@torch.inference_mode()
def read(
    images: Dataset[Any],
    readers: Mapping[str, Reader],
    *,
    side: int | None = None,
    longer_side: int | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 16,
    workers: int = 0,
) -> dict[str, SceneMaps]:
    """Maps and scores of all classes in all images, by several readers in one pass over a data set.

    Args:
        images: Items `(image, target)` without a transform, of any sizes.
        readers: By name.
        side: Side of the square in pixels to which images are resized first.
        longer_side: Or the longer side (barz2022 Sec. 3.3: 640); default: not resized.
        device: Where the readers' networks are.
        batch_size: Largest number of images, all of one size, in a batch.
        workers: Decoding processes.

    Returns:
        By reader, on the CPU, with the truth in original pixels.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.losses import CrossEntropy
        >>> from wsolnb.models.cam import classifier
        >>> scenes = World(families=2, species=2, size=32).scenes(3, size=(48, 64))
        >>> found = read(scenes, {"cam": cam_reader(classifier("tiny", 4).eval(), CrossEntropy())}, side=64)["cam"]
        >>> len(found), found.maps[0].shape, found.sizes[0].tolist()
        (3, torch.Size([4, 8, 8]), [48, 64])
    """
    count: int = len(images)  # type: ignore[arg-type]
    sizes = torch.zeros(count, 2, dtype=torch.int64)
    targets: list[Any] = [None] * count
    maps: dict[str, list[Any]] = {name: [None] * count for name in readers}
    scores: dict[str, list[Any]] = {name: [None] * count for name in readers}
    for batch, outputs in _passes(
        images, readers, device, batch_size, side=side, longer_side=longer_side, workers=workers
    ):
        sizes[batch.indices] = batch.sizes
        for row, index in enumerate(batch.indices):
            targets[index] = batch.targets[row]
            for name, (batch_maps, batch_scores) in outputs.items():
                maps[name][index], scores[name][index] = batch_maps[row], batch_scores[row]
    return {name: SceneMaps(maps[name], torch.stack(scores[name]), sizes, targets) for name in readers}


@torch.inference_mode()
def read_objects(
    images: Dataset[Any],
    readers: Mapping[str, Reader],
    *,
    image_size: int | None = None,
    batch_size: int = _BATCH,
    upsample: Callable[[Tensor, tuple[int, int]], Tensor] = stretched,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> dict[str, LocalizationMaps]:
    """Maps of the true class, by several readers in one pass over images with objects of one class each.

    Args:
        images: Items `(image, target)` with one or more boxes of one class and their "labels".
        readers: By name.
        image_size: Side of the square to which images, boxes and masks are resized first; None: all have one size.
        batch_size: Images in a pass.
        upsample: As for `LocalizationMaps`.
        device: Where the readers' networks are.
        workers: Decoding processes.

    Returns:
        By reader, on the CPU.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.models.cam import classifier
        >>> world, net = World(families=2, species=2, size=(48, 64)), classifier("tiny", 4).eval()
        >>> readers = {"nwc": true_class_reader(net, net.head.weight.clamp(min=0))}
        >>> found = read_objects(world.singles(3), readers)["nwc"]
        >>> found.maps.shape, found.labels, found.image_size
        (torch.Size([3, 6, 8]), tensor([0, 1, 2]), (48, 64))
    """
    maps: dict[str, list[Tensor]] = {name: [] for name in readers}
    scores: dict[str, list[Tensor]] = {name: [] for name in readers}
    targets: list[Any] = []
    size = (0, 0)
    resized = Resized(images, image_size)
    for batch, outputs in _passes(resized, readers, device, batch_size, longer_side=None, workers=workers):
        size = (batch.images.shape[2], batch.images.shape[3])
        targets += batch.targets
        rows = torch.arange(len(batch.targets))
        labels = first_labels([target["labels"] for target in batch.targets])
        for name, (batch_maps, batch_scores) in outputs.items():
            maps[name].append(batch_maps[:, 0] if batch_maps.shape[1] == 1 else batch_maps[rows, labels])
            scores[name].append(batch_scores)
    labels, boxes, masks = truth_of(targets)
    return {
        name: LocalizationMaps(torch.cat(maps[name]), torch.cat(scores[name]), labels, boxes, size, masks, upsample)
        for name in readers
    }


def _passes(
    images: Dataset[Any], readers: Mapping[str, Reader], device: torch.device | str, batch_size: int, **options: Any
) -> Iterator[tuple[SceneBatch, dict[str, tuple[Tensor, Tensor]]]]:
    """Every batch, without its images, with each reader's maps and scores, on the CPU; of each process's share."""

    def work(mine: Sequence[int]) -> Iterator[tuple[SceneBatch, dict[str, tuple[Tensor, Tensor]]]]:
        batches = scene_batches(images, batch_size=batch_size, indices=mine, **options)
        for batch in track(batches, "batches of images", -(-len(mine) // batch_size)):
            yield batch._replace(images=batch.images[:0].clone()), _outputs(batch, readers, device)

    return share_out(len(images), batch_size, work)  # type: ignore[arg-type]


def _outputs(
    batch: SceneBatch, readers: Mapping[str, Reader], device: torch.device | str
) -> dict[str, tuple[Tensor, Tensor]]:
    images = batch.images.to(device)
    labels = [target["labels"].to(device) for target in batch.targets]
    features: dict[Any, Any] = {}
    outputs = {}
    for name, reader in readers.items():
        if isinstance(reader, FeatureReader):
            if reader.forward not in features:
                features[reader.forward] = reader.forward(images)
            maps, scores = reader.readout(features[reader.forward], labels)
        else:
            maps, scores = reader(images, labels)
        outputs[name] = (maps.float().cpu(), scores.float().cpu())
    return outputs


def first_labels(labels: Labels | None) -> Tensor:
    """The class of images with objects of one class, int64 `(B,)`.

    Raises:
        ValueError: If there are no labels.

    Example:
        >>> first_labels([torch.tensor([2, 2]), torch.tensor([0])])
        tensor([2, 0])
    """
    if labels is None:
        raise ValueError("the map of the true class is asked for, but no labels are given")
    return torch.stack([label[0] for label in labels])


def present_classes(labels: Labels, classes: int) -> Tensor:
    """Classes present in images, also as a crowd: bool `(B, K)` on the labels' device.

    Raises:
        ValueError: If a label is none of the K classes.

    Example:
        >>> present_classes([torch.tensor([2, 2])], 3)
        tensor([[False, False,  True]])
    """
    device = labels[0].device if labels else None
    present = torch.zeros(len(labels), classes, dtype=torch.bool, device=device)
    for row, label in zip(present, labels, strict=True):
        outside = label[(label < 0) | (label >= classes)]
        if len(outside):
            raise ValueError(f"class {int(outside[0])} is not one of the model's {classes} classes, 0 to {classes - 1}")
        row[label] = True
    return present


def truth_of(targets: Sequence[Mapping[str, Any]]) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
    """Labels `(N,)`, boxes and masks of images with objects of one class each, as in `LocalizationMaps`.

    Example:
        >>> from wsolnb.data.critters import World
        >>> images = World(families=2, species=2, size=(48, 64)).singles(3)
        >>> labels, boxes, masks = truth_of([images[k][1] for k in range(3)])
        >>> labels, boxes[0].shape, {name: mask.shape[1:] for name, mask in masks.items()}
        (tensor([0, 1, 2]), torch.Size([1, 4]), {'mark_masks': torch.Size([48, 64]), 'masks': torch.Size([48, 64])})
    """
    labels = torch.tensor([int(target["labels"][0]) for target in targets])
    boxes = [target["boxes"].as_subclass(Tensor) for target in targets]
    names = sorted(set(_MASKS).intersection(*targets))
    masks = {k: torch.stack([target[k].as_subclass(Tensor).any(dim=0) for target in targets]) for k in names}
    return labels, boxes, masks


class Resized(Dataset[tuple[Tensor, dict[str, Any]]]):
    """Images in [0, 1] and their truth, resized to squares of `side` pixels; None: not resized.

    Example:
        >>> from wsolnb.data.critters import World
        >>> image, target = Resized(World(size=(48, 64)).singles(1), 32)[0]
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
