"""What a run trains, for `wsolnb run side_by_side --dry-run`: at most, as the longer budget ends when a loss rises.

The longer budget's first cycle is that of equal steps, so it is trained once, but for what is trained against a
network that has learned longer: ORNet's second stage.
"""

import copy
from functools import partial

import torch

from wsolnb.data.taxonomy import Taxonomy
from wsolnb.models.cam import classifier
from wsolnb.papers.method import Start, Trained
from wsolnb.papers.side_by_side.methods import Settings, build_methods, chosen_methods
from wsolnb.runs.trainings import Training, body_options
from wsolnb.train import AdamPlan, Plan, Training as Record


def embed(objective, outputs, images):
    """What CoAug's embedding makes of a batch."""
    return objective.coaug.parts(outputs.last[:, 0], images)


class Squares(torch.utils.data.Dataset):
    """Stands for the images: as many of every class, so that a batch can be balanced."""

    def __init__(self, classes, side):
        self.labels, self.image = torch.arange(64 * classes) % classes, torch.zeros(3, side, side)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.image, self.labels[index]


def trainings(p, data):
    """Every kind of training, see `wsolnb.runs.trainings`."""
    images, side = data.single(), p.image_size
    names = [str(number) for number in range(images.classes or 100)]
    start = classifier(p.backbone, 24, **body_options(p))
    if data.drawn:
        known, model = data.given("taught_images", 24), f"{p.backbone} with a linear head"
        build = partial(copy.deepcopy, start)
        yield Training("features in another drawn world", model, build, known, p.taught_epochs, p.batch_size, side)
    plan, methods = Plan(p.epochs, p.batch_size), build_methods(Settings(**p.settings))
    begin = Start(start.backbone, Squares(len(names), side), names, plan, Taxonomy.flat(names))

    def needed(chosen):
        return {each.network: each for name in chosen for each in (*methods[name].needs, methods[name])}

    equal = chosen_methods(p.methods)
    longer = needed(name for name in chosen_methods(p.converged) if name in equal)
    nets, kinds = {}, {}
    for name, method in needed(equal).items():
        network, objective, batches = method.untrained(begin, nets)
        nets[name] = Trained(network, objective, Record())
        more = {"objective": partial(copy.deepcopy, objective), "adam": isinstance(method.plan(plan), AdamPlan)}
        if batches is not None:
            more |= {"together": batches.batch_size // batches.classes, "whole_batches": True}
        if getattr(objective, "coaug", None):
            more["embed"] = embed
        batch = batches.batch_size if batches else p.batch_size
        model = f"{p.backbone} as a {type(network).__name__}"
        build = partial(copy.deepcopy, network)
        sizes = tuple((weight.numel(), weight.requires_grad) for weight in network.parameters())
        alike = (sizes, model, batch, *(value for key, value in more.items() if key != "objective"))
        kinds.setdefault(alike, []).append((name, partial(Training, model=model, network=build, batch=batch, **more)))
    for same in kinds.values():
        kind = partial(same[0][1], images=images, side=side)
        yield kind(", ".join(name for name, _ in same), epochs=p.epochs, times=len(same))
        further = [name for name, _ in same if name in longer]
        if "stage2" in further:
            yield kind("stage2, against networks that learned longer", epochs=p.epochs)
        for cycle in range(1, p.cycles):
            what = f"{', '.join(further)}, cycle {cycle + 1} if the loss still fell"
            yield kind(what, epochs=p.epochs * 2**cycle, times=len(further))
