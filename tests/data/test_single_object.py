"""Data sets with one object class per image: drawn, photos with one box, and the field's metadata files."""

from __future__ import annotations

from pathlib import Path

import layout_trees as trees
import numpy as np
import pytest
import torch
from PIL import Image

from wsolnb.data.critters import World
from wsolnb.data.readers.images import UnreadableImage
from wsolnb.data.readers.open import ProtocolImages
from wsolnb.data.readers.protocol import ProtocolSplit, write_split
from wsolnb.data.tasks import single_object
from wsolnb.localization.read import read_objects, true_class_reader
from wsolnb.models.cam import classifier
from wsolnb.runs.paper import Paper, paper_keys
from wsolnb.runs.parameters import read_recipe


@pytest.fixture
def protocol(tmp_path: Path) -> Path:
    """Two classes, non-square images, boxes in `train`, `val` and `test`."""
    for split, count in (("train", 6), ("val", 3), ("test", 4)):
        names = tuple(f"{split}/{k}.png" for k in range(count))
        (tmp_path / "photos" / split).mkdir(parents=True)
        for k, name in enumerate(names):
            Image.new("RGB", (40, 30), (20 * k, 0, 0)).save(tmp_path / "photos" / name)
        boxes = tuple(torch.tensor([[5, 6, 24, 19]]) for _ in names)
        write_split(ProtocolSplit(names, torch.arange(count) % 2, boxes=boxes), tmp_path / "meta" / split)
    return tmp_path


def test_drawn_parts_are_disjoint_and_repeatable() -> None:
    world = World(families=2, species=2, size=32)
    counts = {"train_images": 8, "held_images": 4, "test_images": 4}
    task, again = single_object.from_critters(world, **counts), single_object.from_critters(world, **counts)
    assert torch.equal(task.train[3][0], again.train[3][0])
    assert not torch.equal(task.held[0][0], task.test[0][0])
    other = single_object.from_critters(world, **counts, seed=1)
    assert not torch.equal(task.test[0][0], other.test[0][0])
    assert not torch.equal(other.train[0][0], task.test[0][0])


def test_metadata_files_make_far_corners_exclusive(protocol: Path) -> None:
    images = ProtocolImages(protocol / "meta" / "test", protocol / "photos")
    image, target = images[1]
    assert image.shape == (3, 30, 40)
    assert image[0, 0, 0] == 20
    assert target["boxes"].tolist() == [[5, 6, 25, 20]]
    assert target["labels"].tolist() == [1]


def test_metadata_boxes_end_at_the_border_of_their_image(protocol: Path) -> None:
    for box, meant in (([5, 6, 40, 19], [5, 6, 40, 20]), ([5, 6, 60, 19], None), ([50, 6, 60, 19], None)):
        split = ProtocolSplit(("test/1.png",), torch.tensor([0]), boxes=(torch.tensor([box]),))
        write_split(split, protocol / "beyond")
        images = ProtocolImages(protocol / "beyond", protocol / "photos")
        if meant is not None:
            assert images[0][1]["boxes"].tolist() == [meant]
            continue
        with pytest.raises(ValueError, match=r"localization\.txt: .*1\.png, object 1: box .* lies outside its image"):
            images[0]


def test_protocol_splits_and_counts(protocol: Path) -> None:
    task = single_object.from_photos(
        "protocol", protocol / "photos", metadata=protocol / "meta", splits=("train", "val", "test"), image_size=28,
        train_images=5, test_images=2,
    )  # fmt: skip
    assert task.sizes == {"classes": 2, "train": 5, "held": 3, "test": 2}
    image, label = task.train[0]
    assert image.shape == (3, 28, 28)
    assert label in (0, 1)


