"""Maps that are probabilities (xie2021): read them, cut them at absolute thresholds, and say how well they separate.

A class activation map has no scale of its own and is stretched to [0, 1] before it is cut. A generator's map ends in a
sigmoid: 0.5 means "undecided", in every image. So it is cut as it is, and one may ask how many pixels are undecided and
how much the boxes depend on the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from wsolnb._utils.progress import track
from wsolnb.localization.locate import Located
from wsolnb.localization.maps import SoftMaps
from wsolnb.localization.read import Framed, truth_of
from wsolnb.metrics.bootstrap import Statistic

_BATCH = 64
UNDECIDED = (0.2, 0.8)
"""Values between these count as undecided; between them the paper finds its thresholds to be equally good."""


class Maps(Protocol):
    """A network that makes one map per image."""

    def maps(self, images: Tensor) -> Tensor:
        """Maps `(B, 1, h, w)` in [0, 1] of RGB images in [0, 1], `(B, 3, H, W)`."""
        ...


@torch.inference_mode()
def read_soft(
    models: Mapping[str, Maps],
    classifier: nn.Module,
    images: Dataset[Any],
    *,
    image_size: int | None = None,
    workers: int = 0,
) -> dict[str, SoftMaps]:
    """Run networks over images with one object class each; a classifier names the class of the image as it is.

    Args:
        models: Named networks in evaluation mode, on the classifier's device.
        classifier: Gives class scores `(B, C)`, in evaluation mode.
        images: Items `(image, target)` with one or more boxes of one class and their "labels".
        image_size: As for `wsolnb.localization.read.read_objects`.
        workers: Processes that decode.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.models.cam import classifier
        >>> from wsolnb.papers.xie2021.network import stage_one
        >>> world = World(families=2, species=2, size=(48, 64))
        >>> nets = {"one": stage_one("tiny", 4, width=4).eval()}
        >>> read_soft(nets, classifier("tiny", 4).eval(), world.singles(3))["one"].enlarged().shape
        torch.Size([3, 48, 64])
    """
    device = next(classifier.parameters()).device
    maps: dict[str, list[Tensor]] = {name: [] for name in models}
    scores: list[Tensor] = []
    targets: list[dict[str, Any]] = []
    frame = (0, 0)
    for rows in track(DataLoader(Framed(images, image_size), _BATCH, num_workers=workers, collate_fn=list), "images"):
        batch = torch.stack([image for image, _ in rows]).to(device)
        frame = (batch.shape[2], batch.shape[3])
        for name, model in models.items():
            maps[name].append(model.maps(batch)[:, 0].float().cpu())
        scores.append(classifier(batch).float().cpu())
        targets += [target for _, target in rows]
    labels, boxes, masks = truth_of(targets)
    return {
        name: SoftMaps(torch.cat(each), torch.cat(scores), labels, boxes, frame, masks) for name, each in maps.items()
    }


def certain(maps: Tensor, undecided: tuple[float, float] = UNDECIDED) -> Tensor:
    """Share of the pixels of each map `(N, h, w)` that are decided: outside of the two values. Shape `(N,)`.

    Example:
        >>> certain(torch.tensor([[[0.1, 0.5, 0.9, 1.0]]]))
        tensor([0.7500])
    """
    low, high = undecided
    return ((maps < low) | (maps > high)).float().mean(dim=(1, 2))


def wobble(located: Located, between: tuple[float, float] = UNDECIDED) -> Statistic:
    """How much localization depends on the threshold: best minus worst between two thresholds (xie2021 Fig. 11b).

    Args:
        located: From `wsolnb.localization.locate.locate`.
        between: First and last threshold.

    Returns:
        The range of GT-known localization, a fraction, as a function of image weights.

    Raises:
        ValueError: If one of the two is not among the thresholds at which boxes were judged.

    Example:
        >>> from wsolnb.localization.locate import locate
        >>> sure, unsure = torch.zeros(2, 8, 12)
        >>> sure[2:6, 3:9], unsure[2:6, 3:9] = 0.9, 0.6
        >>> truth = (torch.zeros(2, 2), torch.tensor([0, 1]), [torch.tensor([[3.0, 2.0, 9.0, 6.0]])] * 2, (8, 12))
        >>> found = SoftMaps(torch.stack([sure, unsure]), *truth)
        >>> located = locate(found, found, BoxRule(0.5, reference="absolute"))
        >>> float(wobble(located)(torch.ones(1, 2)))  # above 0.6 the second box is gone
        0.5
    """
    located.judged.require_images()
    first, last = (located.judged.index_of(t) for t in between)

    def spread(weights: Tensor) -> Tensor:
        curve = located.judged.resampled([0], weights, None)[:, 0, 0, first : last + 1]
        return curve.amax(dim=1) - curve.amin(dim=1)

    return spread


def numbers(located: Located) -> dict[str, Statistic]:
    """The numbers of xie2021's tables as functions of image weights, and two more about separation.

    Args:
        located: From `wsolnb.localization.locate.locate` with `ks=(1, 5)`.

    Returns:
        `corloc` (the box is right), `top1_loc_err` and `top5_loc_err` (box or class wrong) at the chosen threshold;
        `top1_cls_err` and `top5_cls_err`; `corloc_oracle` at each draw's best threshold; for maps of probabilities
        `certain`, the share of decided pixels, and `wobble`, the range of `corloc` between thresholds 0.2 and 0.8.

    Example:
        >>> from wsolnb.localization.locate import locate
        >>> heat = torch.zeros(1, 8, 12)
        >>> heat[0, 2:6, 3:9] = 0.9
        >>> truth = (torch.tensor([[0.1, 0.9]]), torch.tensor([0]), [torch.tensor([[3.0, 2.0, 9.0, 6.0]])], (8, 12))
        >>> found = SoftMaps(heat, *truth)
        >>> located = locate(found, found, BoxRule(0.5, reference="absolute"), ks=(1, 5))
        >>> said = {name: float(number(torch.ones(1, 1))) for name, number in numbers(located).items()}
        >>> said["corloc"], said["top1_loc_err"], said["top5_loc_err"], said["certain"]
        (1.0, 1.0, 0.0, 1.0)
    """
    found, chosen = located.found, located.rule.threshold
    own = found.scores.gather(1, found.labels[:, None])
    rank = (found.scores > own).sum(dim=1)
    result = {
        "corloc": located.judged.statistic("gt_known", chosen),
        "top1_loc_err": located.judged.statistic("top1_error", chosen),
        "top5_loc_err": located.judged.statistic("top5_error", chosen),
        "top1_cls_err": _mean(rank >= 1),
        "top5_cls_err": _mean(rank >= 5),
        "corloc_oracle": located.judged.statistic("gt_known"),
    }
    if isinstance(found, SoftMaps):
        result |= {"certain": _mean(certain(found.maps)), "wobble": wobble(located)}
    return result


def hits(located: Located) -> Tensor:
    """Whether the box of every image is right at the chosen threshold, float64 `(N,)`.

    Example:
        >>> from wsolnb.localization.locate import locate
        >>> heat = torch.zeros(2, 8, 12)
        >>> heat[:, 2:6, 3:9] = 0.9
        >>> boxes = [torch.tensor([[3.0, 2.0, 9.0, 6.0]]), torch.tensor([[0.0, 0.0, 2.0, 2.0]])]
        >>> found = SoftMaps(heat, torch.zeros(2, 2), torch.tensor([0, 1]), boxes, (8, 12))
        >>> hits(locate(found, found, BoxRule(0.5, reference="absolute"))).tolist()
        [1.0, 0.0]
    """
    correct = located.judged.statistic("gt_known", located.rule.threshold)
    return correct(torch.eye(len(located.found), dtype=torch.float64))


def _mean(values: Tensor) -> Statistic:
    return lambda weights: weights.double() @ values.double() / weights.double().sum(dim=1)
