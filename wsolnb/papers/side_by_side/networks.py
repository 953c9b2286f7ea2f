"""The networks of the comparison: one start, one budget, and what each method changes about either.

    start (a backbone that has learned elsewhere) -> 12 trainings, each over the same images and epochs -> networks

A training serves several methods: class activation maps, negative weight clamping and a percentile as the threshold's
reference all read the network `gap`, which is ORNet's evaluator too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn

from wsolnb.data.tasks.single_object import SingleObject
from wsolnb.data.taxonomy import Taxonomy
from wsolnb.losses import CrossEntropy
from wsolnb.models.backbones import Backbone
from wsolnb.models.cam import new_head
from wsolnb.papers.bae2020.masking import attention_dropout, hide_and_seek
from wsolnb.papers.bae2020.pooling import ThresholdedAveragePooling
from wsolnb.papers.barz2022.embeddings import one_hot, semantic_embeddings
from wsolnb.papers.barz2022.losses import CosineLoss
from wsolnb.papers.bency2016.network import grid_classifier
from wsolnb.papers.kou2021.coaug import CoAug
from wsolnb.papers.kou2021.losses import CSoALoss
from wsolnb.papers.kou2021.network import csoa, embedder
from wsolnb.papers.kou2021.sampler import ClassBalanced, labels_of
from wsolnb.papers.xie2021.erasing import Erasing
from wsolnb.papers.xie2021.losses import RefinementLoss, TwoHeads
from wsolnb.papers.xie2021.network import StageOne, StageTwo, frozen
from wsolnb.train import Plan, Training, train

NEEDS: dict[str, tuple[str, ...]] = {"stage1": ("gap",), "stage2": ("gap", "stage1")}
"""Networks that another one cannot do without: ORNet's maps know no class, which is asked of its evaluator."""


@dataclass(frozen=True)
class Settings:
    """What single methods have to themselves, as in the notebooks 1 to 5.

    Args:
        tap_threshold: TAP: a cell is active above this share of its channel's maximum.
        has_patch: Hide-and-Seek: side of a hidden patch in pixels.
        adl_threshold: ADL: share of the largest attention from which a cell is dropped.
        inner: CSoA: stage of the second head.
        inner_pool: CSoA: cells of it that become one.
        head_width: CSoA: channels of a head.
        alpha: ConfSeg: largest weight of the inner loss.
        coaug_weight: CoAug: weight of its loss.
        embed_size: CoAug: side of the images that are embedded.
        shallow: ORNet: stage that the generator reads.
        generator_width: ORNet: width of the generator.
        entropy_weight: ORNet, stage two: weight of the entropy.
        area_weight: ORNet, stage two: weight of the area.
        grid: Beam search: cells of the grid on a side.
        hidden: Beam search: widths of the fully connected layers.
        adapt: Beam search: width of the adaptation layer.
        lr: Learning rate with cross-entropy; also of both stages of ORNet.
        lr_heads: Learning rate of CSoA's networks.
        lr_grid: Learning rate of the network for beam search.
        lr_cosine: Learning rate with the cosine loss.
    """

    tap_threshold: float = 0.1
    has_patch: int = 8
    adl_threshold: float = 0.8
    inner: str = "block2"
    inner_pool: int = 2
    head_width: int = 64
    alpha: float = 1.0
    coaug_weight: float = 0.1
    embed_size: int = 32
    shallow: str = "block2"
    generator_width: int = 8
    entropy_weight: float = 1.5
    area_weight: float = 0.2
    grid: int = 6
    hidden: tuple[int, ...] = (256,)
    adapt: int = 128
    lr: float = 0.1
    lr_heads: float = 0.05
    lr_grid: float = 0.05
    lr_cosine: float = 0.5


class Trained(NamedTuple):
    """A network, what it was trained with, and how that went."""

    net: Any
    objective: Any
    training: Training


class _Job(NamedTuple):
    """A network before it is trained."""

    net: nn.Module
    objective: Any
    lr: float
    batches: ClassBalanced | None = None


def train_networks(
    wanted: Iterable[str],
    start: Backbone,
    task: SingleObject,
    plan: Plan,
    settings: Settings | None = None,
    *,
    taxonomy: Taxonomy | None = None,
    **loop: Any,
) -> dict[str, Trained]:
    """Train networks from one start with one budget.

    Args:
        wanted: Of `NETWORKS`; what one of them needs is trained too.
        start: The backbone, which every network gets a copy of.
        task: Images of one object each.
        plan: The budget; only its learning rate is replaced, by that of the settings.
        settings: Of the methods.
        taxonomy: The class tree, for semantic embeddings.
        **loop: As for `wsolnb.train.train`.

    Raises:
        ValueError: If there is no such network, or the semantic one is wanted without a tree.

    Example:
        >>> train_networks(["resnet"], None, None, Plan(1))
        Traceback (most recent call last):
        ValueError: no network 'resnet' in the comparison: there are gap, tap, has, adl, confseg, coaug, csoa, stage1, \
stage2, grid, onehot, semantic, onehot+tap
    """
    order: list[str] = []
    for name in wanted:
        if name not in NETWORKS:
            raise ValueError(f"no network {name!r} in the comparison: there are {', '.join(NETWORKS)}")
        order += [each for each in (*NEEDS.get(name, ()), name) if each not in order]
    trained: dict[str, Trained] = {}
    for name in order:
        builder = _Builder(start, task, plan, settings or Settings(), taxonomy, trained)
        job = NETWORKS[name](builder)
        rate = replace(plan, lr=job.lr)
        training = train(job.net, task.train, job.objective, rate, batches=job.batches, **loop)
        trained[name] = Trained(job.net, job.objective, training)
    return trained


