"""Readers of the official layouts, on small trees in exactly these layouts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import layout_trees as trees
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from wsolnb.data.readers._files import imagenet_boxes
from wsolnb.data.readers.aircraft import Aircraft
from wsolnb.data.readers.coco import CocoScenes
from wsolnb.data.readers.cub import CubBirds
from wsolnb.data.readers.dogs import StanfordDogs
from wsolnb.data.readers.imagenet import ImageNet
from wsolnb.data.readers.images import SkipUnreadable, UnreadableImage
from wsolnb.data.readers.layouts import TITLES, layouts_in, not_here, recognise, voc_folder
from wsolnb.data.readers.open import open_split
from wsolnb.data.readers.openimages import OpenImages30k
from wsolnb.data.readers.voc import VocScenes

BUILDERS = {
    "cub": trees.cub,
    "imagenet": trees.imagenet,
    "openimages": trees.openimages,
    "dogs": trees.dogs,
    "aircraft": trees.aircraft,
    "voc2012": trees.voc,
    "voc2007": lambda root: trees.voc(root, "2007"),
    "coco2017": trees.coco,
    "coco2014": lambda root: trees.coco(root, "2014"),
}


def as_sample(dataset: Dataset, index: int, size: tuple[int, int], masks: bool) -> dict:
    """The format that all readers share."""
    image, target = dataset[index]
    assert isinstance(image, tv_tensors.Image)
    assert image.dtype == torch.uint8
    assert image.shape == (3, *size)
    assert target["labels"].shape == (1,)
    assert target["labels"].dtype == torch.int64
    assert isinstance(target["boxes"], tv_tensors.BoundingBoxes)
    assert target["boxes"].dtype == torch.float32
    assert target["boxes"].canvas_size == size
    assert target["image_id"] == index
    assert ("masks" in target) == ("ignore" in target) == masks
    for name in ("masks", "ignore") if masks else ():
        assert isinstance(target[name], tv_tensors.Mask)
        assert target[name].dtype == torch.bool
        assert target[name].shape == (1, *size)
    return target


def test_cub_boxes_masks_and_splits(tmp_path: Path) -> None:
    trees.cub(tmp_path)
    train, test = CubBirds(tmp_path, "train"), CubBirds(tmp_path / "CUB_200_2011", "test")
    assert (len(train), len(test), len(CubBirds(tmp_path, "all"))) == (4, 4, 8)
    assert train.classes == ["Black footed Albatross", "Laysan Albatross"]
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert train.name(0) == "001.Black_footed_Albatross/Black_footed_Albatross_0000_0.jpg"
    target = as_sample(train, 1, (30, 40), masks=True)
    assert target["boxes"].tolist() == [[5, 8, 25, 20]]  # left + width is the last pixel
    assert int(target["masks"].sum()) == 11 * 20  # rows 9 to 19: two of five voices are no majority
    assert not target["ignore"].any()
    assert set(train._names.tolist()).isdisjoint(test._names.tolist())


def test_cub_boxes_agree_with_the_field_s_metadata(shared_data: Path) -> None:
    """What the reader's reading of widths rests on: far corners reach the last pixel and never pass it."""
    for split in ("train", "test"):
        folder = shared_data / "wsol_metadata" / "CUB" / split
        rows = [line.rsplit(",", 4) for line in (folder / "localization.txt").read_text().splitlines()]
        sizes = dict(line.split(",", 1) for line in (folder / "image_sizes.txt").read_text().splitlines())
        beyond = []
        for name, left, top, right, bottom in rows:
            width, height = map(int, sizes[name].split(","))
            assert min(int(left), int(top)) >= 0
            beyond += [int(right) - width, int(bottom) - height]
        assert max(beyond) == -1


