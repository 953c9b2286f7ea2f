"""ConfSeg, CoAug and both (CSoA) as methods (kou2021, https://arxiv.org/abs/1911.07160)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wsolnb.data.labels import labels_of
from wsolnb.localization.read import Labels, Reader
from wsolnb.papers.kou2021.coaug import CoAug
from wsolnb.papers.kou2021.losses import CSoALoss
from wsolnb.papers.kou2021.maps import merged
from wsolnb.papers.kou2021.network import TwoMaps, csoa, embedder
from wsolnb.papers.kou2021.sampler import ClassBalanced
from wsolnb.papers.method import Method, Start, Trained, Untrained


@dataclass(frozen=True, kw_only=True)
class CSoA(Method):
    """Merged maps of convolutional heads (kou2021 Eq. 13), trained on class-balanced batches, as CoAug needs pairs.

    `inner`, `pool` and `width` are as for `wsolnb.papers.kou2021.network.CSoA`. ConfSeg's weight rises to `alpha`;
    CoAug has the weight `coaug_weight` (0 leaves it out) and embeds images resized to `embed_size` pixels.

    Example:
        >>> CSoA(key="confseg", inner="block2", pool=2, coaug_weight=0).rule().reference
        'absolute'
    """

    paper = "kou2021"
    absolute = True
    inner: str | None = None
    pool: int = 1
    width: int = 1024
    alpha: float = 1.0
    coaug_weight: float = 1.0
    embed_size: int = 224

    def untrained(self, start: Start, networks: Mapping[str, Trained]) -> Untrained:
        """One or two convolutional heads, with the parts of the objective that are asked for."""
        second: dict[str, Any] = {"inner": self.inner, "pool": self.pool} if self.inner else {}
        network = csoa(start.backbone, len(start.classes), width=self.width, seed=start.plan.seed, **second)
        loss: dict[str, Any] = {"alpha": self.alpha, "over": "mean"} if self.inner else {}
        if self.coaug_weight:
            loss["coaug"] = CoAug(embedder(start.backbone), size=self.embed_size)
            loss["coaug_weight"] = self.coaug_weight
        few = min(12, len(start.classes))
        size = few * max(2, start.plan.batch_size // few)
        batches = ClassBalanced(labels_of(start.images), size, few, seed=start.plan.seed)
        return Untrained(network, CSoALoss(**loss), batches)

    def reader(self, networks: Mapping[str, Trained]) -> Reader:
        """The union of both heads' regions, merged cell by cell before the map is upsampled."""
        network = networks[self.network].network

        def read(images: Tensor, labels: Labels | None) -> tuple[Tensor, Tensor]:
            outputs: TwoMaps = network(images)
            heads = torch.stack(outputs.maps(), dim=2)
            cells = (heads.shape[3], heads.shape[4])
            return merged(heads.flatten(0, 1), cells).view_as(outputs.last), outputs.scores()

        return read
