"""Improve CAM with Auto-adapted Segmentation and Co-supervised Augmentation (WACV 2021, https://arxiv.org/abs/1911.07160).

image -> stages -> head -> maps -> [merged with those of a second head on an inner stage] -> box;
training: cross-entropy of both heads, [ConfSeg], [CoAug] on [class-balanced batches]

- `network.py`: one or two convolutional heads (Eq. 1), and the network that embeds images for CoAug
- `losses.py`: the total (Eqs. 6 and 12)
- `confseg.py`: ConfSeg: the last map supervises the inner one where it is confident (Eqs. 2 to 7)
- `coaug.py`: CoAug: objects and backgrounds of a batch are compared in pairs (Eqs. 8 to 12)
- `sampler.py`: class-balanced batches (Sec. 4.1)
- `maps.py`: maps of both heads, their merge (Eq. 13), ten crops, the tables' errors
- `method.py`: `CSoA`, trained and read like all methods
- `figures.py`: figures of notebook 3
"""
