"""Backbones, and the classifier from whose head a class activation map is read."""
