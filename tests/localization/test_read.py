"""The one loop over a data set: what is resized, in which order results stand, and which passes are shared."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from wsolnb.data.critters import World
from wsolnb.localization.maps import LocalizationMaps, as_probabilities, stretched
from wsolnb.localization.read import FeatureReader, first_labels, read, read_objects, true_class_reader
from wsolnb.models.cam import classifier

WORLD = World(families=2, species=2, size=32)


class Mixed(Dataset[Any]):
    """Images of two sizes, in turn."""

    def __init__(self) -> None:
        self.parts = [WORLD.scenes(3, size=(48, 64)), WORLD.scenes(3, size=(56, 40), seed=1)]

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        return self.parts[index % 2][index // 2]


class Counted(nn.Module):
    """The mean colour as the map of every class; counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.passes.append(tuple(images.shape))
        return images.mean(dim=1, keepdim=True).expand(-1, 4, -1, -1)


def readers(net: Counted) -> dict[str, FeatureReader]:
    def readout(features: Tensor, labels: Any) -> tuple[Tensor, Tensor]:
        return features, features.amax(dim=(2, 3))

    return {"one": FeatureReader(net, readout), "two": FeatureReader(net, readout)}


def test_readers_with_one_forward_share_it() -> None:
    net = Counted()
    found = read(Mixed(), readers(net), side=16, batch_size=4)
    assert net.passes == [(4, 3, 16, 16), (2, 3, 16, 16)]
    assert torch.equal(torch.stack(list(found["one"].maps)), torch.stack(list(found["two"].maps)))
    plain = Counted()
    read(Mixed(), {"alone": lambda images, labels: readers(plain)["one"](images, labels)}, side=16)
    assert len(plain.passes) == 1


def test_images_of_several_sizes_keep_their_order_and_truth() -> None:
    images = Mixed()
    found = read(images, readers(Counted()), batch_size=2)["one"]
    assert found.sizes.tolist() == [[48, 64], [56, 40]] * 3
    for index in range(6):
        pixels, target = images[index]
        expected = (pixels.as_subclass(Tensor).float() / 255).mean(dim=0)
        torch.testing.assert_close(found.maps[index][2], expected)
        assert torch.equal(found.targets[index]["labels"], target["labels"])
    longer = read(images, readers(Counted()), longer_side=32)["one"]
    assert {tuple(maps.shape[1:]) for maps in longer.maps} == {(24, 32), (32, 22)}


def test_the_true_class_is_kept_whether_a_reader_gives_all_or_one() -> None:
    net, images = classifier("tiny", 4).eval(), World(families=2, species=2, size=(48, 64)).singles(5)
    one = true_class_reader(net, net.head.weight)

    def all_classes(batch: Tensor, labels: Any) -> tuple[Tensor, Tensor]:
        features = net.features(batch)
        return torch.einsum("bdhw,cd->bchw", features, net.head.weight), net.classify(features)

    found = read_objects(images, {"one": one, "all": all_classes}, upsample=as_probabilities)
    torch.testing.assert_close(found["one"].maps, found["all"].maps)
    assert found["one"].upsample is as_probabilities
    assert found["one"].labels.tolist() == [0, 1, 2, 3, 0]
    with pytest.raises(ValueError, match="no labels are given"):
        one(torch.rand(1, 3, 32, 32), None)
    assert first_labels([torch.tensor([3, 3])]).tolist() == [3]


def test_truth_is_resized_with_the_image() -> None:
    images = World(families=2, species=2, size=(48, 64)).singles(2)
    net = classifier("tiny", 4).eval()
    reader = {"cam": true_class_reader(net, net.head.weight)}
    small = read_objects(images, reader, image_size=32)["cam"]
    assert small.image_size == (32, 32)
    assert small.masks["masks"].shape == (2, 32, 32)
    scale = torch.tensor([32 / 64, 32 / 48] * 2)
    torch.testing.assert_close(small.boxes[1], images[1][1]["boxes"].as_subclass(Tensor) * scale)


def test_a_subset_keeps_all_that_belongs_to_its_images() -> None:
    maps = LocalizationMaps(
        torch.rand(3, 4, 5),
        torch.eye(3),
        torch.arange(3),
        [torch.rand(1, 4)] * 3,
        (8, 10),
        {"masks": torch.ones(3, 8, 10)},
    )
    part = maps.subset(torch.tensor([2, 0]))
    assert part.labels.tolist() == [2, 0]
    assert torch.equal(part.upsampled(), stretched(maps.maps[[2, 0]], (8, 10)))
    assert len(part.boxes) == len(part.masks["masks"]) == 2
    assert part.upsample is stretched
