"""One's own classifier: its head found, its maps and boxes read."""
