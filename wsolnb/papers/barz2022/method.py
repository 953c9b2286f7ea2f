"""Dense class maps of a network trained with the cosine loss (barz2022, https://doi.org/10.5220/0010760800003124)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from wsolnb.localization.read import Reader
from wsolnb.models.cam import new_head
from wsolnb.papers.barz2022.embeddings import one_hot, semantic_embeddings
from wsolnb.papers.barz2022.losses import CosineLoss
from wsolnb.papers.barz2022.maps import dcm_reader
from wsolnb.papers.method import Method, Start, Trained, Untrained


@dataclass(frozen=True, kw_only=True)
class DCM(Method):
    """Dense class maps (barz2022 Eqs. 6 to 8).

    Class embeddings are one-hot or, if `semantic`, follow a class tree. `pool` makes the pooling (None: average);
    `training` is the name of the training, by default `onehot` or `semantic`.

    Example:
        >>> DCM(key="dcm-semantic", semantic=True).network
        'semantic'
    """

    paper = "barz2022"
    semantic: bool = False
    pool: Callable[[], nn.Module] | None = None
    training: str | None = None

    @property
    def network(self) -> str:
        """Name of the training."""
        return self.training or ("semantic" if self.semantic else "onehot")

    def untrained(self, start: Start, networks: Mapping[str, Trained]) -> Untrained:
        """A linear head from pooled features to the space of the class embeddings."""
        embeddings = one_hot(len(start.classes))
        if self.semantic:
            if start.taxonomy is None:
                raise ValueError("semantic embeddings follow from a class tree: give taxonomy")
            embeddings = semantic_embeddings(start.taxonomy.similarity(start.classes))
        pool = self.pool() if self.pool else None
        network = new_head(start.backbone, embeddings.shape[1], seed=start.plan.seed, pool=pool)
        return Untrained(network, CosineLoss(embeddings))

    def reader(self, networks: Mapping[str, Trained]) -> Reader:
        """Similarity maps, scored per class."""
        network, objective = networks[self.network][:2]
        return dcm_reader(network, objective)
