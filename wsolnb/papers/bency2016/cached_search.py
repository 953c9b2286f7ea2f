"""A search over a data set, cached: heat maps of all widths, and of smaller depths, follow from it (bency2016).

Paper: https://doi.org/10.48550/arXiv.1603.00489
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wsolnb._utils.cache import cached, fingerprint, machine
from wsolnb._utils.processes import share_out
from wsolnb._utils.progress import track
from wsolnb.data.readers.scenes import SceneBatch, scene_batches
from wsolnb.localization.maps import SceneMaps
from wsolnb.localization.points import judge_points
from wsolnb.localization.read import present_classes
from wsolnb.losses import Objective
from wsolnb.papers.bency2016.maps import classes_to_search
from wsolnb.papers.bency2016.network import GridClassifier
from wsolnb.papers.bency2016.search import BeamSearch
from wsolnb.papers.bency2016.windows import heat_maps


@dataclass(frozen=True)
class SearchResults:
    """The windows kept in all images, for several widths.

    Args:
        pairs: Image and class of every search, int64 `(P, 2)`.
        scores: Class scores of the whole images, float32 `(N, K)`.
        windows: Width `M` to the kept windows of all levels, xyxy as fractions of the image, float32 `(P, H, M, 4)`.
        values: Width to their scores for the class searched, float32 `(P, H, M)`; 0 where there is no window.
        counts: Width to windows scored, crops taken and seconds per image, measured when it was computed.
        sizes: Original height and width of the images, int64 `(N, 2)`.
        targets: Truth in original pixels.
    """

    pairs: Tensor
    scores: Tensor
    windows: dict[int, Tensor]
    values: dict[int, Tensor]
    counts: dict[int, list[float]]
    sizes: Tensor
    targets: list[Any]

    def maps(self, width: int, depth: int | None = None, cells: int = 32) -> SceneMaps:
        """Heat maps as `SearchTree.heat` gives them, with the scores of the whole images."""
        windows, values = self.windows[width][:, :depth].flatten(1, 2), self.values[width][:, :depth].flatten(1, 2)
        heat = heat_maps(windows, values, self.pairs, (*self.scores.shape,), cells)
        return SceneMaps(list(heat), self.scores, self.sizes, self.targets)

    def per_image(self) -> dict[str, dict[str, float]]:
        """Cost per image, by width: windows, crops and milliseconds."""
        names = ("windows", "crops", "milliseconds")
        return {f"M = {m}": dict(zip(names, (w, c, 1000 * s), strict=True)) for m, (w, c, s) in self.counts.items()}


def search_scenes(
    scenes: Dataset[Any],
    model: GridClassifier,
    objective: Objective,
    search: BeamSearch,
    widths: Sequence[int],
    *,
    wanted: int | Literal["present", "all"] = "all",
    side: int,
    device: torch.device | str = "cpu",
    batch_size: int = 16,
    workers: int = 0,
    fresh: bool = False,
) -> SearchResults:
    """Search all images of a data set with several widths `M`, at least 1 each.

    Batches already searched with the same network and settings are read from the cache (`wsolnb._utils.cache`) unless
    `fresh`, so that an interrupted search resumes.

    The images of `scenes`, items `(image, target)` without a transform, are first resized to squares of `side` pixels.
    The model is in evaluation mode on `device`; the objective's `scores` rank the windows; the width of `search` is
    ignored. `wanted` are the classes to search in an image: the number of best-scored ones, those `present`, or `all`.

    Raises:
        ValueError: As for `BeamSearch`; if there is no image or no width.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.losses import MultiLabelCrossEntropy
        >>> from wsolnb.papers.bency2016.network import grid_classifier
        >>> net, scenes = grid_classifier("tiny", 12, grid=4, hidden=(8,)).eval(), World(size=32).scenes(2)
        >>> found = search_scenes(scenes, net, MultiLabelCrossEntropy(), BeamSearch(depth=2), [1, 2], side=32)
        >>> found.windows[2].shape, found.maps(1, cells=8).maps[0].shape
        (torch.Size([24, 2, 2, 4]), torch.Size([12, 8, 8]))
    """
    key = fingerprint(model, objective, search, list(widths), machine(torch.device(device)))
    parts: list[dict[str, Tensor]] = []
    sizes: list[Tensor] = []
    targets: list[Any] = []

    def searched(batch: SceneBatch) -> dict[str, Tensor]:
        which = classes_to_search(wanted, [target["labels"] for target in batch.targets], model)

        def compute() -> dict[str, Tensor]:
            return _survivors(search, model, batch.images.to(device), objective, widths, which)

        return cached("searched", [key, batch.images, which], compute, fresh=fresh)

    def work(mine: Sequence[int]) -> Iterator[tuple[dict[str, Tensor], Tensor, list[Any]]]:
        batches = scene_batches(scenes, side=side, batch_size=batch_size, workers=workers, indices=mine)
        for batch in track(batches, "images"):
            yield searched(batch), batch.sizes, batch.targets

    for part, part_sizes, part_targets in share_out(len(scenes), batch_size, work):  # type: ignore[arg-type]
        parts.append(part | {"pairs": part["pairs"] + torch.tensor([len(targets), 0])})
        sizes.append(part_sizes)
        targets += part_targets
    if not parts or not widths:
        raise ValueError("there is no image to search, or no width to search with")
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    counts = whole["counts"].view(-1, len(widths), 3).sum(dim=0) / len(targets)
    return SearchResults(
        whole["pairs"],
        whole["scores"],
        {m: whole[f"windows {m}"] for m in widths},
        {m: whole[f"values {m}"] for m in widths},
        dict(zip(widths, counts.tolist(), strict=True)),
        torch.cat(sizes),
        targets,
    )


def _survivors(
    search: BeamSearch,
    model: GridClassifier,
    images: Tensor,
    objective: Objective,
    widths: Sequence[int],
    wanted: Tensor | int | None,
) -> dict[str, Tensor]:
    """What `SearchResults` keeps of a batch, as tensors on the CPU."""
    found: dict[str, Tensor] = {}
    counts: list[list[float]] = []
    for width in widths:
        started = time.perf_counter()
        tree = replace(search, width=width)(model, images, objective.scores, wanted)
        windows = images.new_zeros(len(tree.pairs), search.depth, width, 4)
        values = images.new_zeros(len(tree.pairs), search.depth, width)
        for row, level in enumerate(tree.levels[1:]):
            here = level.kept.clamp(min=0)
            windows[:, row, : here.shape[1]] = level.windows[here].to(windows)
            score = level.scores[here, tree.pairs[:, 1:]].masked_fill(level.kept < 0, 0)
            values[:, row, : here.shape[1]] = score.to(values)
        found |= {"pairs": tree.pairs, "scores": tree.scores.float()}
        found |= {f"windows {width}": windows, f"values {width}": values}
        counts.append([sum(tree.windows), sum(tree.crops), time.perf_counter() - started])
    found = {name: tensor.cpu() for name, tensor in found.items()}
    return found | {"counts": torch.tensor(counts, dtype=torch.float64)}


class Loaded(NamedTuple):
    """Some images in memory, with their truth."""

    images: Tensor  # float32 (n, 3, S, S) in [0, 1]
    present: Tensor  # bool (n, K)
    sizes: Tensor  # int64 (n, 2), original height and width
    targets: list[Any]


def load_scenes(scenes: Dataset[Any], classes: int, *, side: int, device: torch.device | str = "cpu") -> Loaded:
    """Decode all images of a data set, resized to squares of `side` pixels.

    Example:
        >>> from wsolnb.data.critters import World
        >>> loaded = load_scenes(World(size=32).scenes(3, size=(48, 64)), 12, side=40)
        >>> loaded.images.shape, loaded.sizes[0].tolist(), len(loaded.targets)
        (torch.Size([3, 3, 40, 40]), [48, 64], 3)
    """
    batches = list(scene_batches(scenes, side=side, batch_size=16))
    targets = [target for batch in batches for target in batch.targets]
    images = torch.cat([batch.images for batch in batches]).to(device)
    present = present_classes([target["labels"] for target in targets], classes).to(device)
    return Loaded(images, present, torch.cat([batch.sizes for batch in batches]), targets)


def compare_searches(
    model: GridClassifier, objective: Objective, loaded: Loaded, searches: Mapping[str, BeamSearch]
) -> dict[str, dict[str, Tensor]]:
    """Search for the classes present: by search, for every image, `windows` scored and the `best_score` found, `(n,)`.

    The best score is averaged over the classes of an image. The model is in evaluation mode; the objective's `scores`
    rank the windows.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.losses import MultiLabelCrossEntropy
        >>> from wsolnb.papers.bency2016.network import grid_classifier
        >>> net, world = grid_classifier("tiny", 4, grid=4, hidden=(8,)).eval(), World(families=2, species=2, size=32)
        >>> searches = {"one grid": BeamSearch(2, 3, recrop=False), "all of it": BeamSearch(None, 3, recrop=False)}
        >>> found = compare_searches(net, MultiLabelCrossEntropy(), load_scenes(world.scenes(2), 4, side=32), searches)
        >>> some, every = found.values()
        >>> bool((some["windows"] < every["windows"]).all()), bool((some["best_score"] <= every["best_score"]).all())
        (True, True)
    """
    found, count = {}, len(loaded.images)
    for name, search in searches.items():
        tree = search(model, loaded.images, objective.scores, loaded.present)
        windows = sum(torch.bincount(level.image, minlength=count) for level in tree.levels)
        best = torch.zeros(count, dtype=torch.float64, device=tree.pairs.device)
        best.index_add_(0, tree.pairs[:, 0], tree.best()[1].double())
        best = best / loaded.present.sum(dim=1)
        found[name] = {"windows": cast(Tensor, windows).double().cpu(), "best_score": best.cpu()}
    return found


def width_and_depth(found: SearchResults, depths: Sequence[int]) -> dict[str, dict[int, float]]:
    """Mean average precision of points, ranked by class scores: name of the width to depth to value.

    All widths were searched to the largest of the `depths` `H`.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.losses import MultiLabelCrossEntropy
        >>> from wsolnb.papers.bency2016.network import grid_classifier
        >>> net, world = grid_classifier("tiny", 4, grid=4, hidden=(8,)).eval(), World(families=2, species=2, size=32)
        >>> found = search_scenes(world.scenes(2), net, MultiLabelCrossEntropy(), BeamSearch(depth=2), [1, 2], side=32)
        >>> {name: list(curve) for name, curve in width_and_depth(found, [1, 2]).items()}
        {'M = 1': [1, 2], 'M = 2': [1, 2]}
    """
    return {
        f"M = {width}": {depth: float(judge_points(found.maps(width, depth)).compute()["mAP"]) for depth in depths}
        for width in found.windows
    }
