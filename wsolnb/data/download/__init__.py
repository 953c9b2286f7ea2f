"""Data sets from their official sources, checked."""
