"""What a search costs and what it finds: searches side by side, and width and depth against localization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wsolnb.losses import Objective
from wsolnb.models.beam import GridClassifier
from wsolnb.pointing import judge_points
from wsolnb.scene_readers import shown, square_batches
from wsolnb.search import BeamSearch
from wsolnb.searched import Searched


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
    images = torch.cat([batch[0] for batch in batches]).to(device)
    sizes = torch.tensor([size for batch in batches for size in batch[1]])
    return Loaded(images, shown(targets, classes).to(device), sizes, targets)


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

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.losses import MultiLabelCrossEntropy
        >>> from wsolnb.models.beam import grid_classifier
        >>> net, world = grid_classifier("tiny", 4, grid=4, hidden=(8,)).eval(), World(families=2, species=2, size=32)
        >>> searches = {"one grid": BeamSearch(2, 3, recrop=False), "all of it": BeamSearch(None, 3, recrop=False)}
        >>> found = compare_searches(net, MultiLabelCrossEntropy(), load_scenes(world.scenes(2), 4, side=32), searches)
        >>> (some, best), (every, highest) = found.values()
        >>> some < every, best <= highest
        (True, True)
    """
    found = {}
    for name, search in searches.items():
        tree = search(model, loaded.images, objective.scores, loaded.present)
        found[name] = (sum(tree.windows) / len(loaded.images), float(tree.best()[1].mean()))
    return found


def width_and_depth(found: Searched, depths: Sequence[int]) -> dict[str, dict[int, float]]:
    """Point localization over width and depth of a search, ranked by class scores.

    Args:
        found: All widths, the largest depth.
        depths: `H` to read, rising.

    Returns:
        Name of the width to depth and mean average precision.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.losses import MultiLabelCrossEntropy
        >>> from wsolnb.models.beam import grid_classifier
        >>> from wsolnb.searched import search_scenes
        >>> net, world = grid_classifier("tiny", 4, grid=4, hidden=(8,)).eval(), World(families=2, species=2, size=32)
        >>> loss, search = MultiLabelCrossEntropy(), BeamSearch(depth=2)
        >>> curves = width_and_depth(search_scenes(world.scenes(2), 4, net, loss, search, [1, 2], side=32), [1, 2])
        >>> {name: list(curve) for name, curve in curves.items()}
        {'M = 1': [1, 2], 'M = 2': [1, 2]}
    """
    return {
        f"M = {width}": {depth: float(judge_points(found.maps(width, depth)).compute()["mAP"]) for depth in depths}
        for width in found.windows
    }
