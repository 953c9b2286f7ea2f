"""Crops of single objects, and what happens to them before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

from wsolnb.data.crops import InstanceCrops, RandomErase, SquareCrop, crop_transform, eval_crop_transform
from wsolnb.data.readers.coco import CocoScenes
from wsolnb.data.readers.voc import VocScenes


def boxes_of(rows: list[list[float]], size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(torch.tensor(rows).reshape(-1, 4).float(), format="XYXY", canvas_size=size)


class Drawn(Dataset[tuple[Tensor, dict[str, Any]]]):
    """Any dataset with the common vocabulary: each pixel tells its row and column."""

    classes = ("small", "large", "long")
    transform: Any = None

    def __init__(self, crowd: bool = False) -> None:
        self.crowd = crowd
        self.calls = 0

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        self.calls += 1
        size = (60, 90) if index == 0 else (50, 40)
        rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
        image = tv_tensors.Image(torch.stack([rows, columns, torch.full(size, 7 + index)]).to(torch.uint8))
        boxes = [[[10.25, 20.5, 50.0, 59.75], [3, 3, 34.9, 34.9]], [[0, 0, 32, 5], [1, 10, 2, 50]]][index]
        target = {
            "boxes": boxes_of(boxes, size),
            "labels": torch.tensor([[1, 0], [2, 2]][index]),
            "image_id": 5 - index,
        }
        target["image_id"] = 5 - index
        if self.crowd:
            target["crowd"] = torch.tensor([index == 0, False])
        return image, target


def test_small_in_both_dimensions_is_dropped() -> None:
    crops = InstanceCrops(Drawn())
    assert len(crops) == 3  # 31.9 x 31.9 is dropped, 32 x 5 and 1 x 40 stay
    assert crops.labels.tolist() == [1, 2, 2]
    assert crops.indices.tolist() == [0, 1, 1]
    assert list(crops.classes) == ["small", "large", "long"]
    assert len(InstanceCrops(Drawn(), min_size=0)) == 4


@pytest.mark.parametrize("cache_side", [None, 480])
def test_crop_holds_exactly_the_pixels_of_the_box(cache_side: int | None) -> None:
    crops = InstanceCrops(Drawn(), cache_side=cache_side)
    image, target = crops[0]
    assert isinstance(image, tv_tensors.Image)
    assert image.dtype == torch.uint8
    assert image[0, :, 0].tolist() == list(range(20, 60))
    assert image[1, 0].tolist() == list(range(10, 50))
    assert target["boxes"].tolist() == [[0.25, 0.5, 40.0, 39.75]]
    assert target["boxes"].canvas_size == (40, 40)
    assert target["labels"].tolist() == [1]
    assert target["image_id"] == 5
    assert tuple(crops[1][0].shape) == (3, 5, 32)
    assert tuple(crops[-1][0].shape) == (3, 40, 1)
    with pytest.raises(IndexError):
        crops[3]


def test_crowd_is_dropped() -> None:
    assert InstanceCrops(Drawn(crowd=True)).labels.tolist() == [2, 2]


def test_a_cache_decodes_once_and_shrinks_what_is_too_large() -> None:
    scenes = Drawn()
    crops = InstanceCrops(scenes, cache_side=20)
    calls = scenes.calls
    image, target = crops[0]
    assert tuple(image.shape) == (3, 20, 20)
    assert target["boxes"].canvas_size == (20, 20)
    torch.testing.assert_close(target["boxes"].as_subclass(Tensor), torch.tensor([[0.125, 0.25, 20.0, 19.875]]))
    assert tuple(crops[1][0].shape) == (3, 5, 32)
    assert scenes.calls == calls == 4  # two for the truth, two for the pixels
    assert crops._cache is not None
    assert all(crop.untyped_storage().nbytes() == crop.nbytes for crop, _ in crops._cache)  # no view of a scene


def test_flat_boxes_give_at_least_one_pixel() -> None:
    class Flat(Drawn):
        def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
            image, target = super().__getitem__(index)
            size = tuple(image.shape[1:])
            target["boxes"] = boxes_of([[0, size[0], size[1], size[0]], [5, 1, 5, 41]], size)
            return image, target

    crops = InstanceCrops(Flat())
    assert [tuple(crops[k][0].shape) for k in range(len(crops))] == [(3, 1, 90), (3, 40, 1), (3, 1, 40), (3, 40, 1)]
    assert crop_transform(16, (20, 30))(*crops[0])[0].shape == (3, 16, 16)


def test_what_is_refused() -> None:
    scenes = Drawn()
    with pytest.raises(ValueError, match="no crops left: none of the 4 objects in 2 images is at least 200 px"):
        InstanceCrops(scenes, min_size=200)
    with pytest.raises(ValueError, match="cache_side must be a positive number of pixels, got 0"):
        InstanceCrops(scenes, cache_side=0)
    scenes.transform = v2.Identity()
    with pytest.raises(ValueError, match="give the scenes no transform"):
        InstanceCrops(scenes)


def test_crops_can_be_batched_after_the_transform() -> None:
    crops = InstanceCrops(Drawn(), transform=crop_transform(24, (30, 40)))
    images, targets = default_collate([crops[k] for k in range(3)])
    assert images.shape == (3, 3, 24, 24)
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1
    assert targets["labels"].tolist() == [[1], [2], [2]]
    assert targets["boxes"].shape == (3, 1, 4)


@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 2**31))
def test_square_fits_into_any_image(height: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    params = SquareCrop(224, (256, 480)).make_params([torch.empty(3, height, width)])
    assert 1 <= params["height"] == params["width"] <= min(height, width)
    assert 0 <= params["top"] <= height - params["height"]
    assert 0 <= params["left"] <= width - params["width"]


def test_square_covers_all_scales_and_places() -> None:
    crop, image = SquareCrop(224, (256, 480)), torch.empty(3, 300, 900)
    drawn = [crop.make_params([image]) for _ in range(400)]
    sides = [p["height"] for p in drawn]
    assert min(sides) == pytest.approx(300 * 224 / 480, abs=3)
    assert max(sides) == pytest.approx(300 * 224 / 256, abs=3)
    assert max(p["left"] for p in drawn) > 600
    assert min(p["left"] for p in drawn) < 40
    assert len({p["top"] for p in drawn}) > 50


def test_square_is_what_resizing_and_cropping_gives() -> None:
    ramp = torch.linspace(0, 1, 120)[:, None] * torch.ones(3, 120, 160) / 2 + torch.linspace(0, 0.5, 160)
    ours = eval_crop_transform(48, 60)(tv_tensors.Image(ramp))
    library = v2.Compose([v2.Resize(60), v2.CenterCrop(48)])(ramp)
    torch.testing.assert_close(ours.as_subclass(Tensor), library, atol=0.005, rtol=0)


def test_boxes_and_masks_travel_along() -> None:
    torch.manual_seed(3)
    image = torch.zeros(3, 60, 90, dtype=torch.uint8)
    image[:, 20:40, 30:60] = 255
    target = {
        "boxes": boxes_of([[30, 20, 60, 40]], (60, 90)),
        "masks": tv_tensors.Mask(image[:1] > 0),
        "labels": torch.tensor([4]),
    }
    for _ in range(20):
        out, moved = crop_transform(50, (60, 100), erase=0)(tv_tensors.Image(image), target)
        rows, columns = (out[0] > 0.5).nonzero().T
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        torch.testing.assert_close(moved["boxes"][0].as_subclass(Tensor), torch.tensor(seen).float(), atol=1.01, rtol=0)
        assert moved["boxes"].canvas_size == (50, 50)
        assert ((out[0] > 0.5) == moved["masks"][0]).float().mean() > 0.9
        assert moved["labels"].tolist() == [4]
    assert target["boxes"].tolist() == [[30, 20, 60, 40]]


def test_erasing_fills_with_uniform_noise() -> None:
    image = torch.full((3, 40, 60), 2.0)  # no noise in [0, 1] hits it
    shares, values = [], []
    for _ in range(200):
        out = RandomErase(1.0)(tv_tensors.Image(image))
        erased = (out != 2).all(0)
        shares.append(erased.float().mean().item())
        values.append(out[:, erased].flatten())
        rows, columns = erased.nonzero().T
        assert erased.sum() == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
    noise = torch.cat(values)
    assert 0 <= noise.min() < 0.01
    assert 0.99 < noise.max() <= 1
    assert noise.mean().item() == pytest.approx(0.5, abs=0.01)
    assert 0.015 < min(shares) < 0.05
    assert 0.35 < max(shares) < 0.42
    assert (image == 2).all()


def test_erasing_keeps_its_probability_and_leaves_boxes_alone() -> None:
    image, boxes = tv_tensors.Image(torch.ones(3, 30, 20) * 2), boxes_of([[1, 2, 3, 4]], (30, 20))
    results = [RandomErase(0.25)(image, {"boxes": boxes}) for _ in range(400)]
    assert sum((out != 2).any().item() for out, _ in results) / 400 == pytest.approx(0.25, abs=0.08)
    assert all(target["boxes"].tolist() == [[1, 2, 3, 4]] for _, target in results)


def test_a_seed_repeats_everything() -> None:
    image, results = tv_tensors.Image(torch.randint(0, 256, (3, 90, 70), dtype=torch.uint8)), []
    for _ in range(2):
        torch.manual_seed(11)
        results.append(crop_transform(32, (40, 60), erase=1.0)(image))
    torch.testing.assert_close(*results)


def test_eval_transform_is_deterministic_and_central() -> None:
    image = torch.zeros(3, 100, 200, dtype=torch.uint8)
    image[:, :, 100:] = 255
    out = eval_crop_transform(40, 50)(tv_tensors.Image(image))
    assert out[0, :, :18].max() == 0
    assert out[0, :, 22:].min() == 1


def test_square_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="resized to 100 to 200 px, a square of 224 px must fit"):
        crop_transform(224, (100, 200))


def test_real_photos(shared_data: Path) -> None:
    root = shared_data / "coco256"
    scenes = CocoScenes(root / "train2017", root / "annotations" / "instances_train2017.json", min_boxes=8)
    crops = InstanceCrops(scenes, cache_side=480, transform=crop_transform())
    assert len(scenes.classes) == 29
    assert len(crops) == 547
    assert crops.taxonomy is not None
    assert max(min(crop.shape[1:]) for crop, _ in crops._cache or []) <= 480
    image, target = crops[100]
    assert tuple(image.shape) == (3, 224, 224)
    assert target["labels"].tolist() == [crops.labels[100]]


def test_real_cards(shared_data: Path) -> None:
    crops = InstanceCrops(VocScenes(shared_data / "cards" / "train"), transform=eval_crop_transform())
    assert len(crops) == 527
    assert crops[-1][0].shape == (3, 224, 224)