def test_cub_without_segmentations(tmp_path: Path) -> None:
    trees.cub(tmp_path, segmentations=False)
    as_sample(CubBirds(tmp_path, "test"), 0, (30, 40), masks=False)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("classes.txt", "2 002.Laysan_Albatross\n", "", r"image 5 has class 2, but classes.txt lists 1 classes"),
        ("classes.txt", "2 002.Laysan_Albatross\n", "2 002.Laysan_Albatross\n3 003.Tern\n",
         r"lists 3 classes, 1 of them without an image, such as 3 \(003.Tern\)"),
        ("bounding_boxes.txt", "8 5.0 8.0 19.0 11.0\n", "", r"bounding_boxes.txt has no row for 1 of the 8 images.* 8"),
        ("bounding_boxes.txt", "3 5.0", "99 5.0", r"row for image 99, which images.txt does not list"),
        ("bounding_boxes.txt", "3 5.0 8.0", "3 5.0 x", r"image 3 has the box \['5.0', 'x'"),
        ("train_test_split.txt", "2 0\n", "2\n", r"line 2: '2' has 1 columns, expected 2"),
    ],
)  # fmt: skip
def test_cub_files_that_disagree(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    trees.cub(tmp_path)
    path = tmp_path / "CUB_200_2011" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        CubBirds(tmp_path, "train")


def test_cub_box_outside_its_image(tmp_path: Path) -> None:
    trees.cub(tmp_path)
    path = tmp_path / "CUB_200_2011" / "bounding_boxes.txt"
    path.write_text(path.read_text().replace("1 5.0 8.0 19.0 11.0", "1 5.0 8.0 90.0 11.0"))
    with pytest.raises(ValueError, match=r"_0000_0\.jpg, object 1: box .* lies outside its image"):
        CubBirds(tmp_path, "train")[0]


@pytest.mark.parametrize("layout", ["flat", "sorted", "kaggle"])
def test_imagenet_layouts(tmp_path: Path, layout: str) -> None:
    trees.imagenet(tmp_path, layout=layout)
    train, val = ImageNet(tmp_path, "train"), ImageNet(tmp_path, "val")
    assert train.classes == val.classes == list(trees.SYNSETS)
    assert train.names == ["word2", "word3", "word1"]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    by_number = {int(val.name(k)[-13:-5]): int(val.labels[k]) for k in range(len(val))}
    assert by_number == {number: (number * 2) % 3 for number in range(1, 7)}
    first = as_sample(train, 0, (30, 40), masks=False)
    assert first["boxes"].tolist() == [[4, 6, 34, 23]]
    assert [train.has_boxes(k) for k in range(3)] == [True, False, False]
    assert as_sample(train, 1, (30, 40), masks=False)["boxes"].shape == (0, 4)
    assert as_sample(val, 0, (30, 40), masks=False)["boxes"].tolist() == [[0, 0, 40, 30], [2, 3, 10, 13]]


def test_imagenet_val_classes_from_xml(tmp_path: Path) -> None:
    trees.imagenet(tmp_path, devkit=False)
    assert ImageNet(tmp_path, "val").labels.tolist() == [(number * 2) % 3 for number in range(1, 7)]
    shutil.rmtree(tmp_path / "Annotations")
    with pytest.raises(FileNotFoundError, match="nothing tells the classes of the 6 images in val"):
        ImageNet(tmp_path, "val")


def test_imagenet_class_lists_of_another_length(tmp_path: Path) -> None:
    trees.imagenet(tmp_path, layout="sorted")
    with pytest.raises(ValueError, match="val has 3 classes, 2 were expected; it has n02085620"):
        ImageNet(tmp_path, "val", classes=trees.SYNSETS[:2])
    shutil.rmtree(tmp_path / "train" / "n01443537")
    with pytest.raises(ValueError, match="train has 2 classes, 3 were expected; it lacks n01443537"):
        ImageNet(tmp_path, "train", classes=trees.SYNSETS)
    truth = tmp_path / "ILSVRC2012_devkit_t12" / "data" / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("1\n1001\n")
    with pytest.raises(ValueError, match=r"has the class 1001, but meta\.mat has 3 classes without it"):
        ImageNet(tmp_path, "val")


def test_imagenet_val_must_be_whole_where_the_devkit_lists_it(tmp_path: Path) -> None:
    trees.imagenet(tmp_path)
    (tmp_path / "val" / "ILSVRC2012_val_00000003.JPEG").unlink()
    said = "val/ lacks 1 of the 6 images that ILSVRC2012_devkit_t12/ lists, the first is ILSVRC2012_val_00000003.JPEG"
    with pytest.raises(FileNotFoundError, match=said):
        ImageNet(tmp_path, "val")


def test_imagenet_boxes_of_another_size_and_without_extent(tmp_path: Path) -> None:
    trees.xml(tmp_path / "a.xml", [("n1", (9, 9, 19, 19)), ("n2", (30, 4, 8, 9)), ("n3", (70, 0, 90, 80))], (80, 60))
    boxes, names = imagenet_boxes(tmp_path / "a.xml", (30, 40))
    assert names == ["n1", "n3"]  # n2's corners are the wrong way round
    assert boxes.tolist() == [[4.5, 4.5, 10, 10], [35, 0, 40, 30]]
    (tmp_path / "a.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match=r"a\.xml is not XML"):
        imagenet_boxes(tmp_path / "a.xml", (30, 40))


def test_openimages_masks_with_ignore(tmp_path: Path) -> None:
    trees.openimages(tmp_path)
    train, test = OpenImages30k(tmp_path, "train"), OpenImages30k(tmp_path, "test")
    assert test.classes == ["01226z", "0bt_c3"]
    assert test.labels.tolist() == [0, 0, 1, 1]
    assert as_sample(train, 0, (30, 40), masks=False)["boxes"].shape == (0, 4)
    target = as_sample(test, 2, (30, 40), masks=True)
    assert int(target["masks"].sum()) == 6 * 14 + 6 * 6
    assert target["boxes"].tolist() == [[6, 4, 36, 26]]
    assert int(target["ignore"].sum()) == 8 * 12 - 4 * 6  # without the object's own pixels
    assert test.has_boxes(0)
    assert not train.has_boxes(0)


def test_openimages_masks_and_photos_must_match(tmp_path: Path) -> None:
    trees.openimages(tmp_path)
    folder = tmp_path / "val" / "01226z"
    for path in folder.glob("0000000000000001_*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"1 photos have no mask, the first is 01226z/0000000000000001\.jpg"):
        OpenImages30k(tmp_path, "val")
    (folder / "0000000000000000.jpg").unlink()
    with pytest.raises(ValueError, match=r"has no photo 0000000000000000\.jpg"):
        OpenImages30k(tmp_path, "val")


def test_openimages_reads_like_the_field_s_metadata(tmp_path: Path, shared_data: Path) -> None:
    """The real lists of the test split, as empty files: same images, labels, masks and regions to ignore."""
    folder = shared_data / "wsol_metadata" / "OpenImages" / "test"
    rows = [line.split(",") for line in (folder / "localization.txt").read_text().splitlines()]
    labels = dict(line.split(",") for line in (folder / "class_labels.txt").read_text().splitlines())
    kept = {code: k for k, code in enumerate(sorted({name.split("/")[1] for name in labels})[:6])}
    rows = [row for row in rows if row[0].split("/")[1] in kept]
    for name in {name for row in rows for name in row if name}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    read = OpenImages30k(tmp_path, "test")
    found = {f"test/{read.name(k)}": (int(read.labels[k]), *read._files[k]) for k in range(len(read))}
    assert len(found) == 6 * 50
    for name, mask, ignore in rows:
        label, masks, ignored = found[name]
        assert label == int(labels[name])
        assert Path(mask).name in masks
        assert not ignore or ignored == Path(ignore).name


def test_dogs(tmp_path: Path) -> None:
    trees.dogs(tmp_path)
    train, test = StanfordDogs(tmp_path, "train"), StanfordDogs(tmp_path, "test")
    assert train.classes == ["Chihuahua", "Japanese spaniel"]
    assert test.labels.tolist() == [0, 0, 1, 1]
    assert as_sample(test, 3, (30, 40), masks=False)["boxes"].tolist() == [[3, 2, 31, 26]]
    assert test.name(0) == "n02085620-Chihuahua/n02085620_1.jpg"
    (tmp_path / "lists").mkdir()
    for path in tmp_path.glob("*.mat"):
        path.rename(tmp_path / "lists" / path.name)
    assert len(StanfordDogs(tmp_path, "train")) == 4
    shutil.rmtree(tmp_path / "Images" / "n02085620-Chihuahua")
    with pytest.raises(ValueError, match="label 1, but Images/ has 1 folders"):
        StanfordDogs(tmp_path, "train")


def test_aircraft_without_banner(tmp_path: Path) -> None:
    trees.aircraft(tmp_path)
    test = Aircraft(tmp_path, "test")
    assert (len(test), len(Aircraft(tmp_path, "trainval")), len(Aircraft(tmp_path, "val"))) == (4, 8, 4)
    assert test.classes == ["707-320", "F/A-18"]
    target = as_sample(test, 2, (30, 40), masks=False)
    assert target["boxes"].tolist() == [[0, 2, 40, 28]]
    assert test.target(2)["boxes"].canvas_size == (30, 40)
    assert Aircraft(tmp_path, "test", level="manufacturer").classes == ["Boeing", "McDonnell Douglas"]
    with pytest.raises(ValueError, match="dev"):
        Aircraft(tmp_path, "dev")
    boxes = tmp_path / "fgvc-aircraft-2013b" / "data" / "images_box.txt"
    boxes.write_text("\n".join(boxes.read_text().splitlines()[:-1]))
    with pytest.raises(ValueError, match="no box of 1 images, the first is 0000012"):
        Aircraft(tmp_path, "test")


@pytest.mark.parametrize("name", list(BUILDERS))
def test_every_layout_is_recognised(tmp_path: Path, name: str) -> None:
    BUILDERS[name](tmp_path)
    assert recognise(tmp_path) == name
    assert layouts_in(tmp_path) == [name]


def test_data_sets_may_share_a_folder(tmp_path: Path) -> None:
    for build in (trees.cub, trees.aircraft, trees.voc, lambda root: trees.voc(root, "2007"), trees.coco, trees.dogs):
        build(tmp_path)
    assert layouts_in(tmp_path) == ["cub", "aircraft", "coco2017", "voc2012", "voc2007", "dogs"]
    assert len(open_split("aircraft", tmp_path, "test")) == 4  # type: ignore[arg-type]
    assert len(open_split("voc2007", tmp_path, "trainval")) == 5  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="this looks like CUB-200-2011 and FGVC-Aircraft and COCO 2017"):
        open_split("imagenet", tmp_path, "train")


@pytest.mark.parametrize(
    ("reader", "name"),
    [
        (CubBirds, "cub"),
        (ImageNet, "imagenet"),
        (OpenImages30k, "openimages"),
        (StanfordDogs, "dogs"),
        (Aircraft, "aircraft"),
    ],
)
def test_the_root_of_another_data_set(tmp_path: Path, reader: type, name: str) -> None:
    trees.voc(tmp_path / "voc")
    with pytest.raises(FileNotFoundError, match=rf"is not {TITLES[name].split('(')[0]}.*this looks like VOC2012"):
        reader(tmp_path / "voc", "train")
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        reader(tmp_path / "nowhere", "train")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"it has notes\.txt"):
        reader(tmp_path / "other", "train")
    with pytest.raises(ValueError, match=r"unknown split|Unknown value 'dev'"):
        reader({"aircraft": trees.aircraft}.get(name, Path)(tmp_path / name), "dev")


def test_voc_years(tmp_path: Path) -> None:
    trees.voc(tmp_path, "2007")
    assert voc_folder(tmp_path) == voc_folder(tmp_path, "2007") == tmp_path / "VOCdevkit" / "VOC2007"
    assert voc_folder(tmp_path / "VOCdevkit" / "VOC2007") == tmp_path / "VOCdevkit" / "VOC2007"
    trees.voc(tmp_path, "2012")
    with pytest.raises(ValueError, match="has VOC2007, VOC2012: give one"):
        voc_folder(tmp_path)
    assert "2012" in str(not_here(tmp_path, "cub", "images.txt"))


def test_annotation_for_a_missing_image(tmp_path: Path) -> None:
    trees.cub(tmp_path / "cub")
    trees.dogs(tmp_path / "dogs")
    trees.aircraft(tmp_path / "aircraft")
    lost = {
        CubBirds: "cub/CUB_200_2011/images/002.Laysan_Albatross/Laysan_Albatross_0000_0.jpg",
        StanfordDogs: "dogs/Images/n02085620-Chihuahua/n02085620_2.jpg",
        Aircraft: "aircraft/fgvc-aircraft-2013b/data/images/0000003.jpg",
    }
    for reader, path in lost.items():
        (tmp_path / path).unlink()
        with pytest.raises(FileNotFoundError, match=rf"lacks 1 of the 4 images .* the first is .*{Path(path).name}"):
            reader(tmp_path / path.split("/")[0], "train")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def eight_pixels(image: Any, target: Any) -> tuple[Any, int]:
    """Worker processes import it: from Python 3.14 on they cannot take a function from within another."""
    return v2.functional.resize(image, [8, 8]), 0


def test_a_truncated_photo_is_named_or_skipped_and_counted(tmp_path: Path) -> None:
    trees.cub(tmp_path)
    train = CubBirds(tmp_path, "train", transform=eight_pixels)
    truncate(train.file(2))
    with pytest.raises(
        UnreadableImage, match=rf"{train.file(2).name} does not decode as an image: image file is trunc"
    ):
        train[2]
    readable = SkipUnreadable(train)
    loader = DataLoader(readable, batch_size=2, num_workers=1)
    for _ in range(2):
        images = torch.cat([images for images, _ in loader])
        assert torch.equal(images[2], images[3])
    assert readable.broken == [2]  # counted by the workers, once for every image
    for k in (0, 1, 3):
        truncate(train.file(k))
    with pytest.raises(UnreadableImage, match="none of the 4 images decodes; the first"):
        readable[0]


def test_a_target_needs_no_decoding(tmp_path: Path) -> None:
    trees.cub(tmp_path)
    train = CubBirds(tmp_path, "train")
    truncate(train.file(0))
    assert train.target(0)["boxes"].tolist() == [[5, 8, 25, 20]]
    train.file(0).write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match="does not decode"):
        train.target(0)
    train.file(0).unlink()
    with pytest.raises(FileNotFoundError, match="is the data root right"):
        train[0]


