"""Weakly Supervised Localization using Deep Feature Maps (ECCV 2016, https://arxiv.org/abs/1603.00489).

image -> stages -> [grid of L x L cells] -> [fully connected layers] -> [beam search over windows] -> [heat maps]
-> [boxes of all blobs]; class scores: [co-occurrence]; training: multi-label cross-entropy

- `network.py`: fully connected layers and adaptation layers on a grid of features (Sec. 3.2)
- `search.py`: beam search over windows of image and grid (Secs. 3.3, 3.4)
- `windows.py`: the search tree, cropping and resampling of windows, heat maps
- `sampler.py`: images with labels, rare classes over-sampled (Sec. 4.1)
- `cached_search.py`: a search over a data set, kept in the cache
- `maps.py`: heat maps as a reader, and the readers they are compared with, score maps of oquab2015 among them
- `boxes.py`: boxes of all blobs of a heat map, and their thresholds (Sec. 3.4)
- `cooccurrence.py`: class scores with a part of their partners' scores (Sec. 3.2)
- `method.py`: `Beam`, trained and read like all methods
- `figures.py`: figures of notebook 1
"""
