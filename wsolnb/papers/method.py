"""The interface of all methods: every paper's method is trained and read alike.

    images with labels -> fit (untrained network, objective, one training loop) -> reader -> maps and scores -> boxes

`CAM` is the method that every paper changes; the papers' own are in `method.py` of their rooms.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

from wsolnb._utils.processes import share_out
from wsolnb.boxes import BoxRule
from wsolnb.data.readers.scenes import scene_batches
from wsolnb.data.taxonomy import Taxonomy
from wsolnb.localization.detect import choose_classes, class_indices, detection_rows
from wsolnb.localization.maps import as_probabilities, stretched
from wsolnb.localization.read import FeatureReader, Labels, Reader, cam_reader, first_labels
from wsolnb.losses import CrossEntropy, Objective
from wsolnb.models.backbones import Backbone
from wsolnb.models.cam import Classifier, class_activation_maps, new_head
from wsolnb.train import Plan, Training, train


class Untrained(NamedTuple):
    """A network to train, with its objective; `batches` replaces random ones."""

    network: nn.Module
    objective: Any
    batches: Any = None


class Trained(NamedTuple):
    """A trained network, with its objective and the record of its training.

    `held_losses` are its losses on held-out images after every cycle, where it was trained until they stop falling.
    """

    network: Any
    objective: Any
    training: Training
    settings: dict[str, Any] | None = None  # of the method that it was trained for, and of its budget
    held_losses: tuple[float, ...] = ()


class Start(NamedTuple):
    """What all methods start from: a backbone, and images of one object each with labels.

    Networks are trained as long as the plan says; with `held`-out images, in up to `cycles` cycles until their loss on
    these stops falling (`train_until_held_loss_rises`).
    """

    backbone: Backbone
    images: Dataset[Any]
    classes: Sequence[str]
    plan: Plan
    taxonomy: Taxonomy | None = None
    held: Dataset[Any] | None = None
    cycles: int = 1


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to train a network and to read it.

    Args:
        lr: Learning rate; None: the plan's.
        percentile: Boxes are cut at a fraction of the map's 90th percentile, not its maximum (PaS, bae2020 Eq. 6).
    """

    paper: ClassVar[str] = ""
    absolute: ClassVar[bool] = False
    """Whether maps are probabilities, cut at absolute thresholds instead of fractions of a maximum."""
    reading: ClassVar[tuple[str, ...]] = ("key", "percentile")
    """Settings of how it is read."""
    class_specific: ClassVar[bool] = True
    """Whether it has a map for every class, as detecting several classes in one image requires."""

    key: str
    lr: float | None = None
    percentile: bool = False

    @property
    def network(self) -> str:
        """Name of the training; methods that share it read the same network."""
        return self.key

    @property
    def needs(self) -> tuple[Method, ...]:
        """Methods whose trained networks this one needs."""
        return ()

    @property
    def upsample(self) -> Callable[[Tensor, tuple[int, int]], Tensor]:
        """How maps of one object are upsampled, see `wsolnb.localization.maps`."""
        return as_probabilities if self.absolute else stretched

    def training_settings(self) -> dict[str, Any]:
        """The settings that its training depends on: all but those of how it is read."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in self.reading}

    def plan(self, common: Plan) -> Plan:
        """The plan of its training: the common one at its own learning rate."""
        return common if self.lr is None else replace(common, lr=self.lr)

    def untrained(self, start: Start, networks: Mapping[str, Trained]) -> Untrained:
        """The network to train, its objective and its batches; `networks` holds those of `needs`."""
        raise NotImplementedError

    def reader(self, networks: Mapping[str, Trained]) -> Reader:
        """The reader of images, given the networks that `fit` trained."""
        raise NotImplementedError

    def searching(self, wanted: int | Literal["present", "all"]) -> Method:
        """The method for so many of the best-scored classes of an image, or those `present`; others have no maps then.

        It is the same method, unless each class costs time of its own.
        """
        return self

    def rule(self, *, scenes: bool = False) -> BoxRule:
        """How its maps become one box per class; the threshold is to be tuned on held-out images.

        Maps of one object are stretched to [0, 1] when they are upsampled. Maps of scenes are cut as they are, so that
        an absent class can stay without a box.

        Example:
            >>> CAM(key="pas", percentile=True).rule().reference
            'percentile'
        """
        if self.absolute:
            return BoxRule(0.5, reference="absolute", resize="bilinear")
        reference: Literal["percentile", "maximum"] = "percentile" if self.percentile else "maximum"
        if scenes:
            return BoxRule(0.5, reference=reference, resize="bilinear")
        return BoxRule(0.5, reference=reference, resize="bicubic", normalise="after")

    def fit(self, start: Start, networks: dict[str, Trained] | None = None, **loop: Any) -> Fitted:
        """Train the network and those it needs, unless `networks` has them; new ones are added to it by name.

        The backbone of `start` is copied; `networks` come from the same start. `loop` is as for `wsolnb.train.train`.

        Raises:
            ValueError: If `networks` has one of that name that was trained with other settings.

        Example:
            >>> from wsolnb.data.critters import World
            >>> from wsolnb.models.backbones import backbone
            >>> world = World(families=2, species=2, size=32)
            >>> start = Start(backbone("tiny"), world.singles(8), world.classes, Plan(1, 4))
            >>> fitted = CAM(key="cam").fit(start, device="cpu")  # doctest: +ELLIPSIS
            epoch   1/1 ...
            >>> found = fitted.localize(torch.rand(2, 3, 32, 32), classes=2)
            >>> {name: tuple(values.shape) for name, values in found[0].items()}
            {'boxes': (2, 4), 'scores': (2,), 'labels': (2,), 'maps': (2, 4, 4)}
        """
        networks = {} if networks is None else networks
        for method in (*self.needs, self):
            settings = method.training_settings() | {"cycles": start.cycles if start.held is not None else 1}
            known = networks.get(method.network)
            if known is not None and known.settings not in (None, settings):
                raise ValueError(
                    f"network {method.network!r} was trained with {known.settings}, {method.key!r} wants "
                    f"{settings}: give other networks"
                )
            if known is None:
                network, objective, batches = method.untrained(start, networks)
                plan = method.plan(start.plan)
                losses: list[float] = []
                if start.held is None:
                    training = train(network, start.images, objective, plan, batches=batches, **loop)
                else:
                    training, losses = train_until_held_loss_rises(
                        network, start.images, objective, plan, start.held, start.cycles, batches=batches, **loop
                    )
                networks[method.network] = Trained(network, objective, training, settings, tuple(losses))
        return Fitted(self, networks)


def train_until_held_loss_rises(
    network: nn.Module,
    images: Dataset[Any],
    objective: Objective,
    plan: Plan,
    held: Dataset[Any],
    cycles: int,
    *,
    batches: Sampler[list[int]] | None = None,
    **loop: Any,
) -> tuple[Training, list[float]]:
    """Train in cycles until the loss on held-out images no longer falls, and keep the weights of the best cycle.

    The first cycle is `plan`. Each further one starts from the weights of the one before and runs the plan anew, with
    twice as many epochs, as warm restarts do (barz2022 Sec. 4.2); there are at most `cycles`. `batches` and `loop` are
    as for `wsolnb.train.train`.

    Returns:
        The record of all epochs, also those of a last cycle that was in vain, and the held-out loss after each cycle.

    Raises:
        ValueError: If there are less than one cycle.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.models.cam import classifier
        >>> world = World(families=2, species=2, size=32)
        >>> parts = classifier("tiny", 4), world.singles(8), CrossEntropy(), Plan(1, 4, lr=0.01)
        >>> held = world.singles(4, seed=1)
        >>> training, losses = train_until_held_loss_rises(*parts, held, 2, device="cpu")  # doctest: +ELLIPSIS
        epoch   1/1 ...
        >>> [record["epoch"] for record in training.history], len(losses)
        ([1, 2, 3], 2)
    """
    if cycles < 1:
        raise ValueError(f"cycles={cycles}: must be at least 1")
    side = images[0][0].shape[-1]
    history: list[dict[str, float]] = []
    losses: list[float] = []
    for cycle in range(cycles):
        before = copy.deepcopy(network.state_dict())
        longer = replace(plan, epochs=plan.epochs * 2**cycle, seed=plan.seed + 1000 * cycle)  # other orders
        training = train(network, images, objective, longer, batches=batches, **loop)
        history += [record | {"epoch": len(history) + k} for k, record in enumerate(training.history, start=1)]
        losses.append(held_out_loss(network, objective, held, side))
        if cycle and losses[-1] >= losses[-2]:
            network.load_state_dict(before)
            break
    return Training(history), losses


_HELD_BATCH = 128  # so many that a batch shows most classes more than once, as pairs of images need


@torch.no_grad()
def held_out_loss(network: nn.Module, objective: Objective, images: Dataset[Any], side: int) -> float:
    """Mean of the training objective over images that the network did not learn from, in evaluation mode.

    Images are resized to squares of `side` pixels.

    Example:
        >>> from wsolnb.data.critters import World
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
        >>> _ = nn.init.zeros_(net[1].weight), nn.init.zeros_(net[1].bias)
        >>> round(held_out_loss(net, CrossEntropy(), World(families=2, species=2).singles(8), 16), 3)  # log 4
        1.386
    """
    device = next(network.parameters()).device
    count: int = len(images)  # type: ignore[arg-type]

    def work(mine: Sequence[int]) -> Iterator[float]:
        for batch in scene_batches(images, side=side, longer_side=None, batch_size=_HELD_BATCH, indices=mine):
            labels = first_labels([target["labels"] for target in batch.targets]).to(device)
            yield float(objective(network(batch.images.to(device)), labels)) * len(labels)

    return sum(share_out(count, _HELD_BATCH, work)) / count


@dataclass(frozen=True)
class Fitted:
    """A method with its trained networks, by name: its own, those it needs, and possibly others."""

    method: Method
    networks: Mapping[str, Trained]

    @property
    def reader(self) -> Reader:
        """The method's reader of images."""
        return self.method.reader(self.networks)

    @torch.inference_mode()
    def localize(self, images: Tensor, classes: Any = None, rule: BoxRule | None = None) -> list[dict[str, Tensor]]:
        """Boxes, scores and maps of classes in images, as `wsolnb.localize` gives them.

        Images are RGB in [0, 1], float `(B, 3, H, W)`; `classes` a number of best-scored ones, class indices or `"all"`
        (None: the best-scored one). Maps become boxes by `rule`, by default the method's at an untuned threshold of
        0.5. Per image the result holds `boxes` (xyxy in pixels), `scores`, `labels` and `maps`.
        """
        device = next(self.networks[self.method.network].network.parameters()).device
        method, present, classes = self.method, None, 1 if classes is None else classes
        if isinstance(classes, int):
            method = method.searching(max(1, classes))
        elif not isinstance(classes, str) and (searched := method.searching("present")) is not method:
            rows = class_indices(classes).to(device)
            method, present = searched, list(rows if rows.ndim == 2 else rows.expand(len(images), -1))
        maps, scores = method.reader(self.networks)(images.to(device), present)
        labels = choose_classes(classes, scores)
        maps = maps.expand(-1, scores.shape[1], -1, -1).gather(
            1, labels[:, :, None, None].expand(-1, -1, *maps.shape[2:])
        )
        rule = rule or self.method.rule(scenes=True)
        return detection_rows(maps, scores, labels, rule, (images.shape[2], images.shape[3]))