def test_transforms_take_boxes_and_masks_along(tmp_path: Path) -> None:
    trees.cub(tmp_path)
    image, target = CubBirds(tmp_path, "train", transform=v2.Resize([60, 80]))[0]
    assert image.shape == (3, 60, 80)
    assert target["boxes"].tolist() == [[10, 16, 50, 40]]
    assert target["masks"].shape == target["ignore"].shape == (1, 60, 80)


def test_grey_and_palette_photos_become_rgb(tmp_path: Path) -> None:
    trees.cub(tmp_path)
    train = CubBirds(tmp_path, "train")
    Image.new("L", (40, 30), 9).save(train.file(0))
    assert train[0][0].shape == (3, 30, 40)


def test_coco_masks_with_crowds_to_ignore(tmp_path: Path) -> None:
    trees.coco(tmp_path)
    scenes = CocoScenes(tmp_path / "train2017", tmp_path / "annotations" / "instances_train2017.json", masks=True)
    image, target = scenes[1]
    assert image.shape == (3, 30, 40)
    assert target["boxes"].tolist() == [[4, 5, 24, 17], [0, 0, 2, 30]]
    assert target["crowd"].tolist() == [False, True]
    assert target["masks"].shape == (2, 30, 40)
    assert target["masks"].flatten(1).sum(1).tolist() == [20 * 12, 2 * 30]
    assert target["ignore"].shape == (1, 30, 40)
    assert target["ignore"][0, :, :2].all()
    assert int(target["ignore"].sum()) == 60
    assert scenes[0][1]["ignore"].sum() == 0
    dogs = scenes.only(["dog"])
    assert dogs[1][1]["masks"].shape == (0, 30, 40)
    assert torch.equal(dogs[0][1]["masks"], scenes[0][1]["masks"])


