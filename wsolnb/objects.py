"""One object per image: read the map of the true class from a classifier, cut one box out of it, and judge that.

    images -> features -> the true class's map, for one or more sets of head weights -> box rule -> right or wrong

A set of weights is one way to read the same network: all of them (class activation maps), the negative ones clamped to
zero, or the negative ones alone. The network runs once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import to_dtype

from wsolnb.boxes import BoxRule
from wsolnb.metrics.baselines import centred_gaussian
from wsolnb.metrics.bootstrap import Statistic
from wsolnb.metrics.masks import PxAP
from wsolnb.metrics.topk import TopLocalization
from wsolnb.models.cam import Classifier
from wsolnb.progress import track
from wsolnb.quantise import minmax, percentile

_BATCH = 64
_MASKS = ("masks", "mark_masks", "ignore")


@dataclass(frozen=True)
class ObjectMaps:
    """The map of the true class of every image of a data set, in its order, with the truth about it.

    Args:
        maps: At feature resolution, float `(N, h, w)`, on the CPU.
        scores: Outputs of the classifier `(N, C)`.
        labels: True classes, int64 `(N,)`.
        boxes: True boxes of every image, `(n, 4)` in pixels of the frame.
        frame: Height and width to which all images were brought.
        masks: Where the truth has them, bool `(N, H, W)` in the frame: `masks` (the object), `mark_masks` (the mark on
            a critter's head), `ignore` (regions that count for nothing).
    """

    maps: Tensor
    scores: Tensor
    labels: Tensor
    boxes: Sequence[Tensor]
    frame: tuple[int, int]
    masks: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.maps)

    @property
    def accuracy(self) -> float:
        """Share of the images whose best-scored class is the true one."""
        return float((self.scores.argmax(dim=1) == self.labels).double().mean())

    def box_masks(self) -> Tensor:
        """Pixels inside the true boxes, bool `(N, H, W)` in the frame; a pixel counts if its middle is inside."""
        height, width = self.frame
        x, y = torch.arange(width) + 0.5, torch.arange(height)[:, None] + 0.5
        masks = torch.zeros(len(self), height, width, dtype=torch.bool)
        for mask, boxes in zip(masks, self.boxes, strict=True):
            for x0, y0, x1, y1 in boxes.tolist():
                mask |= (x > x0) & (x < x1) & (y > y0) & (y < y1)
        return masks

    def part(self, indices: Tensor) -> ObjectMaps:
        """The maps of some images."""
        masks = {name: each[indices] for name, each in self.masks.items()}
        boxes = [self.boxes[i] for i in indices.tolist()]
        return ObjectMaps(self.maps[indices], self.scores[indices], self.labels[indices], boxes, self.frame, masks)

    def cut(self, rule: BoxRule) -> Tensor:
        """The rule's box of every map, `(N, 4)` in pixels of the frame."""
        return rule(self.maps[:, None], self.frame)[:, 0]

    def enlarged(self) -> Tensor:
        """Maps at the size of the frame, bicubic and then stretched to [0, 1] each, as the field's evaluators do."""
        maps = F.interpolate(self.maps[:, None].float(), self.frame, mode="bicubic", align_corners=False)
        return minmax(maps[:, 0])


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
        statistic: Features `(B, D, h, w)` to one row per image, such as `wsolnb.analysis.activated_area`.
        image_size: As for `read_objects`.
        workers: Processes that decode.

    Example:
        >>> from wsolnb.analysis import activated_area
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


def baselines(found: ObjectMaps) -> dict[str, ObjectMaps]:
    """Maps that look at no image, in place of those found: a Gaussian in the `centre`, and the `whole` image.

    Example:
        >>> truth = (torch.zeros(1, 3), torch.tensor([2]), [torch.tensor([[2.0, 2.0, 6.0, 6.0]])], (8, 12))
        >>> flat = baselines(ObjectMaps(torch.rand(1, 4, 6), *truth))
        >>> {name: each.cut(BoxRule(0.5))[0].tolist() for name, each in flat.items()}
        {'centre': [3.0, 2.0, 9.0, 6.0], 'whole': [0.0, 0.0, 12.0, 8.0]}
    """
    shape = (len(found), *found.frame)
    flat = {"centre": centred_gaussian(found.frame), "whole": torch.ones(found.frame)}
    return {name: replace(found, maps=values.expand(shape)) for name, values in flat.items()}


@dataclass(frozen=True)
class Located:
    """One way to cut boxes out of maps, with the threshold that was best on held-out images.

    Args:
        found: Maps and truth of the test images.
        rule: How a map becomes a box, with that threshold.
        judged: GT-known and top-1 localization of the test images at all thresholds.
    """

    found: ObjectMaps
    rule: BoxRule
    judged: TopLocalization

    def boxes(self, indices: Sequence[int]) -> Tensor:
        """The boxes of some test images, `(n, 4)` in pixels of the frame."""
        return self.found.part(torch.tensor(list(indices))).cut(self.rule)

    def regions(self) -> Tensor:
        """What the rule keeps of every test image before it looks for the largest piece, bool `(N, H, W)`."""
        maps = self.found.enlarged()
        percent = self.rule.percentile if self.rule.reference == "percentile" else 100.0
        return maps > (self.rule.threshold * percentile(maps, percent)).to(maps)[:, None, None]

    def curve(self) -> tuple[Tensor, Tensor]:
        """GT-known localization over the threshold: thresholds and accuracies, `(T,)` each."""
        return self.judged.thresholds.clone(), self.judged.accuracy()[0, 0]

    def evidence(self) -> dict[str, Statistic]:
        """The numbers of bae2020's tables as functions of image weights.

        Returns:
            `top1_cls`; `gt_known` and `top1_loc` at the rule's threshold; `gt_known_oracle` at the best one of every
            draw; `pxap` where masks are known.
        """
        wrong = self.judged.statistic("top1_error", self.rule.threshold)
        named = (self.found.scores.argmax(dim=1) == self.found.labels).double()
        numbers: dict[str, Statistic] = {
            "top1_cls": lambda weights: weights.double() @ named / weights.double().sum(dim=1),
            "gt_known": self.judged.statistic("gt_known", self.rule.threshold),
            "top1_loc": lambda weights: 1 - wrong(weights),
            "gt_known_oracle": self.judged.statistic("gt_known"),
        }
        if "masks" in self.found.masks:
            pixels = PxAP(thresholds=200, per_image=True)
            for part in torch.arange(len(self.found)).split(_BATCH):
                rows = self.found.part(part)
                pixels.update(rows.enlarged(), rows.masks["masks"], rows.masks.get("ignore"))
            numbers["pxap"] = pixels.statistic()
        return numbers


def locate(
    held: ObjectMaps, test: ObjectMaps, rule: BoxRule, *, thresholds: int = 100, ks: Sequence[int] = (1,)
) -> Located:
    """Judge boxes on test images, at the threshold that is best for GT-known localization on held-out images.

    Args:
        held: Maps and truth of the held-out images.
        test: Maps and truth of the test images.
        rule: How a map becomes a box. Its own threshold is replaced; maps are enlarged and stretched as by
            `ObjectMaps.enlarged`.
        thresholds: Number of thresholds `i / thresholds`.
        ks: The values of k for top-k localization.

    Example:
        >>> heat = torch.full((1, 8, 12), 0.4)
        >>> heat[0, 2:6, 3:9], heat[0, 0, 0] = 1.0, 0.0
        >>> truth = (torch.tensor([[0.9, 0.1]]), torch.tensor([0]), [torch.tensor([[3.0, 2.0, 9.0, 6.0]])], (8, 12))
        >>> found = ObjectMaps(heat, *truth)
        >>> located = locate(found, found, BoxRule(), thresholds=20)
        >>> located.rule.threshold, located.boxes([0]).tolist()
        (0.4, [[3.0, 2.0, 9.0, 6.0]])
        >>> {name: float(number(torch.ones(1, 1))) for name, number in located.evidence().items()}
        {'top1_cls': 1.0, 'gt_known': 1.0, 'top1_loc': 1.0, 'gt_known_oracle': 1.0}
    """
    best = _judged(held, rule, thresholds, ks).best_threshold()
    return Located(test, replace(rule, threshold=best), _judged(test, rule, thresholds, ks))


def _judged(found: ObjectMaps, rule: BoxRule, thresholds: int, ks: Sequence[int]) -> TopLocalization:
    metric = TopLocalization(ks=ks, rule=rule, thresholds=thresholds, per_image=True)
    for part in torch.arange(len(found)).split(_BATCH):
        rows = found.part(part)
        metric.update(rows.enlarged(), rows.boxes, rows.scores, rows.labels)
    return metric


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
