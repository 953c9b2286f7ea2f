"""Reads maps under torchrun, or in one process, and keeps them with the images it decoded: of the tests of reading."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wsolnb.data.critters import World
from wsolnb.localization.read import cam_reader, read, read_objects
from wsolnb.losses import CrossEntropy, MultiLabelCrossEntropy
from wsolnb.models.cam import classifier
from wsolnb.papers.bae2020.analysis import activated_area, over_images
from wsolnb.papers.bency2016.cached_search import search_scenes
from wsolnb.papers.bency2016.network import grid_classifier
from wsolnb.papers.bency2016.search import BeamSearch
from wsolnb.papers.method import held_out_loss

WORLD = World(families=2, species=2, size=32)


class Noted(Dataset[Any]):
    """A data set, or two in turn, that notes which images were decoded."""

    def __init__(self, *parts: Any) -> None:
        self.parts, self.decoded = parts, []

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        self.decoded.append(index)
        image, target = self.parts[index % len(self.parts)][index // len(self.parts)]
        return image, target | {"image_id": index}


def results() -> dict[str, tuple[list[int], Any]]:
    """By loop over a data set: the indices decoded here, and what it gives."""
    torch.manual_seed(0)
    net, grid = classifier("tiny", 4).eval(), grid_classifier("tiny", 4, grid=4, hidden=(8,), adapt=8).eval()
    readers = {"cam": cam_reader(net, CrossEntropy())}
    singles, scenes = Noted(WORLD.singles(11)), Noted(WORLD.scenes(5, size=(48, 56)))
    mixed = Noted(WORLD.scenes(5, size=(48, 64)), WORLD.scenes(5, size=(56, 40), seed=1))
    objects = read_objects(singles, readers, batch_size=2)["cam"]
    several = read(mixed, readers, batch_size=2)["cam"]
    found = search_scenes(scenes, grid, MultiLabelCrossEntropy(), BeamSearch(depth=2), [2], side=48, batch_size=2)
    photos, held = Noted(WORLD.singles(130)), Noted(WORLD.singles(150))
    return {
        "read_objects": (singles.decoded, [objects.maps, objects.scores, objects.labels, *objects.masks.values()]),
        "read": (mixed.decoded, [*several.maps, several.scores, several.sizes]),
        "search_scenes": (scenes.decoded, [found.pairs, found.scores, found.windows[2], found.values[2], found.sizes]),
        "over_images": (photos.decoded, [over_images(net, photos, activated_area)]),
        "held_out_loss": (held.decoded, [torch.tensor(held_out_loss(net, CrossEntropy(), held, 32))]),
        "targets": ([], [torch.tensor([t["image_id"] for t in several.targets + found.targets])]),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    torch.save(results(), Path(sys.argv[1], f"{os.environ['RANK']}.pt"))