@dataclass(frozen=True)
class _Builder:
    """Builds the networks, each as its notebook does."""

    start: Backbone
    task: SingleObject
    plan: Plan
    settings: Settings
    taxonomy: Taxonomy | None
    trained: Mapping[str, Trained]

    @property
    def classes(self) -> int:
        return len(self.task.classes)

    def pooled(self, backbone: Backbone | None = None, pool: nn.Module | None = None) -> _Job:
        """A linear head on pooled features, with cross-entropy."""
        net = new_head(backbone or self.start, self.classes, seed=self.plan.seed, pool=pool)
        return _Job(net, CrossEntropy(), self.settings.lr)

    def tap(self) -> nn.Module:
        return ThresholdedAveragePooling(self.settings.tap_threshold)

    def cosine(self, *, semantic: bool = False, pool: nn.Module | None = None) -> _Job:
        """The same with the cosine loss."""
        embeddings = one_hot(self.classes)
        if semantic:
            if self.taxonomy is None:
                raise ValueError("semantic embeddings follow from a class tree: give taxonomy")
            embeddings = semantic_embeddings(self.taxonomy.similarity(self.task.classes))
        net = new_head(self.start, embeddings.shape[1], seed=self.plan.seed, pool=pool)
        return _Job(net, CosineLoss(embeddings), self.settings.lr_cosine)

    def heads(self, *, inner: bool, coaug: bool) -> _Job:
        """Convolutional heads; batches are class-balanced, since CoAug compares images of a class."""
        own, seed = self.settings, self.plan.seed
        second: dict[str, Any] = {"inner": own.inner, "pool": own.inner_pool} if inner else {}
        net = csoa(self.start, self.classes, width=own.head_width, seed=seed, **second)
        loss: dict[str, Any] = {"alpha": own.alpha, "over": "mean"} if inner else {}
        if coaug:
            loss |= {"coaug": CoAug(embedder(self.start), size=own.embed_size), "coaug_weight": own.coaug_weight}
        few = min(12, self.classes)
        batches = ClassBalanced(labels_of(self.task.train), few * max(2, self.plan.batch_size // few), few, seed=seed)
        return _Job(net, CSoALoss(**loss), own.lr_heads, batches)

    def coarse(self) -> _Job:
        """ORNet's stage one."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.plan.seed)
            body = copy.deepcopy(self.start)
            net = StageOne(body, self.classes, self.settings.shallow, self.settings.generator_width)
        return _Job(net, TwoHeads(), self.settings.lr)

    def refined(self) -> _Job:
        """ORNet's stage two: stage one's generator against the frozen classifier."""
        evaluator = frozen(copy.deepcopy(self.trained["gap"].net))
        net = StageTwo(self.trained["stage1"].net, evaluator, Erasing("attentive"))
        return _Job(net, RefinementLoss(self.settings.entropy_weight, self.settings.area_weight), self.settings.lr)

    def windows(self) -> _Job:
        """Fully connected layers on a grid, for beam search."""
        own = self.settings
        shape: dict[str, Any] = {"grid": own.grid, "side": own.grid * self.start.stride}
        shape |= {"hidden": own.hidden, "adapt": own.adapt}
        net = grid_classifier(self.start.name, self.classes, seed=self.plan.seed, **shape)
        net.backbone = copy.deepcopy(self.start)
        return _Job(net, CrossEntropy(), own.lr_grid)


NETWORKS: dict[str, Callable[[_Builder], _Job]] = {
    "gap": lambda build: build.pooled(),
    "tap": lambda build: build.pooled(pool=build.tap()),
    "has": lambda build: build.pooled(hide_and_seek(build.start, build.settings.has_patch)),
    "adl": lambda build: build.pooled(attention_dropout(build.start, threshold=build.settings.adl_threshold)),
    "confseg": lambda build: build.heads(inner=True, coaug=False),
    "coaug": lambda build: build.heads(inner=False, coaug=True),
    "csoa": lambda build: build.heads(inner=True, coaug=True),
    "stage1": lambda build: build.coarse(),
    "stage2": lambda build: build.refined(),
    "grid": lambda build: build.windows(),
    "onehot": lambda build: build.cosine(),
    "semantic": lambda build: build.cosine(semantic=True),
    "onehot+tap": lambda build: build.cosine(pool=build.tap()),
}
"""All networks by name."""
