"""What a run trains, for `wsolnb run _template --dry-run`."""

from functools import partial

from wsolnb.models.cam import classifier
from wsolnb.runs.trainings import Training


def trainings(p, data):
    """Every kind of training, see `wsolnb.runs.trainings`."""
    images = data.single()
    network = partial(classifier, "tiny", images.classes)
    sizes = {"epochs": p.epochs, "batch": 32, "side": p.image_size}
    yield Training("average and maximum pooling", "tiny with a linear head", network, images, **sizes, times=2)
