"""What a run trains, for `wsolnb run kou2021 --dry-run`; CoAug embeds three pictures of every image."""

from functools import partial

import torch
from torchvision.models import get_model

from wsolnb.models.backbones import backbone
from wsolnb.models.cam import classifier
from wsolnb.papers.kou2021.coaug import CoAug
from wsolnb.papers.kou2021.losses import CSoALoss
from wsolnb.papers.kou2021.network import csoa, embedder
from wsolnb.runs.trainings import Training, body_options


def embed(objective, outputs, images):
    """What CoAug's embedding makes of a batch."""
    return objective.coaug.parts(outputs.last[:, 0], images)


def trainings(p, data):
    """Every kind of training, see `wsolnb.runs.trainings`."""
    images, side = data.single(), p.image_size
    body = partial(backbone, p.backbone, **body_options(p))
    with torch.device("meta"):
        last = list(body().stages)[-1]
    balanced = {"together": p.batch_size // p.batch_classes, "whole_batches": True}

    def network(place):
        return csoa(body(), images.classes or 100, width=p.width, **place)

    def with_coaug():
        source = get_model(p.embed, weights=None) if p.embed else body()
        return CSoALoss(coaug=CoAug(embedder(source), size=p.embed_size))

    def kind(what, heads, place, epochs, times=1, coaug=False):
        model = f"{p.backbone} with {heads} of width {p.width}" + (", and a frozen embedding" if coaug else "")
        loss = {"objective": with_coaug, "embed": embed} if coaug else {"objective": CSoALoss}
        built = partial(network, place)
        return Training(what, model, built, images, epochs, p.batch_size, side, times=times, **balanced, **loss)

    if data.drawn and not p.weights:
        known = data.given("pretrain_images", 24)
        start = partial(classifier, p.backbone, known.classes, **body_options(p))
        model = f"{p.backbone} with a linear head"
        yield Training("features in another drawn world", model, start, known, p.pretrain_epochs, 32, side)
    one, two = ("one head", {}), ("two heads", {"inner": p.inner, "pool": p.inner_pool})
    others = [("two heads on one stage", {"inner": last, "pool": 1})]
    others += [("two heads, one of them earlier,", {"inner": p.early, "pool": p.early_pool})] if p.early else []
    for place in (one, two, *others):
        yield kind("warm start", *place, p.warm_epochs)
    yield kind("one head", *one, p.epochs)
    yield kind("two heads; ConfSeg", *two, p.epochs, times=2)
    yield kind("CoAug", *one, p.epochs, coaug=True)
    yield kind("; ".join(["both", *p.readings]), *two, p.epochs, times=1 + len(p.readings), coaug=True)
    for place in others:
        yield kind("both", *place, p.epochs, coaug=True)