def test_coco_photos_have_no_masks_here(shared_data: Path) -> None:
    scenes = open_split("coco2017", shared_data / "coco256", "val2017")
    image, target = scenes[3]
    assert image.shape[1:] == target["boxes"].canvas_size
    assert target["labels"].shape == target["crowd"].shape == (len(target["boxes"]),)
    assert "masks" not in target


def test_voc_masks_with_borders_to_ignore(tmp_path: Path) -> None:
    trees.voc(tmp_path)
    folder = voc_folder(tmp_path)
    kept = {"image_set": folder / "ImageSets" / "Segmentation" / "trainval.txt", "masks": True}
    scenes = VocScenes(folder, **kept)
    _, target = scenes[1]
    assert target["boxes"].tolist() == [[0, 0, 20, 15], [10, 5, 40, 30]]
    assert target["masks"].shape == (2, 30, 40)
    assert target["masks"].flatten(1).sum(1).tolist() == [14 * 20, 22 * 19]
    assert target["ignore"].shape == (1, 30, 40)
    assert int(target["ignore"].sum()) == 20
    people = VocScenes(folder, **kept).only(["person"])
    assert torch.equal(people[1][1]["masks"][0], target["masks"][1])
    (folder / "SegmentationObject" / "2007_000002.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no segmentation .*2007_000002\.png: take an image set from ImageSets/Segment"
    ):
        scenes[1]


