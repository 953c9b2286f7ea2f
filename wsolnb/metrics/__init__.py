"""Scores of maps and boxes, and how sure we are of them."""
