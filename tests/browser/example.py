"""Something to explore without training: drawn scenes, and maps made of their masks as two networks would."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from wsolnb.boxes import BoxRule
from wsolnb.data.critters import World
from wsolnb.explorer import Explorer

CELLS = (28, 28)


def example(count: int = 24, size: tuple[int, int] = (224, 224), **changes: Any) -> Explorer:
    """Three classes in `count` scenes: `cam` sees little more than the marks on the heads, `dcm` whole animals."""
    scenes = World(families=3, species=1, size=110, objects=(1, 3), body_tells=1.0).scenes(count, seed=5, size=size)
    pairs = [_maps(scenes[i][1], len(scenes.classes), seed=i) for i in range(count)]
    maps = {"cam": [cam for cam, _ in pairs], "dcm": [dcm for _, dcm in pairs]}
    rules = {"cam": BoxRule.preset("cam"), "dcm": BoxRule(0.5, resize="bilinear")}
    state: dict[str, Any] = {"presence": 0.6, "sim_threshold": 0.5, "opacity": 0.55}
    return Explorer(scenes, maps, scenes.classes, rules=rules, **(state | changes))


def _maps(target: Any, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    narrow, wide = 0.25 * torch.rand(2, classes, *CELLS, generator=generator)
    for mask, mark, label in zip(target["masks"], target["mark_masks"], target["labels"].tolist(), strict=True):
        near, whole = _blurred(mark, 25), _blurred(mask, 9)
        narrow[label] = torch.maximum(narrow[label], near + 0.2 * _blurred(mask, 15))
        wide[label] = torch.maximum(wide[label], 0.95 * whole)
    return narrow * 6 - 1, wide.clamp(max=1)


def _blurred(mask: Tensor, width: int) -> Tensor:
    smooth = functional.avg_pool2d(mask[None, None].float(), width, 1, width // 2)
    cells = functional.interpolate(smooth, CELLS, mode="area")[0, 0]
    return cells / cells.max().clamp(min=1e-6)
