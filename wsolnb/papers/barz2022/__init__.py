"""Weakly-supervised Localization of Multiple Objects in Images using Cosine Loss.

Barz and Denzler, VISAPP 2022, https://doi.org/10.5220/0010760800003124

image -> stages -> features -> head at every cell -> [normalised] -> [similarity maps] -> [class scores and cells:
absolute thresholds] -> one box per class present; training: [cosine loss], [semantic embeddings]

- `losses.py`: cosine loss (Eq. 5)
- `embeddings.py`: class embeddings, one-hot or from a class hierarchy (Sec. 4.1)
- `maps.py`: dense class embeddings and maps (Eqs. 6 to 9), their readers
- `evaluate.py`: the grid of networks and readings, thresholds and the tables' numbers
- `method.py`: `DCM`, trained and read like all methods
- `figures.py`: figures of notebook 5
"""
