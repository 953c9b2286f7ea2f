"""What a run trains, for `wsolnb run barz2022 --dry-run`: of photos with several objects, one crop each is an image."""

from functools import partial

from wsolnb.data.readers.open import PHOTOS
from wsolnb.models.cam import classifier
from wsolnb.papers.barz2022.embeddings import one_hot
from wsolnb.papers.barz2022.losses import CosineLoss
from wsolnb.runs.trainings import Training, body_options

OBJECTS = {"train2017": 684_070}
"""Objects of COCO of at least 32 pixels in one dimension, of 849,949 that are no crowds."""


def trainings(p, data):
    """Every kind of training, see `wsolnb.runs.trainings`."""
    images = data.crops(OBJECTS, "barz2022 Sec. 4.2")
    classes = images.classes or 100
    common = {"epochs": p.epochs, "batch": p.batch_size, "side": p.image_size}

    def kind(what, outputs, **more):
        network = partial(classifier, p.backbone, outputs, **body_options(p))
        return Training(what, f"{p.backbone} with a linear head", network, images, **common, **more)

    yield kind("cross-entropy", classes)
    yield kind("cosine loss with one-hot embeddings", classes, objective=lambda: CosineLoss(one_hot(classes)))
    if p.dataset in PHOTOS and not p.taxonomy and not p.semantic_dims:
        return  # without a tree the embeddings are the same, and so is the training
    dims = p.semantic_dims or classes
    embeddings = one_hot(classes)[:, :dims] + 1 / classes  # of that shape
    yield kind("cosine loss with semantic embeddings", dims, objective=lambda: CosineLoss(embeddings))
