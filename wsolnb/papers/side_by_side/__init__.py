"""All methods on the same images: no paper, but a comparison that none of the five made (`papers/side_by_side`).

image -> [network of every method] -> [its maps] -> box by [its rule], at a threshold from held-out images;
training: one start, one set of images, [objective of every method]; equal steps, or until the held-out loss rises

- `methods.py`: the registry: every method with its settings, in the order of the tables
- `evaluate.py`: one object per image, several objects per image, cost of an image and of training
- `results.py`: the means of a study
- `figures.py`: figures of notebook 6
"""
