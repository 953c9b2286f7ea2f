"""What a search costs and what it finds: searches side by side, and width and depth against localization."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wsolnb.detect import SceneMaps
from wsolnb.losses import Objective
from wsolnb.models.beam import GridClassifier
from wsolnb.pointing import judge_points
from wsolnb.scene_readers import square_batches
from wsolnb.search import BeamSearch


class Loaded(NamedTuple):
    """Some images in memory, with their truth."""

    images: Tensor  # float32 (n, 3, S, S) in [0, 1]
    present: Tensor  # bool (n, K)
    sizes: Tensor  # int64 (n, 2), original height and width
    targets: list[Any]


def load_scenes(scenes: Dataset[Any], classes: int, *, side: int, device: torch.device | str = "cpu") -> Loaded:
    """Decode all images of a data set, brought to a square of `side` pixels.

    Example:
        >>> from wsolnb.data.critters import World
        >>> loaded = load_scenes(World(size=32).scenes(3, size=(48, 64)), 12, side=40)
        >>> loaded.images.shape, loaded.sizes[0].tolist(), len(loaded.targets)
        (torch.Size([3, 3, 40, 40]), [48, 64], 3)
    """
    batches = list(square_batches(scenes, side))
    targets = [target for batch in batches for target in batch[2]]
    present = torch.zeros(len(targets), classes, dtype=torch.bool)
    for row, target in zip(present, targets, strict=True):
        row[target["labels"]] = True
    images = torch.cat([batch[0] for batch in batches]).to(device)
    sizes = torch.tensor([size for batch in batches for size in batch[1]])
    return Loaded(images, present.to(device), sizes, targets)


def compare_searches(
    model: GridClassifier, objective: Objective, loaded: Loaded, searches: Mapping[str, BeamSearch]
) -> dict[str, tuple[float, float]]:
    """How many windows each search scores, and how good the best one is that it finds.

    Args:
        model: In evaluation mode.
        objective: Its `scores` rank the windows.
        loaded: Images; the classes that are there are searched.
        searches: By name.

    Returns:
        Windows scored per image, and the best score of a search, averaged over all searches.
    """
    found = {}
    for name, search in searches.items():
        tree = search(model, loaded.images, objective.scores, loaded.present)
        found[name] = (sum(tree.windows) / len(loaded.images), float(tree.best()[1].mean()))
    return found


def width_and_depth(
    model: GridClassifier,
    objective: Objective,
    loaded: Loaded,
    *,
    widths: Sequence[int],
    depths: Sequence[int],
    cells: int = 32,
) -> tuple[dict[str, dict[int, float]], dict[str, float]]:
    """Point localization over width and depth of the search; one search per width gives all depths.

    Args:
        model: In evaluation mode.
        objective: Its `scores` rank the windows.
        loaded: Images; the classes that are there are searched.
        widths: `M` to try.
        depths: `H` to read, rising.
        cells: Cells of the heat map on a side.

    Returns:
        Name of the width to depth and mean average precision; name of the width to milliseconds per image.
    """
    curves: dict[str, dict[int, float]] = {}
    costs: dict[str, float] = {}
    for width in widths:
        started = time.perf_counter()
        search = BeamSearch(width, depths[-1])
        tree = search(model, loaded.images, objective.scores, loaded.present)
        name = f"M = {width}"
        costs[name] = 1000 * (time.perf_counter() - started) / len(loaded.images)
        curves[name] = {}
        for depth in depths:
            heat = tree.heat(cells, depth).cpu()
            found = SceneMaps(list(heat), tree.scores.float().cpu(), loaded.sizes, loaded.targets)
            curves[name][depth] = float(judge_points(found).compute()["mAP"])
    return curves, costs
