"""Notebooks as runs: parameters, folders, records, verdicts, sweeps, reports."""
