"""Helpers that know nothing of localization: progress, signals, files, cache."""
