"""Runs as web pages."""