@dataclass(frozen=True, kw_only=True)
class CAM(Method):
    """Class activation maps of a network with average pooling, trained with cross-entropy (zhou2016).

    With `clamp`, only positive weights are read (NWC, bae2020 Eq. 5).
    """

    paper = "primer"
    network = "gap"
    reading = (*Method.reading, "clamp")
    clamp: bool = False

    def masked(self, backbone: Backbone) -> Backbone:
        """The backbone, or a copy with masking while it trains."""
        return backbone

    def pool(self) -> nn.Module | None:
        """From features to one number per channel; None: their average."""
        return None

    def training_settings(self) -> dict[str, Any]:
        """The settings that its training depends on: all but those of how it is read."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in self.reading}

    def untrained(self, start: Start, networks: Mapping[str, Trained]) -> Untrained:
        """A linear head on pooled features."""
        body = self.masked(start.backbone)
        network = new_head(body, len(start.classes), seed=start.plan.seed, pool=self.pool())
        return Untrained(network, CrossEntropy())

    def reader(self, networks: Mapping[str, Trained]) -> Reader:
        """Class activation maps, of all weights or of the positive ones."""
        network, objective = networks[self.network][:2]
        return _positive_reader(network, objective) if self.clamp else cam_reader(network, objective)


def _positive_reader(model: Classifier, objective: CrossEntropy) -> FeatureReader:
    def readout(features: Tensor, labels: Labels | None) -> tuple[Tensor, Tensor]:
        maps = class_activation_maps(features, model.head.weight.clamp(min=0))
        return maps, objective.scores(model.classify(features))

    return FeatureReader(model.features, readout)
