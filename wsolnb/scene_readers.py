"""Ways to read a map and a score for every class from an image, all called alike: beam search, score map, CAM.

images -> reader -> maps (B, K, h, w) and class scores (B, K)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import to_dtype

from wsolnb.detect import SceneMaps
from wsolnb.losses import Objective
from wsolnb.maps import class_activation_maps
from wsolnb.models.beam import GridClassifier
from wsolnb.models.cam import Classifier
from wsolnb.progress import track
from wsolnb.search import BeamSearch

Reader = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images `(B, 3, S, S)` in [0, 1], and which classes they truly show, bool `(B, K)`, to maps `(B, K, h, w)` and class
scores `(B, K)`. The truth is there for readers that save the time of looking where no metric looks."""


@dataclass
class BeamReader:
    """Heat maps of a beam search, and the scores of the whole image.

    Args:
        model: In evaluation mode, on its device.
        objective: Its `scores` rank the windows.
        search: Width and depth.
        wanted: Classes to search in an image: a number (the best-scored), `present` (those that are truly there: enough
            for points ranked by class scores, where a class that is absent is wrong wherever it points), or `all`.
        cells: Cells of a heat map on a side.
        spent: Filled while reading: `images`, `windows` (scored), `crops` (through the backbone) and `seconds`.
    """

    model: GridClassifier
    objective: Objective
    search: BeamSearch
    wanted: int | Literal["present", "all"] = "all"
    cells: int = 32
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("images", "windows", "crops", "seconds"), 0))

    def __call__(self, images: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Search a batch."""
        which = self.wanted if isinstance(self.wanted, int) else present if self.wanted == "present" else None
        started = time.perf_counter()
        tree = self.search(self.model, images, self.objective.scores, which)
        heat = tree.heat(self.cells)
        self.spent["seconds"] += time.perf_counter() - started
        self.spent["images"] += len(images)
        self.spent["windows"] += sum(tree.windows)
        self.spent["crops"] += sum(tree.crops)
        return heat, tree.scores

    def per_image(self) -> dict[str, float]:
        """What an image cost: windows, crops and milliseconds."""
        count = max(1, self.spent["images"])
        cost = {name: self.spent[name] / count for name in ("windows", "crops")}
        return cost | {"milliseconds": 1000 * self.spent["seconds"] / count}


def cam_reader(model: Classifier, objective: Objective, side: int) -> Reader:
    """Class activation maps without their negative parts, and the classifier's scores, of images of `side` pixels.

    Example:
        >>> from wsolnb.losses import MultiLabelCrossEntropy
        >>> from wsolnb.models.cam import classifier
        >>> read = cam_reader(classifier("tiny", 4).eval(), MultiLabelCrossEntropy(), side=64)
        >>> maps, scores = read(torch.rand(2, 3, 96, 96), torch.ones(2, 4, dtype=torch.bool))
        >>> maps.shape, scores.shape
        (torch.Size([2, 4, 8, 8]), torch.Size([2, 4]))
    """

    def read(images: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        features = model.features(_resized(images, side))
        maps = class_activation_maps(features, model.head.weight, model.head.bias)
        return maps.clamp(min=0), objective.scores(model.classify(features))

    return read


def score_reader(model: GridClassifier, objective: Objective) -> Reader:
    """The scores of the whole image only; the maps are a single cell.

    Example:
        >>> from wsolnb.losses import MultiLabelCrossEntropy
        >>> from wsolnb.models.beam import grid_classifier
        >>> read = score_reader(grid_classifier("tiny", 4, grid=4, hidden=(8,)).eval(), MultiLabelCrossEntropy())
        >>> maps, scores = read(torch.rand(2, 3, 48, 48), torch.ones(2, 4, dtype=torch.bool))
        >>> maps.shape, scores.shape
        (torch.Size([2, 4, 1, 1]), torch.Size([2, 4]))
    """

    def read(images: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        scores = objective.scores(model(_resized(images, model.side)))
        return torch.zeros_like(scores)[:, :, None, None], scores

    return read


def peak_reader(model: GridClassifier, objective: Objective, positions: int = 7) -> Reader:
    """The score map of the same network run as a sliding window, as Oquab et al. (2015) do.

    Class scores are those of the whole image, as for the search. The image is enlarged until `positions` x `positions`
    windows of the network's input fit into its grid, one cell apart. The map is zero where no window has its centre.

    Example:
        >>> from wsolnb.losses import MultiLabelCrossEntropy
        >>> from wsolnb.models.beam import grid_classifier
        >>> net = grid_classifier("tiny", 4, grid=4, hidden=(8,)).eval()
        >>> read = peak_reader(net, MultiLabelCrossEntropy(), positions=3)
        >>> maps, _ = read(torch.rand(2, 3, 48, 48), torch.ones(2, 4, dtype=torch.bool))
        >>> maps.shape  # 3 positions and 3 cells around them, in half cells
        torch.Size([2, 4, 12, 12])
    """

    def read(images: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        cells = model.grid
        across = cells + positions - 1
        grids = model.backbone(_resized(images, round(model.side * across / cells)))
        if grids.shape[2:] != (across, across):
            grids = F.adaptive_avg_pool2d(grids, across)
        windows = grids.unfold(2, cells, 1).unfold(3, cells, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        found = torch.cat([objective.scores(model.classify(part)) for part in windows.split(512)])
        scores = found.unflatten(0, (len(images), positions, positions)).permute(0, 3, 1, 2)
        maps = scores.new_zeros(*scores.shape[:2], 2 * across, 2 * across)  # half cells: the centre of an even window
        middle = slice(cells - 1, cells - 1 + 2 * positions)
        maps[:, :, middle, middle] = scores.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        return maps, objective.scores(model(_resized(images, model.side)))

    return read


@torch.inference_mode()
def read_maps(
    scenes: Dataset[Any],
    readers: Mapping[str, Reader],
    classes: int,
    *,
    side: int,
    device: torch.device | str = "cpu",
    batch_size: int = 16,
    workers: int = 0,
) -> dict[str, SceneMaps]:
    """Go through a data set once and read it in several ways.

    Args:
        scenes: Items `(image, target)` without a transform, of any sizes.
        readers: By name.
        classes: Number of classes.
        side: Side of the square in pixels to which images are brought first. The search crops out of that square.
        device: Where the readers' networks are.
        batch_size: Images at a time.
        workers: Processes that decode.

    Returns:
        For every reader maps and scores of all images, on the CPU, with the truth in original pixels.

    Example:
        >>> from wsolnb.data.critters import World
        >>> from wsolnb.losses import MultiLabelCrossEntropy
        >>> from wsolnb.models.cam import classifier
        >>> scenes = World(families=2, species=2, size=32).scenes(3, size=(48, 64))
        >>> readers = {"cam": cam_reader(classifier("tiny", 4).eval(), MultiLabelCrossEntropy(), side=64)}
        >>> found = read_maps(scenes, readers, 4, side=64)["cam"]
        >>> len(found), found.maps[0].shape, found.sizes[0].tolist()
        (3, torch.Size([4, 8, 8]), [48, 64])
    """
    maps: dict[str, list[Tensor]] = {name: [] for name in readers}
    scores: dict[str, list[Tensor]] = {name: [] for name in readers}
    sizes: list[list[int]] = []
    targets: list[Any] = []
    for images, frames, truths in square_batches(scenes, side, batch_size, workers):
        present = shown(truths, classes)
        for name, read in readers.items():
            found, score = read(images.to(device), present.to(device))
            maps[name] += found.float().cpu().unbind()
            scores[name] += score.float().cpu().unbind()
        sizes += frames
        targets += truths
    return {name: SceneMaps(maps[name], torch.stack(scores[name]), torch.tensor(sizes), targets) for name in readers}


def shown(targets: Sequence[Any], classes: int) -> Tensor:
    """Which classes images truly show, as crowd or not: bool `(n, K)`.

    Example:
        >>> shown([{"labels": torch.tensor([2, 2])}], 3)
        tensor([[False, False,  True]])
    """
    present = torch.zeros(len(targets), classes, dtype=torch.bool)
    for row, target in zip(present, targets, strict=True):
        row[target["labels"]] = True
    return present


def _resized(images: Tensor, side: int) -> Tensor:
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True, align_corners=False)


class _Squared(Dataset[tuple[Tensor, list[int], Any]]):
    """Images brought to a square, their original sizes, and their truth in original pixels."""

    def __init__(self, scenes: Dataset[Any], side: int) -> None:
        self.scenes, self.resize = scenes, v2.Resize([side, side], antialias=True)

    def __len__(self) -> int:
        return len(self.scenes)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, list[int], Any]:
        image, target = self.scenes[index]
        pixels = image.as_subclass(Tensor)
        return to_dtype(self.resize(pixels), torch.float32, scale=True), list(pixels.shape[-2:]), target


def square_batches(
    scenes: Dataset[Any], side: int, batch_size: int = 16, workers: int = 0
) -> Iterator[tuple[Tensor, list[list[int]], list[Any]]]:
    """Go through a data set in batches of images brought to a square of `side` pixels.

    Yields:
        Images float `(B, 3, side, side)` in [0, 1], original heights and widths, and the truth in original pixels.

    Example:
        >>> from wsolnb.data.critters import World
        >>> scenes = World(families=2, species=2, size=32).scenes(3, size=(48, 64))
        >>> [(images.shape, sizes) for images, sizes, _ in square_batches(scenes, 40, batch_size=2)]
        [(torch.Size([2, 3, 40, 40]), [[48, 64], [48, 64]]), (torch.Size([1, 3, 40, 40]), [[48, 64]])]
    """
    loader = DataLoader(_Squared(scenes, side), batch_size, num_workers=workers, collate_fn=list)
    for rows in track(loader, "images"):
        yield torch.stack([row[0] for row in rows]), [row[1] for row in rows], [row[2] for row in rows]