@pytest.mark.parametrize(
    ("name", "split", "length"),
    [
        ("cub", "train", 4), ("imagenet", "val", 6), ("openimages", "val", 4), ("dogs", "test", 4),
        ("aircraft", "val", 4), ("voc2007", "test", 1), ("voc2012", "trainval", 5), ("coco2014", "val2014", 4),
        ("coco2017", "train2017", 4),
    ],
)  # fmt: skip
def test_every_data_set_opens_by_name_with_one_kind_of_sample(
    tmp_path: Path, name: str, split: str, length: int
) -> None:
    dataset = open_split(name, BUILDERS[name](tmp_path), split)
    assert len(dataset) == length  # type: ignore[arg-type]
    image, target = dataset[0]
    assert isinstance(image, tv_tensors.Image)
    assert image.dtype == torch.uint8
    assert isinstance(target["boxes"], tv_tensors.BoundingBoxes)
    assert target["boxes"].canvas_size == image.shape[1:]
    assert target["labels"].dtype == torch.int64
    assert 0 <= int(target["labels"][0]) < len(dataset.classes)  # type: ignore[attr-defined]
    assert isinstance(target["image_id"], int)


def test_voc_layout_photos_and_metadata_open_by_name(shared_data: Path, tmp_path: Path) -> None:
    cards = VocScenes(shared_data / "cards" / "test")
    image, target = cards[0]
    assert image.shape[1:] == target["boxes"].canvas_size
    birds = open_split("protocol", shared_data / "wsol_metadata" / "CUB", "val")
    assert (len(birds), len(birds.classes)) == (1000, 200)  # type: ignore[arg-type, attr-defined]
    with pytest.raises(FileNotFoundError, match=r"no image .*001\.Black_footed_Albatross"):
        birds[0]
    with pytest.raises(FileNotFoundError, match=r"is not metadata files .*: expected test/image_ids.txt"):
        open_split("protocol", tmp_path, "test")
    with pytest.raises(ValueError, match="unknown data set 'birds'; known: cub"):
        open_split("birds", tmp_path, "test")


