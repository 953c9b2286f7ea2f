"""What a run trains, for `wsolnb run xie2021 --dry-run`; in stage two the frozen evaluator sees every masked image."""

from functools import partial

from wsolnb.models.cam import classifier
from wsolnb.papers.xie2021.erasing import Erasing
from wsolnb.papers.xie2021.losses import RefinementLoss, TwoHeads
from wsolnb.papers.xie2021.network import StageTwo, frozen, stage_one
from wsolnb.runs.trainings import Training, body_options


def trainings(p, data):
    """Every kind of training, see `wsolnb.runs.trainings`."""
    images, side, options = data.single(), p.image_size, body_options(p)
    evaluator = partial(classifier, p.evaluator_backbone, images.classes or 100, **options)
    options.pop("stride", None)
    shape = {"stage": p.stage or None, "width": p.width or None}
    first = partial(stage_one, p.backbone, images.classes or 100, **shape, **options)

    def second():
        return StageTwo(first(), frozen(evaluator()), Erasing(p.erasing))

    model = f"{p.evaluator_backbone} with a linear head"
    yield Training("evaluator", model, evaluator, images, p.evaluator_epochs, p.batch_size, side)
    model = f"{p.backbone} with a generator"
    adam = {"adam": p.coarse_optimizer == "adam"}
    yield Training("stage one", model, first, images, p.coarse_epochs, p.batch_size, side, objective=TwoHeads, **adam)
    what, model = f"stage two: {', '.join(p.rows)}", f"the generator, against {p.evaluator_backbone}"
    more = {"times": len(p.rows), "objective": RefinementLoss, "adam": p.optimizer == "adam"}
    yield Training(what, model, second, images, p.refine_epochs, p.refine_batch, side, **more)
