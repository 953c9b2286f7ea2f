"""Losses: what a network is trained with; one module per idea, all names importable from here."""

from wsolnb.losses.classification import CosineLoss, CrossEntropy, Objective

__all__ = ["CosineLoss", "CrossEntropy", "Objective"]
