"""Every recipe's dry run in one table, without what depends on the machine: ``docs/recipes.md``.

Written anew by ``python -m wsolnb.runs.recipe_table docs/recipes.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from wsolnb._utils.files import write_atomic
from wsolnb._utils.text import markdown_table
from wsolnb.data.download.sources import human
from wsolnb.runs.dry_run import ASSUMED, bill, two_digits
from wsolnb.runs.paper import Paper, paper_keys
from wsolnb.runs.trainings import budget

COLUMNS = (
    "recipe",
    "networks",
    "data: images in an epoch",
    "trainings",
    "steps",
    "weights trained",
    "memory",
    "disk: data + weights",
    "hours",
)

_INTRODUCTION = f"""\
# What a run of each recipe costs

Counted, not measured: `wsolnb run KEY --recipe NAME --dry-run` gives the same numbers, training by training, and
measures the time of a step on the machine at hand. A test compares this page with the recipes; to write it anew:

    python -m wsolnb.runs.recipe_table docs/recipes.md

- **Images**: those that an epoch shows. These are all objects of COCO's photos where crops are trained on (the paper's
  number), and photos that are held out are left out. ≥: copies of rare classes' photos, which only labels can tell,
  come on top. Estimated from the images per class, they make VOC's epochs five to six times as long, and COCO's about
  fifteen times; so steps and hours.
- **Trainings and steps**: all of the run, with controls and first features; a step takes a batch of the recipe's size.
- **Weights trained**: those of the largest training. Frozen ones are in memory and on disk, too.
- **Memory**: peak of one device for a whole batch, or one of `accumulate` parts of it: weights, gradients, the
  optimizer's state, and what the backward pass needs, in bfloat16. Libraries and data come on top.
- **Disk**: the official download, about as much again unpacked; and the trained weights of all trainings.
- **Hours**: an estimate for one A100-class device. Operations of convolutions and matrix products, there and back, are
  divided by an assumed {ASSUMED}. Small networks, depthwise convolutions (mobilenet) and slow disks do
  not reach that by far. Evaluation and figures come on top.
- **?**: recipes for photos of one's own, counted by `-p data_root`; 100 classes are assumed. Recipes `coco-mobilenet*`
  are for a few hundred photos, but counted on all of COCO.
"""


def recipe_table() -> str:
    """The page, as Markdown: a table for every paper with a row for every recipe.

    Example:
        >>> recipe_table().startswith("# What a run of each recipe costs")  # doctest: +SKIP
        True
    """
    parts = [_INTRODUCTION]
    for key in paper_keys():
        rows = [recipe_row(key, name) for name in Paper(key).recipes()]
        parts += [f"## {key}\n", *markdown_table(COLUMNS, rows), ""]
    return "\n".join(parts)


def recipe_row(key: str, name: str) -> list[str]:
    """The cells of a recipe's row, in the order of `COLUMNS`.

    Example:
        >>> recipe_row("primer", "smoke")
        ['smoke', 'tiny', 'critters, drawn here: 96', '2', '6', '163,188', '8.9 MB', '1.3 MB', '< 0.001']
    """
    plan = budget(key, recipe=name)
    costs, kinds, last = bill(plan), plan.trainings, plan.trainings[-1].images
    names = ("backbone", "other_backbones", "evaluator_backbone")
    values = [plan.parameters.get(each) for each in names]
    networks = [each for value in values for each in (value if isinstance(value, list) else [value]) if each]
    most = "≥ " if costs.at_least else ""
    steps = [kind.steps for kind in kinds]
    source = plan.data.official
    size = human(source.size or None) if source else "?"
    data = "" if plan.data.drawn else f"{size} + "
    return [
        name,
        ", ".join(dict.fromkeys(networks or ["tiny"])),
        f"{plan.data.title}: {most}{last.number:,}" if last.number else f"{plan.data.title}: ?",
        str(sum(kind.times for kind in kinds)),
        "?" if None in steps else f"{most}{sum(step or 0 for step in steps):,}",
        f"{max(cost.trained for cost in costs.costs):,}",
        human(costs.memory),
        f"{data}{human(costs.weights)}",
        "?" if costs.hours is None else f"{most}{two_digits(costs.hours)}",
    ]


if __name__ == "__main__":
    write_atomic(Path(sys.argv[1]), recipe_table().encode())
