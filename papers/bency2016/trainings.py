"""What a run trains, for `wsolnb run bency2016 --dry-run`: F6, F7 and both adaptation layers count."""

from functools import partial

import torch

from wsolnb.losses import MultiLabelCrossEntropy
from wsolnb.models.cam import new_head
from wsolnb.papers.bency2016.network import MaxPooled, grid_classifier
from wsolnb.papers.bency2016.sampler import copies
from wsolnb.runs.trainings import Training, body_options


def trainings(p, data):
    """Every kind of training, see `wsolnb.runs.trainings`."""
    images = data.scenes(lambda present: copies(present, p.copies))
    classes = images.classes or 100
    shape = {"grid": p.grid or None, "side": p.side or None, "hidden": p.hidden, "adapt": p.adapt, "dropout": p.dropout}
    build = partial(grid_classifier, p.backbone, classes, **shape, **body_options(p))
    with torch.device("meta"):
        net = build()
    layers = [layer for part in (net.dense, net.head) for layer in part if isinstance(layer, torch.nn.Linear)]
    widths = ", ".join(str(layer.out_features) for layer in layers)
    model = f"{p.backbone} with layers of {widths} on {net.grid} x {net.grid} cells"

    def kind(what, network, images=images, epochs=p.epochs, model=model, side=net.side, output=p.output, **more):
        objective = partial(MultiLabelCrossEntropy, output)
        return Training(what, model, network, images, epochs, p.batch_size, side, objective=objective, **more)

    def last_layers():
        return build().freeze(*p.frozen)

    def max_pooled(positions):
        return MaxPooled(last_layers(), [positions])

    if data.drawn:
        singles = data.given("pretrain_images", classes)
        yield kind("features of single animals", build, singles, p.pretrain_epochs)
    yield kind("classifier of windows", last_layers)
    head = partial(lambda: new_head(build().backbone, classes, freeze=True))
    yield kind("average pooling for CAM", head, model=f"{p.backbone} with a linear head")
    first, *others = (partial(max_pooled, positions) for positions in p.positions)
    turns = {"turns": tuple(others), "side": p.frame, "output": "sigmoid"}
    yield kind("score map that is max-pooled while it trains", first, **turns)
    if data.drawn:
        yield kind("classifier of scenes in which classes meet by chance", last_layers)
