"""Fully connected layers on a grid of L x L cells (bency2016 Sec. 3.2, https://arxiv.org/abs/1603.00489).

    image -> backbone -> grid (B, T, L, L) -> F6, F7 -> adaptation layers Fa, Fb -> one output per class

All layers behind the grid depend on it alone: a window of it, resampled to L x L, is scored as an image of its own
would be (`wsolnb.papers.bency2016.search`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wsolnb._utils.whole_batch import draw
from wsolnb.models.backbones import Backbone, backbone
from wsolnb.models.weights import load_into

_OWN_DENSE = {"alexnet": 6, "vgg16": 7}  # networks with fully connected layers of their own, and their grids
_OWN_SIDE = 224


class GridClassifier(nn.Module):
    """Backbone, fully connected layers on its grid, two adaptation layers: `Mb = Wb σ(Wa M7 + Ba) + Bb`.

    The softmax behind `Fb` belongs to the loss.

    Args:
        backbone: Gives features `(B, T, h, w)`, averaged to `grid` x `grid` cells.
        dense: From a flat grid `(B, T L L)` to `(B, width)`: F6 and F7 with their rectifiers.
        grid: `L`, cells on a side.
        adapt: Width of `Fa`.
        side: Side of the input images in pixels; by default `L` strides of the backbone.

    Raises:
        ValueError: If the grid has fewer than 2 cells on a side, hence no smaller window; if there is no output.

    Example:
        >>> net = grid_classifier("tiny", 12, grid=6, hidden=(64,), adapt=32)
        >>> net(torch.rand(2, 3, 48, 48)).shape, net.features(torch.rand(2, 3, 64, 96)).shape
        (torch.Size([2, 12]), torch.Size([2, 96, 6, 6]))
    """

    def __init__(
        self,
        backbone: Backbone,
        outputs: int,
        dense: nn.Module,
        width: int,
        *,
        grid: int = 7,
        adapt: int = 2048,
        side: int | None = None,
    ) -> None:
        super().__init__()
        if grid < 2:
            raise ValueError(f"a grid of {grid} x {grid} cells has no smaller windows: give grid=2 or more")
        if outputs < 1:
            raise ValueError(f"a classifier needs at least one output, got {outputs}")
        self.backbone, self.dense = backbone, dense
        self.head = nn.Sequential(nn.Linear(width, adapt), nn.ReLU(), nn.Linear(adapt, outputs))
        self.grid, self.side = grid, side or grid * backbone.stride
        self.frozen: tuple[str, ...] = ()

    def extra_repr(self) -> str:
        """Settings beyond the layers, for `repr` and the key of cached weights."""
        return f"grid={self.grid}, side={self.side}, frozen={self.frozen}"

    def freeze(self, *parts: str) -> Self:
        """Train the last layers only (bency2016 Sec. 4.1): the named parts keep their weights and their statistics.

        Parts are `backbone` and `dense`; none: everything is trained.

        Raises:
            ValueError: If there is no such part.

        Example:
            >>> net = grid_classifier("tiny", 3, hidden=(8,)).freeze("backbone", "dense")
            >>> [name for name, p in net.named_parameters() if p.requires_grad]
            ['head.0.weight', 'head.0.bias', 'head.2.weight', 'head.2.bias']
        """
        if unknown := set(parts) - {"backbone", "dense"}:
            raise ValueError(f"cannot freeze {sorted(unknown)}: parts are backbone and dense")
        self.frozen = parts
        for name in ("backbone", "dense"):
            self.get_submodule(name).requires_grad_(name not in parts)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """The grid `M`, `(B, T, L, L)`, of RGB images in [0, 1], `(B, 3, H, W)`, meant for `side` x `side` pixels."""
        found: Tensor = self.backbone(images)
        if found.shape[2:] != (self.grid, self.grid):
            found = F.adaptive_avg_pool2d(found, self.grid)
        return found

    def frozen_features(self) -> nn.Sequential:
        """A copy that turns `backbone.normalise`d images into grids like `features` in evaluation mode, but faster.

        Batch normalisation is folded into the preceding convolution. Later training does not reach the copy.

        Example:
            >>> net, images = grid_classifier("tiny", 3, grid=4, hidden=(8,)).eval(), torch.rand(2, 3, 32, 32)
            >>> grids = net.frozen_features()(net.backbone.normalise(images))
            >>> torch.allclose(grids, net.features(images), atol=1e-4)
            True
        """
        stages = copy.deepcopy(nn.Sequential(*self.backbone.stages.values())).eval().requires_grad_(False)
        for chain in [m for m in stages.modules() if isinstance(m, nn.Sequential)]:
            for k, (layer, after) in enumerate(pairwise(chain)):
                if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                    chain[k], chain[k + 1] = fuse_conv_bn_eval(layer, after), nn.Identity()
        return stages.append(nn.AdaptiveAvgPool2d(self.grid)).to(memory_format=torch.channels_last)

    def classify(self, grids: Tensor) -> Tensor:
        """Outputs `(B, K)` of grids `(B, T, L, L)`.

        Raises:
            ValueError: If they do not have `L` x `L` cells.
        """
        if grids.ndim != 4 or grids.shape[2:] != (self.grid, self.grid):
            raise ValueError(f"expected grids (B, T, {self.grid}, {self.grid}), got {tuple(grids.shape)}")
        return self.head(self.dense(grids.flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        """Outputs `(B, K)` of RGB images in [0, 1], `(B, 3, H, W)`: no softmax."""
        return self.classify(self.features(images))


class MaxPooled(nn.Module):
    """A grid classifier as a sliding window, whose score map is max-pooled while it trains (oquab2015).

    The opponent of bency2016's Table 1: the image has a class if one window of it has. In training every batch sees
    windows of one size, drawn at random; in evaluation all sizes count.

    Args:
        net: Read and trained in place.
        positions: Windows along each side of the image, for every size of window: `L / (L + positions - 1)` of a side.

    Raises:
        ValueError: If there is no size, or one has no window.

    Example:
        >>> net = MaxPooled(grid_classifier("tiny", 3, grid=4, hidden=(8,)), [2, 5]).eval()
        >>> images = torch.rand(2, 3, 40, 40)
        >>> net.score_map(images, 5).shape, net(images).shape
        (torch.Size([2, 3, 5, 5]), torch.Size([2, 3]))
    """

    def __init__(self, net: GridClassifier, positions: Sequence[int]) -> None:
        super().__init__()
        if not positions or min(positions) < 1:
            raise ValueError(f"positions={list(positions)}: give the number of windows along a side for each size")
        self.net, self.positions = net, tuple(positions)

    def score_map(self, images: Tensor, positions: int) -> Tensor:
        """Outputs of `positions` x `positions` windows, a cell apart, of the image enlarged until they fit."""
        cells = self.net.grid
        across = cells + positions - 1
        grids = self.net.backbone(resized(images, round(self.net.side * across / cells)))
        if grids.shape[2:] != (across, across):
            grids = F.adaptive_avg_pool2d(grids, across)
        windows = grids.unfold(2, cells, 1).unfold(3, cells, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        at_once = len(windows) if self.training else _WINDOWS  # dropout is drawn for all of them
        found = torch.cat([self.net.classify(part) for part in windows.split(at_once)])
        return found.unflatten(0, (len(images), positions, positions)).permute(0, 3, 1, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs `(B, K)`: the largest one of all windows."""
        sizes: Sequence[int] = self.positions
        if self.training:
            sizes = [sizes[int(draw(lambda: torch.randint(len(self.positions), ())))]]
        return torch.stack([self.score_map(images, size).amax(dim=(2, 3)) for size in sizes]).amax(dim=0)


