"""Losses: what a network is trained with; one module per idea, the losses themselves importable from here."""

from wsolnb.losses.classification import CosineLoss, CrossEntropy, Objective
from wsolnb.losses.coaug import CoAug, coaug_loss
from wsolnb.losses.confidence import confidence_mask, fixed_mask, inner_loss
from wsolnb.losses.csoa import CSoALoss
from wsolnb.losses.entropy import AreaLoss, EntropyLoss, RefinementLoss, TwoHeads
from wsolnb.losses.multilabel import MultiLabelCrossEntropy

__all__ = [
    "AreaLoss",
    "CSoALoss",
    "CoAug",
    "CosineLoss",
    "CrossEntropy",
    "EntropyLoss",
    "MultiLabelCrossEntropy",
    "Objective",
    "RefinementLoss",
    "TwoHeads",
    "classification",
    "coaug",
    "coaug_loss",
    "confidence",
    "confidence_mask",
    "csoa",
    "entropy",
    "fixed_mask",
    "inner_loss",
    "multilabel",
]