def test_masks_give_boxes_and_ignore_regions(tmp_path: Path) -> None:
    mask, ignore = np.zeros((12, 20), np.uint8), np.zeros((12, 20), np.uint8)
    mask[3:7, 5:15] = 255
    ignore[0:4, 0:8] = 255
    for name, pixels in (("mask", mask), ("ignore", ignore)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    Image.new("RGB", (20, 12)).save(tmp_path / "a.jpg")
    split = ProtocolSplit(("a.jpg",), torch.tensor([0]), masks=(("mask.png",),), ignore=("ignore.png",))
    write_split(split, tmp_path / "meta")
    _, target = ProtocolImages(tmp_path / "meta", tmp_path)[0]
    assert target["boxes"].tolist() == [[5, 3, 15, 7]]
    assert target["masks"].shape == (1, 12, 20)
    assert int(target["ignore"].sum()) == 4 * 8 - 3
    net = classifier("tiny", 1).eval()
    images = ProtocolImages(tmp_path / "meta", tmp_path)
    found = read_objects(images, {"cam": true_class_reader(net, net.head.weight)}, image_size=24)["cam"]
    assert {name: tuple(each.shape) for name, each in found.masks.items()} == {
        "masks": (1, 24, 24),
        "ignore": (1, 24, 24),
    }


def test_a_fifth_of_the_training_photos_is_held_out(shared_data: Path) -> None:
    task = single_object.from_photos("voc", shared_data / "cards", image_size=32)
    sizes = task.sizes
    assert sizes["classes"] == 6
    assert sizes["train"] + sizes["held"] + sizes["test"] == 210
    assert sizes["held"] == (sizes["train"] + sizes["held"]) // 5
    kept = {task.train.indices[k] for k in range(sizes["train"])}  # type: ignore[attr-defined]
    assert not kept & set(task.held.indices)  # type: ignore[attr-defined]


def test_bad_input_is_named(tmp_path: Path, protocol: Path) -> None:
    with pytest.raises(ValueError, match="unknown data set 'birds'; known: critters, voc, coco, protocol, cub"):
        single_object.from_photos("birds", tmp_path)
    with pytest.raises(ValueError, match="'protocol' needs a folder: give metadata"):
        single_object.from_photos("protocol", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no image .*0\.png: is the data root right\?"):
        ProtocolImages(protocol / "meta" / "test", tmp_path / "elsewhere")[0]


@pytest.mark.parametrize(
    ("dataset", "splits", "sizes"),
    [
        ("cub", ("train", "", "test"), {"classes": 2, "train": 8, "held": 2, "test": 10}),
        ("imagenet", ("train", "", "val"), {"classes": 3, "train": 29, "held": 1, "test": 6}),
        ("openimages", ("train", "val", "test"), {"classes": 2, "train": 20, "held": 20, "test": 20}),
        ("dogs", ("train", "", "test"), {"classes": 2, "train": 8, "held": 2, "test": 10}),
        ("aircraft", ("train", "val", "test"), {"classes": 2, "train": 20, "held": 20, "test": 20}),
    ],
)
def test_official_layouts(tmp_path: Path, dataset: str, splits: tuple[str, str, str], sizes: dict) -> None:
    getattr(trees, dataset)(tmp_path, per_class=10)
    if dataset == "imagenet":  # a fifth of those training images that have boxes
        for synset in trees.SYNSETS:
            for k in range(2):
                trees.xml(
                    tmp_path / "Annotations/CLS-LOC/train" / synset / f"{synset}_{k}.xml", [(synset, (4, 6, 33, 22))]
                )
    task = single_object.from_photos(dataset, tmp_path, splits=splits, image_size=16)
    assert task.sizes == sizes
    image, label = task.train[0]
    assert image.shape == (3, 16, 16)
    assert label == int(task.train.labels[0])  # type: ignore[attr-defined]
    for part in (task.held, task.test):
        image, target = part[0]
        assert len(target["boxes"]) >= 1
        assert image.shape[1:] == target["boxes"].canvas_size == (30, 40)
    if splits[1] == "":
        held = set(task.held.indices)  # type: ignore[attr-defined]
        assert held.isdisjoint(task.train.indices)  # type: ignore[attr-defined]
        few = single_object.from_photos(dataset, tmp_path, splits=splits, image_size=16, held_images=1).sizes
        assert few == sizes | {"train": sizes["train"] + sizes["held"] - 1, "held": 1}


@pytest.mark.parametrize(
    ("name", "dataset", "held"), [("cub", "cub", 2), ("imagenet", "imagenet", 0), ("openimages", "openimages", 20)]
)
def test_recipes_for_the_protocol_run_without_metadata(tmp_path: Path, name: str, dataset: str, held: int) -> None:
    getattr(trees, name)(tmp_path, per_class=10)
    if name == "imagenet":  # too few boxes for a fifth: nothing is held out
        assert single_object.from_photos("protocol", tmp_path, splits=("train", "val", "test")).sizes["test"] == 6
        return
    task = single_object.from_photos("protocol", tmp_path, splits=("train", "val", "test"), image_size=16)
    assert task.sizes["held"] == held
    assert task.sizes["train"] in (8, 20)


def test_recipes_find_their_data_in_official_layouts(tmp_path: Path) -> None:
    """What every recipe for single objects says about data, on a miniature tree of its data set."""
    names = {"cub": "cub", "imagenet": "imagenet", "openimages": "openimages"}
    found = 0
    for path in (path for key in paper_keys() for path in Paper(key).recipes().values()):
        recipe = read_recipe(path)
        name = names.get(path.stem.split("-")[0])
        if name is None or len(recipe.get("splits", ())) != 3:
            continue
        root = tmp_path / name
        if not root.exists():
            getattr(trees, name)(root, per_class=12)
        task = single_object.from_photos(recipe["dataset"], root, splits=tuple(recipe["splits"]), image_size=16)
        assert min(task.sizes.values()) >= (0 if name == "imagenet" else 2), path
        found += 1
    assert found >= 3


def test_a_class_that_training_lacks(tmp_path: Path) -> None:
    trees.imagenet(tmp_path, layout="sorted", per_class=10)
    (tmp_path / "train" / trees.SYNSETS[1]).rename(tmp_path / "elsewhere")
    with pytest.raises(
        ValueError, match="'train' has 2 classes, but 'val' has 3, the first that differs is 'n01443537'"
    ):
        single_object.from_photos("imagenet", tmp_path, splits=("train", "", "val"))


def test_the_root_of_another_data_set_for_coco_and_voc(tmp_path: Path) -> None:
    trees.voc(tmp_path / "voc")
    trees.coco(tmp_path / "coco")
    with pytest.raises(FileNotFoundError, match=r"is not COCO 2017: expected train2017/.*this looks like VOC2012"):
        single_object.from_photos("coco", tmp_path / "voc", splits=("train2017", "", "val2017"))
    with pytest.raises(FileNotFoundError, match=r"is not VOC2012: expected VOCdevkit/.*this looks like COCO 2017"):
        single_object.from_photos("voc", tmp_path / "coco")
    with pytest.raises(ValueError, match="looks like VOC2012"):
        single_object.from_photos("protocol", tmp_path / "voc")


def test_voc_s_own_folder_above_the_devkit(tmp_path: Path) -> None:
    trees.voc(tmp_path)
    task = single_object.from_photos("voc", tmp_path, splits=("train", "", "val"), image_size=16)
    again = single_object.from_photos("voc", tmp_path / "VOCdevkit" / "VOC2012", splits=("train", "", "val"))
    assert task.classes == again.classes == ["dog", "person"]


def test_broken_photos_are_skipped_if_asked_and_counted(tmp_path: Path) -> None:
    trees.cub(tmp_path, per_class=10)
    cut = tmp_path / "CUB_200_2011/images/001.Black_footed_Albatross/Black_footed_Albatross_0000_0.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    task = single_object.from_photos("cub", tmp_path, image_size=16)
    with pytest.raises(UnreadableImage, match=rf"{cut.name} does not decode"):
        [task.train[k] for k in range(len(task.train))]
    task = single_object.from_photos("cub", tmp_path, image_size=16, skip_broken=True)
    assert len([task.train[k] for k in range(len(task.train))]) == 8
    assert len(task.train.broken) == 1  # type: ignore[attr-defined]
    assert task.train.broken_files == [cut]  # type: ignore[attr-defined]
