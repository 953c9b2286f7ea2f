"""One training loop for every network of the suite."""

from wsolnb.train.plans import AdamPlan as AdamPlan, Plan as Plan, StepPlan as StepPlan
from wsolnb.train.training import Training as Training, train as train
