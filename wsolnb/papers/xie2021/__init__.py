"""Online Refinement of Low-level Feature Based Activation Map for WSOL (ICCV 2021, https://arxiv.org/abs/2110.05741).

image -> shallow stages -> [generator] -> [map in [0, 1]] -> [box: absolute threshold]; class scores: [evaluator];
training: [1: map masks features, two heads], [2: map masks the image of a frozen evaluator, erasing, entropy, area]

- `network.py`: generator, stage one (Eqs. 1 to 4) and stage two (Eqs. 7 to 9)
- `losses.py`: both stages' losses: evaluation, weighted entropy, area (Eqs. 5, 6, 10 to 16)
- `erasing.py`: a part of the map is erased while training (Sec. 3.2.2)
- `maps.py`: maps of probabilities as readers, how decided they are, the tables' numbers
- `method.py`: `CoarseMap` (stage one) and `ORNet` (stage two), trained and read like all methods
- `figures.py`: figures of notebook 4
"""
