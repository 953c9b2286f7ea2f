"""Losses: what a network is trained with; one module per idea, all names importable from here."""

from wsolnb.losses.classification import CosineLoss, CrossEntropy, Objective
from wsolnb.losses.multilabel import MultiLabelCrossEntropy

__all__ = ["CosineLoss", "CrossEntropy", "MultiLabelCrossEntropy", "Objective"]
