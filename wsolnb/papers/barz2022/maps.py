"""From features and a linear head to class activation maps, dense class embeddings and dense class maps (barz2022).

Every function takes a whole batch and all classes: `B` images, `D` channels, `E` embedding dimensions, `C` classes,
`h x w` cells. Paper: https://doi.org/10.5220/0010760800003124
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wsolnb.localization.read import FeatureReader, Labels
from wsolnb.models.cam import Classifier, class_activation_maps
from wsolnb.papers.barz2022.losses import CosineLoss


def dense_class_embeddings(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Dense class embeddings: the head applied at every cell, then L2-normalised (barz2022 Eq. 6).

    `DCE_ij = (W·ψ_ij + b) / ‖W·ψ_ij + b‖`. Unlike that of a class activation map, its mean is not the network's output.
    Features `ψ(x)` `(B, D, h, w)`, `W` `(E, D)` and `b` `(E,)` give unit vectors `(B, E, h, w)`, zero where the head
    gives exactly zero.

    Example:
        >>> dense_class_embeddings(torch.tensor([[[[3.0]], [[4.0]]]]), torch.eye(2)).flatten()
        tensor([0.6000, 0.8000])
    """
    return F.normalize(class_activation_maps(features, weight, bias), dim=1)


def similarity_maps(dce: Tensor, embeddings: Tensor) -> Tensor:
    """Cosine similarity of every cell to every class, `sim_ijc = <DCE_ij, φ(c)>` (barz2022 Eq. 7a).

    Unit vectors `(B, E, h, w)` and class embeddings with unit rows, `(C, E)`, give maps `(B, C, h, w)` in [-1, 1].

    Example:
        >>> similarity_maps(torch.tensor([[[[0.6]], [[0.8]]]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).flatten()
        tensor([ 0.6000, -0.6000])
    """
    return class_activation_maps(dce, embeddings.to(dce.dtype))


def assigned_classes(sim: Tensor) -> Tensor:
    """The most similar class of every cell, `class_ij = argmax_c sim_ijc` (barz2022 Eq. 7b).

    Similarities `(B, C, h, w)` to int64 `(B, h, w)`; of tied classes the lowest index.

    Example:
        >>> assigned_classes(torch.tensor([[[[0.9, 0.1]], [[0.8, 0.2]]]]))
        tensor([[[0, 1]]])
    """
    return sim.argmax(dim=1)


def class_scores(sim: Tensor) -> Tensor:
    """Score of a class: its largest similarity over the cells assigned to it (barz2022 Eq. 8).

    `score(x, c) = max_ij 1{class_ij = c} · sim_ijc`, from `(B, C, h, w)` to `(B, C)`; 0 for a class without a cell.
    Of two related classes that are similar to the same cells only the more similar one scores: no duplicates.

    Example:
        >>> sim = torch.tensor([[[[0.9, 0.1]], [[0.8, 0.2]], [[0.7, 0.1]]]])  # 1 image, 3 classes, 1 x 2 cells
        >>> class_scores(sim)
        tensor([[0.9000, 0.2000, 0.0000]])
    """
    classes = torch.arange(sim.shape[1], device=sim.device)[None, :, None, None]
    mine = assigned_classes(sim)[:, None] == classes
    return torch.where(mine, sim, 0).amax(dim=(2, 3))


def dense_class_map(sim: Tensor, score_threshold: float, sim_threshold: float) -> Tensor:
    """Dense class map: the class of every cell, or background (barz2022 Eq. 9).

    A cell keeps its class if that class is present in the image (`score > ϑ_score`) and similar enough to the cell
    (`sim > ϑ_sim`), both strictly. Similarities `(B, C, h, w)` to int64 `(B, h, w)`: class index plus one, 0 for
    background. Half precision is compared in float32.

    Example:
        >>> sim = torch.tensor([[[[0.9, 0.4]], [[0.1, 0.6]]]])
        >>> dense_class_map(sim, score_threshold=0.7, sim_threshold=0.5)
        tensor([[[1, 0]]])
    """
    sim = sim.to(torch.promote_types(sim.dtype, torch.float32))
    best, assigned = sim.max(dim=1)
    present = class_scores(sim) > score_threshold
    kept = present.gather(1, assigned.flatten(1)).view_as(assigned) & (best > sim_threshold)
    return torch.where(kept, assigned + 1, 0)


def dcm_reader(model: Classifier, objective: CosineLoss) -> FeatureReader:
    """Similarity maps of dense class embeddings (barz2022 Eqs. 6 and 7a), scored per class by Eq. 8.

    Example:
        >>> from wsolnb.models.cam import classifier
        >>> read = dcm_reader(classifier("tiny", 5).eval(), CosineLoss(torch.eye(5)))
        >>> sim, scores = read(torch.rand(2, 3, 64, 96), None)
        >>> sim.shape, scores.shape
        (torch.Size([2, 5, 8, 12]), torch.Size([2, 5]))
    """

    def readout(features: Tensor, labels: Labels | None) -> tuple[Tensor, Tensor]:
        dce = dense_class_embeddings(features, model.head.weight, model.head.bias)
        sim = similarity_maps(dce, objective.embeddings)
        return sim, class_scores(sim)

    return FeatureReader(model.features, readout)


def cosine_cam_reader(model: Classifier, objective: CosineLoss) -> FeatureReader:
    """Class activation maps of a network trained with the cosine loss, scored by the cosines of the pooled output.

    The map of class c is `<W·ψ_ij + b, φ(c)>`, Eq. 4 projected on `φ(c)`, without the normalisation of Eq. 6.

    Example:
        >>> from wsolnb.models.cam import classifier
        >>> net, objective = classifier("tiny", 5).eval(), CosineLoss(torch.eye(5))
        >>> [part.shape for part in cosine_cam_reader(net, objective)(torch.rand(2, 3, 64, 96), None)]
        [torch.Size([2, 5, 8, 12]), torch.Size([2, 5])]
    """

    def readout(features: Tensor, labels: Labels | None) -> tuple[Tensor, Tensor]:
        outputs = class_activation_maps(features, model.head.weight, model.head.bias)
        return similarity_maps(outputs, objective.embeddings), objective.scores(model.classify(features))

    return FeatureReader(model.features, readout)


def softmax_reader(model: Classifier) -> FeatureReader:
    """The softmax of the outputs in every cell, scored per class by Eq. 8: a dense class map without the cosine loss.

    A control that the paper does not have: of a network trained with cross-entropy the map of class c is
    `softmax(W·ψ_ij + b)_c`, the activation of its own loss in place of the L2 normalisation of Eq. 6.

    Example:
        >>> from wsolnb.models.cam import classifier
        >>> cells, scores = softmax_reader(classifier("tiny", 5).eval())(torch.rand(2, 3, 64, 96), None)
        >>> cells.shape, scores.shape, bool(((cells >= 0) & (cells <= 1)).all())
        (torch.Size([2, 5, 8, 12]), torch.Size([2, 5]), True)
    """

    def readout(features: Tensor, labels: Labels | None) -> tuple[Tensor, Tensor]:
        cells = class_activation_maps(features, model.head.weight, model.head.bias).softmax(dim=1)
        return cells, class_scores(cells)

    return FeatureReader(model.features, readout)
