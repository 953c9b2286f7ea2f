"""ORNet as a method, its map refined against a frozen classifier; and its first stage alone (xie2021).

Paper: https://arxiv.org/abs/2110.05741
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from wsolnb.localization.read import Labels, Reader
from wsolnb.papers.method import CAM, Method, Start, Trained, Untrained
from wsolnb.papers.xie2021.erasing import Erasing
from wsolnb.papers.xie2021.losses import RefinementLoss, TwoHeads
from wsolnb.papers.xie2021.network import StageOne, StageTwo, frozen
from wsolnb.train import AdamPlan, Plan


@dataclass(frozen=True, kw_only=True)
class CoarseMap(Method):
    """The map of ORNet's first stage, the same for all classes; the evaluator, CAM's network, names the class.

    The generator of `width` (None: the stage's channels) reads `stage` (None: the backbone's shallow one). Both stages
    learn with Adam without weight decay (xie2021 Sec. 4.1), the evaluator with the common plan's optimizer and the rate
    `evaluator_lr`.

    Example:
        >>> [method.network for method in CoarseMap(key="stage1").needs]
        ['gap']
    """

    paper = "xie2021"
    absolute = True
    class_specific = False
    stage: str | None = None
    width: int | None = None
    evaluator_lr: float | None = None
    lr: float | None = 0.001

    def plan(self, common: Plan) -> Plan:
        """Adam with as many epochs, along half a cosine."""
        return AdamPlan(**asdict(super().plan(common)) | {"weight_decay": 0.0})

    @property
    def needs(self) -> tuple[Method, ...]:
        """The evaluator: an ordinary classifier."""
        return (CAM(key="cam", lr=self.evaluator_lr),)

    def untrained(self, start: Start, networks: Mapping[str, Trained]) -> Untrained:
        """A classifier whose shallow features are masked by the map that is made from them."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(start.plan.seed)
            network = StageOne(copy.deepcopy(start.backbone), len(start.classes), self.stage, self.width)
        return Untrained(network, TwoHeads())

    def reader(self, networks: Mapping[str, Trained]) -> Reader:
        """The generator's map, and the class scores of the evaluator."""
        evaluator, generator = networks["gap"], networks[self.network].network

        def read(images: Tensor, labels: Labels | None) -> tuple[Tensor, Tensor]:
            return generator.maps(images), evaluator.objective.scores(evaluator.network(images))

        return read


@dataclass(frozen=True, kw_only=True)
class ORNet(CoarseMap):
    """The map of ORNet's second stage: the first one's generator, refined against the frozen evaluator.

    Entropy has the weight `alpha`, area `beta`; stage one learns at the rate `coarse_lr`.

    Example:
        >>> [method.network for method in ORNet(key="stage2").needs]
        ['gap', 'stage1']
    """

    alpha: float = 1.5
    beta: float = 0.02
    lr: float | None = 0.0001
    coarse_lr: float | None = 0.001

    @property
    def needs(self) -> tuple[Method, ...]:
        """The evaluator and the first stage."""
        common: dict[str, Any] = {"stage": self.stage, "width": self.width, "evaluator_lr": self.evaluator_lr}
        return (*super().needs, CoarseMap(key="stage1", lr=self.coarse_lr, **common))

    def untrained(self, start: Start, networks: Mapping[str, Trained]) -> Untrained:
        """Stage one's generator against the frozen classifier."""
        evaluator = frozen(copy.deepcopy(networks["gap"].network))
        network = StageTwo(networks["stage1"].network, evaluator, Erasing("attentive"))
        return Untrained(network, RefinementLoss(self.alpha, self.beta))