def cub_file(root: Path, name: str, old: str, new: str) -> Path:
    path = root / "CUB_200_2011" / name
    path.write_text(path.read_text().replace(old, new, 1))
    return root


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("train_test_split.txt", "3 1", "3 2", r"train_test_split\.txt: image 3 has the flag '2', expected 0"),
        ("images.txt", "2 001", "1 001", r"images\.txt, line 2: '1' stands there twice, first in line 1"),
        ("images.txt", "0001_1", "0000_0", r"images\.txt lists the image .* twice"),
        ("classes.txt", "002.Laysan", "002.Black_footed", r"classes\.txt: every class may be named once"),
        ("bounding_boxes.txt", "3 5.0", "3 nan", r"bounding_boxes\.txt, line 3: image 3 has the box \['nan'"),
        ("bounding_boxes.txt", "3 5.0 8.0 19.0", "3 5.0 8.0 -19.0", r"bounding_boxes\.txt: .*ends before it begins"),
    ],
)
def test_cub_with_a_wrong_field(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    root = cub_file(trees.cub(tmp_path, segmentations=False), name, old, new)
    with pytest.raises(ValueError, match=message):
        CubBirds(root, "all")[2]


def test_cub_as_windows_writes_it(tmp_path: Path) -> None:
    root = trees.cub(tmp_path)
    before = CubBirds(root, "all")
    for path in (root / "CUB_200_2011").glob("*.txt"):
        path.write_bytes(path.read_text().replace("\n", "\r\n").encode("utf-8-sig"))
    after = CubBirds(root, "all")
    assert (after.classes, after.labels.tolist()) == (before.classes, before.labels.tolist())
    assert after.target(0)["boxes"].tolist() == before.target(0)["boxes"].tolist()


def test_16_bit_segmentations_of_cub_are_read_by_their_range(tmp_path: Path) -> None:
    root = trees.cub(tmp_path)
    before = CubBirds(root, "test")[0][1]["masks"]
    for path in (root / "segmentations").rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 257).save(path)
    assert torch.equal(CubBirds(root, "test")[0][1]["masks"], before)


