"""One training loop for every network of the suite."""

from wsolnb.train.plans import AdamPlan, Plan, StepPlan
from wsolnb.train.training import Training, train

__all__ = ["AdamPlan", "Plan", "StepPlan", "Training", "train"]
