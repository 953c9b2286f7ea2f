"""Title of the paper (venue and year, https://doi.org/...).

image -> stages -> features -> [pooling] -> head -> maps -> box; training: cross-entropy

The line above names every step from image to box and, after the semicolon, what the network is trained with; what the
paper changes stands in brackets. Below it, one line per file of the room; see `wsolnb.papers` for their names.

- `method.py`: trains with maximum pooling and reads class activation maps.
"""
