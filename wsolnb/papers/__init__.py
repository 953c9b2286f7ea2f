"""One room per paper: which steps it changes on the way from image to box, and nothing else.

    image -> stages -> features -> pooling -> head -> maps -> box; training: cross-entropy

A room's docstring repeats this line with the changed steps in brackets. All rooms use the same file names; a file that
is missing is a step that the paper leaves alone.

- `network.py`: another stage, another head, a generator
- `pooling.py`: features to one number per channel
- `losses.py`: what it is trained for (`confseg.py`, `coaug.py`: its terms, where they are long)
- `masking.py`, `erasing.py`, `sampler.py`: what it sees while it trains
- `embeddings.py`: what its outputs are compared with
- `maps.py`: features to maps, readers of the maps, and `evidence`: the paper's numbers as functions of image weights
- `search.py`: maps by a search over windows; `boxes.py`: maps to boxes, where the common box rules do not do
- `analysis.py`: measurements of features; `windows.py`, `cached_search.py`, `cooccurrence.py`: parts of a search
  and of its scores; `methods.py`, `evaluate.py`, `results.py`: the comparison
- `method.py`: the paper as a `wsolnb.papers.method.Method`: how it is trained and how it is read
- `figures.py`: figures that only its notebook shows

A room imports no other, except for `side_by_side`. A paper's card, reported numbers, claims and recipes are in
`papers/<key>/`. A new room begins as a copy of `_template`.
"""