_WINDOWS = 512  # windows classified at once in evaluation


def resized(images: Tensor, side: int) -> Tensor:
    """Images resized to squares of `side` pixels.

    Example:
        >>> resized(torch.rand(2, 3, 30, 40), 16).shape
        torch.Size([2, 3, 16, 16])
    """
    if images.shape[2:] == (side, side):
        return images
    enlarged = F.interpolate(images.float(), (side, side), mode="bilinear", antialias=True, align_corners=False)
    return enlarged.to(images)  # bfloat16 has no antialiased kernel


def grid_classifier(
    name: str,
    outputs: int,
    *,
    grid: int | None = None,
    side: int | None = None,
    hidden: Sequence[int] = (512,),
    adapt: int = 256,
    dropout: float = 0.0,
    seed: int = 0,
    weights: str | None = None,
    **options: Any,
) -> GridClassifier:
    """Build a grid classifier on a backbone by name, with the same random weights for the same seed.

    AlexNet (6x6) and VGG16 (7x7) keep their F6 and F7 at their own grid, with weights where given; other backbones (7x7
    by default) get new ones of widths `hidden`. Every new layer has a `dropout` rate at its input. `side` and `adapt`
    are as for `GridClassifier`; name, weights and other options as for `wsolnb.models.backbones.backbone`. The global
    random state is unchanged.

    Raises:
        ValueError: As for `GridClassifier` and `backbone`.

    Example:
        >>> net = grid_classifier("tiny", 5, grid=4, side=64, hidden=(32,), adapt=16)
        >>> net(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 5])
    """
    own = _OWN_DENSE.get(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = backbone(name, weights=weights, **options)
        cells = grid or own or 7
        if cells == own:
            dense, width, side = _own_dense(name, weights), 4096, side or _OWN_SIDE
        else:
            inputs = body.out_channels * cells**2
            dense, width = _dense(inputs, hidden, dropout), [inputs, *hidden][-1]
        return GridClassifier(body, outputs, dense, width, grid=cells, adapt=adapt, side=side)


def _own_dense(name: str, weights: str | None) -> nn.Sequential:
    net = torchvision.models.get_model(name, weights=None)
    load_into(net, name, weights, ("classifier.6.",))
    return net.classifier[:6]


def _dense(inputs: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Dropout(dropout)] * bool(dropout) + [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers)
