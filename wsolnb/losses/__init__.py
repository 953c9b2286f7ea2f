"""Losses: what a network is trained with; one module per idea, all names importable from here."""

from wsolnb.losses.classification import CosineLoss, CrossEntropy, Objective
from wsolnb.losses.entropy import AreaLoss, EntropyLoss, RefinementLoss, TwoHeads
from wsolnb.losses.multilabel import MultiLabelCrossEntropy

__all__ = [
    "AreaLoss",
    "CosineLoss",
    "CrossEntropy",
    "EntropyLoss",
    "MultiLabelCrossEntropy",
    "Objective",
    "RefinementLoss",
    "TwoHeads",
]
