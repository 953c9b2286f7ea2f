"""Labels of data sets, taken from where each kind keeps them."""

from __future__ import annotations

import torch
from torch.utils.data import TensorDataset
from torchvision.datasets import FakeData

from wsolnb.data.critters import World
from wsolnb.data.in_memory import InMemoryDataset
from wsolnb.data.labels import labels_of
from wsolnb.data.tasks import single_object


def test_labels_are_found_without_drawing() -> None:
    singles = World(families=2, species=2, size=32).singles(6)
    expected = [0, 1, 2, 3, 0, 1]
    kept = InMemoryDataset(singles, labels_only=True)
    assert labels_of(kept).tolist() == labels_of(singles).tolist() == expected
    assert kept.samples == {}
    assert labels_of(TensorDataset(torch.zeros(3), torch.tensor([2, 0, 1]))).tolist() == [2, 0, 1]
    task = single_object.from_critters(World(size=32), train_images=14, held_images=1, test_images=1)
    assert [task.train[i][1] for i in range(14)] == labels_of(task.train).tolist()
    scenes = World(families=2, species=2, size=32).scenes(2)
    assert not hasattr(scenes, "labels")


def test_labels_by_torchvisions_names() -> None:
    fake = FakeData(5, (3, 8, 8), num_classes=3)
    read = labels_of(fake)
    assert read.tolist() == [int(fake[index][1]) for index in range(5)]
    fake.targets = [2, 0, 1, 1, 0]
    assert labels_of(fake).tolist() == [2, 0, 1, 1, 0]
