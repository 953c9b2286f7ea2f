"""From features and a linear head to maps: class activation maps, dense class embeddings, dense class maps.

Every function takes a whole batch and all classes in one tensor expression. `B` images, `D` channels, `E` embedding
dimensions, `C` classes, `h x w` cells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def class_activation_maps(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Class activation maps `m_ijc = W_c · ψ(x)_ij + b_c` (barz2022 Eq. 4).

    Their mean over the cells is the classifier's output, because pooling and head are linear.

    Args:
        features: `ψ(x)`, float `(B, D, h, w)`.
        weight: `W`, `(C, D)`.
        bias: `b`, `(C,)`; None leaves it out, as some public code does.

    Returns:
        Maps `(B, C, h, w)`.

    Raises:
        ValueError: If channels and weights do not match.

    Example:
        >>> maps = class_activation_maps(torch.ones(1, 2, 3, 4), torch.tensor([[1.0, 2.0]]), torch.tensor([0.5]))
        >>> maps.shape, float(maps[0, 0, 0, 0])
        (torch.Size([1, 1, 3, 4]), 3.5)
    """
    if features.ndim != 4 or weight.ndim != 2 or features.shape[1] != weight.shape[1]:
        raise ValueError(
            f"features (B, D, h, w) {tuple(features.shape)} and weights (C, D) {tuple(weight.shape)} do not match"
        )
    return F.conv2d(features, weight[:, :, None, None], bias)


def dense_class_embeddings(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Dense class embeddings: the head at every cell, then L2-normalised there (barz2022 Eq. 6).

    `DCE_ij = (W·ψ_ij + b) / ‖W·ψ_ij + b‖`. Unlike a class activation map, its mean is not the network's output.

    Args:
        features: `ψ(x)`, float `(B, D, h, w)`.
        weight: `W`, `(E, D)`.
        bias: `b`, `(E,)`.

    Returns:
        Unit vectors `(B, E, h, w)`; zero where the head gives exactly zero.

    Example:
        >>> dense_class_embeddings(torch.tensor([[[[3.0]], [[4.0]]]]), torch.eye(2)).flatten()
        tensor([0.6000, 0.8000])
    """
    return F.normalize(class_activation_maps(features, weight, bias), dim=1)


def similarity_maps(dce: Tensor, embeddings: Tensor) -> Tensor:
    """Cosine similarity of every cell to every class, `sim_ijc = <DCE_ij, φ(c)>` (barz2022 Eq. 7a).

    Args:
        dce: Unit vectors `(B, E, h, w)`.
        embeddings: Class embeddings `φ`, unit rows, `(C, E)`.

    Returns:
        Maps `(B, C, h, w)` in [-1, 1].

    Example:
        >>> similarity_maps(torch.tensor([[[[0.6]], [[0.8]]]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).flatten()
        tensor([ 0.6000, -0.6000])
    """
    return class_activation_maps(dce, embeddings)


def assigned_classes(sim: Tensor) -> Tensor:
    """The most similar class of every cell, `class_ij = argmax_c sim_ijc` (barz2022 Eq. 7b).

    Args:
        sim: `(B, C, h, w)`.

    Returns:
        int64 `(B, h, w)` in `0 .. C-1`; the lowest index where classes tie.

    Example:
        >>> assigned_classes(torch.tensor([[[[0.9, 0.1]], [[0.8, 0.2]]]]))
        tensor([[[0, 1]]])
    """
    return sim.argmax(dim=1)


def class_scores(sim: Tensor) -> Tensor:
    """Score of a class: its largest similarity over the cells assigned to it (barz2022 Eq. 8).

    `score(x, c) = max_ij 1{class_ij = c} · sim_ijc`. A class without a cell scores 0. Of two related classes that
    are similar to the same cells only the more similar one scores: that is what suppresses doubles.

    Args:
        sim: `(B, C, h, w)`.

    Returns:
        `(B, C)`, at most 1.

    Example:
        >>> sim = torch.tensor([[[[0.9, 0.1]], [[0.8, 0.2]], [[0.7, 0.1]]]])  # 1 image, 3 classes, 1 x 2 cells
        >>> class_scores(sim)
        tensor([[0.9000, 0.2000, 0.0000]])
    """
    classes = torch.arange(sim.shape[1], device=sim.device)[None, :, None, None]
    mine = assigned_classes(sim)[:, None] == classes
    return torch.where(mine, sim, 0).amax(dim=(2, 3))


def dense_class_map(sim: Tensor, score_threshold: float, sim_threshold: float) -> Tensor:
    """Dense class map: a class number per cell, 0 for background (barz2022 Eq. 9).

    A cell keeps its class if that class is present in the image (`score > ϑ_score`) and the cell is similar enough to
    it (`sim > ϑ_sim`); both comparisons are strict.

    Args:
        sim: `(B, C, h, w)`.
        score_threshold: `ϑ_score`.
        sim_threshold: `ϑ_sim`.

    Returns:
        int64 `(B, h, w)`: 0 or the class index plus one.

    Example:
        >>> sim = torch.tensor([[[[0.9, 0.4]], [[0.1, 0.6]]]])
        >>> dense_class_map(sim, score_threshold=0.5, sim_threshold=0.5)
        tensor([[[1, 2]]])
        >>> dense_class_map(sim, score_threshold=0.7, sim_threshold=0.5)
        tensor([[[1, 0]]])
    """
    best, assigned = sim.max(dim=1)
    present = class_scores(sim) > score_threshold
    kept = present.gather(1, assigned.flatten(1)).view_as(assigned) & (best > sim_threshold)
    return torch.where(kept, assigned + 1, 0)
