"""Readers of the data sets of the field, one file each."""
