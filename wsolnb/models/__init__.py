"""Backbones, the classifier from whose linear layer class activation maps are read, weights, and the cost of a pass."""