@pytest.mark.parametrize(
    ("size", "boxes"),
    [
        ((60, 40), [[2, 2, 21, 31]]),
        ((120, 80), [[1, 1, 10.5, 15.5]]),
        ((0, 0), [[2, 2, 21, 31]]),
        ((-1, -1), [[2, 2, 21, 31]]),
    ],
)
def test_imagenet_boxes_follow_the_stated_size(tmp_path: Path, size: tuple[int, int], boxes: list[list[float]]) -> None:
    trees.xml(tmp_path / "a.xml", [("n01440764", (2, 2, 20, 30))], size)
    assert imagenet_boxes(tmp_path / "a.xml", (40, 60))[0].tolist() == boxes


@pytest.mark.parametrize(
    ("size", "box", "message"),
    [
        ((40, 60), (2, 2, 20, 30), r"a\.xml states 40 x 60 pixels, the image has 60 x 40, .*change places.*EXIF"),
        ((60, 41.5), (2, 2, 20, 30), r"a\.xml: the image's height and width are \['41\.5', '60'\]"),
        ((60, "forty"), (2, 2, 20, 30), r"a\.xml: the image's height and width are \['forty', '60'\]"),
        ((60, 40), (2, 2, 200, 30), r"a\.xml: object 1 \(n01440764\) has the corners .*far outside its image"),
        ((60, 40), (2, "nan", 20, 30), r"a\.xml: object 1 \(n01440764\) has the corners \['2', 'nan'"),
    ],
)
def test_imagenet_xml_with_a_wrong_field(tmp_path: Path, size: Any, box: Any, message: str) -> None:
    trees.xml(tmp_path / "a.xml", [("n01440764", box)], size)
    with pytest.raises(ValueError, match=message):
        imagenet_boxes(tmp_path / "a.xml", (40, 60))


def test_a_list_of_dogs_that_is_cut(tmp_path: Path) -> None:
    listing = trees.dogs(tmp_path) / "test_list.mat"
    listing.write_bytes(listing.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"test_list\.mat is no list of Stanford Dogs"):
        StanfordDogs(tmp_path, "test")


def test_files_that_macos_leaves_are_no_photos(tmp_path: Path) -> None:
    root = trees.imagenet(tmp_path, layout="sorted")
    (root / "val" / trees.SYNSETS[0] / "._ILSVRC2012_val_00000003.JPEG").write_bytes(b"\0\5\x16\7")
    assert len(ImageNet(root, "val")) == 6
