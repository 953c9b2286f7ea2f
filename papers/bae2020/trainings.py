"""What a run trains, for `wsolnb run bae2020 --dry-run`: masking and pooling add no weights and no products."""

from functools import partial

from wsolnb.models.cam import classifier
from wsolnb.runs.trainings import Training, body_options


def trainings(p, data):
    """Every kind of training, see `wsolnb.runs.trainings`."""
    images, options = data.single(), body_options(p)
    common = {"batch": p.batch_size, "side": p.image_size}

    def kind(what, name, images, epochs, times=1):
        network = partial(classifier, name, images.classes or 100, **options)
        return Training(what, f"{name} with a linear head", network, images, epochs, times=times, **common)

    for name in (p.backbone, *p.other_backbones) if data.drawn else ():
        yield kind("features in another drawn world", name, data.given("taught_images", 24), p.taught_epochs)
    yield kind("average and thresholded pooling", p.backbone, images, p.epochs, 2)
    yield kind("HaS and ADL with both kinds of pooling", p.backbone, images, p.epochs, 4)
    for name in p.other_backbones:
        yield kind("another backbone with both kinds of pooling", name, images, p.epochs, 2)
