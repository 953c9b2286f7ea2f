"""Miniature trees in the exact official layouts, as the archives of each data set leave them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

WIDTH, HEIGHT = 40, 30
SYNSETS = ("n01440764", "n01443537", "n02085620")


def photo(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), shade: int = 90) -> None:
    """A photo with structure, (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[: size[1], : size[0]]
    pixels = np.stack([rows * 5 + shade, columns * 4, rows + columns], axis=-1).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=95)


def grey(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def block(rows: slice, columns: slice, value: int = 255) -> np.ndarray:
    values = np.zeros((HEIGHT, WIDTH))
    values[rows, columns] = value
    return values


def xml(path: Path, objects: list[tuple[str, tuple[int, ...]]], size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """VOC's XML, which ImageNet uses too; size is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"<annotation><filename>{path.stem}</filename><size><width>{size[0]}</width><height>{size[1]}</height>"]
    rows.append("<depth>3</depth></size>")
    for name, box in objects:
        corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        rows.append(f"<object><name>{name}</name><difficult>0</difficult><bndbox>{corners}</bndbox></object>")
    path.write_text("".join([*rows, "</annotation>"]))


def cub(root: Path, *, per_class: int = 4, segmentations: bool = True) -> Path:
    """CUB_200_2011/ and segmentations/: two classes, every second image for training."""
    base, classes = root / "CUB_200_2011", ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    base.mkdir(parents=True)
    names = [f"{name}/{name[4:]}_{k:04d}_{k}.jpg" for name in classes for k in range(per_class)]
    for k, name in enumerate(names):
        photo(base / "images" / name, shade=20 * k)
        votes = block(slice(8, 20), slice(5, 25))
        votes[8, 5:25] = 102  # two of five annotators
        if segmentations:
            grey((root / "segmentations" / name).with_suffix(".png"), votes)
    numbers = range(1, len(names) + 1)
    files = {
        "images.txt": [f"{n} {name}" for n, name in zip(numbers, names, strict=True)],
        "classes.txt": [f"{k} {name}" for k, name in enumerate(classes, 1)],
        "image_class_labels.txt": [f"{n} {1 + (n - 1) // per_class}" for n in numbers],
        "train_test_split.txt": [f"{n} {n % 2}" for n in numbers],
        "bounding_boxes.txt": [f"{n} 5.0 8.0 19.0 11.0" for n in numbers],
    }
    for name, lines in files.items():
        (base / name).write_text("\n".join(lines) + "\n")
    return root


def imagenet(root: Path, *, layout: str = "flat", per_class: int = 3, devkit: bool = True, boxes: bool = True) -> Path:
    """train/ and val/ (`flat`, `sorted`, or below ILSVRC/ as `kaggle` has them), XML boxes, the devkit."""
    images = root / "ILSVRC" / "Data" / "CLS-LOC" if layout == "kaggle" else root
    marks = root / "ILSVRC" / "Annotations" / "CLS-LOC" if layout == "kaggle" else root / "Annotations" / "CLS-LOC"
    truth = []
    for k, synset in enumerate(SYNSETS):
        for number in range(per_class):
            name = f"{synset}_{number}"
            photo(images / "train" / synset / f"{name}.JPEG", shade=30 * k)
            if boxes and number == 0:
                xml(marks / "train" / synset / f"{name}.xml", [(synset, (4, 6, 33, 22))])
    for number in range(1, 2 * len(SYNSETS) + 1):
        synset = SYNSETS[(number * 2) % 3]
        truth.append(synset)
        name = f"ILSVRC2012_val_{number:08d}"
        photo(images / "val" / (synset if layout == "sorted" else "") / f"{name}.JPEG", shade=10 * number)
        if boxes:
            xml(marks / "val" / f"{name}.xml", [(synset, (0, 0, WIDTH - 1, HEIGHT - 1)), (synset, (2, 3, 9, 12))])
    if devkit:
        kind = [(name, "O") for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")]
        official = [SYNSETS[2], SYNSETS[0], SYNSETS[1]]  # the devkit's order is not the alphabet's
        rows = [(k, synset, f"word{k}, other", "what it is", 0) for k, synset in enumerate(official, 1)]
        rows.append((len(rows) + 1, "n00001740", "entity", "everything", 3))
        data = root / "ILSVRC2012_devkit_t12" / "data"
        data.mkdir(parents=True)
        savemat(data / "meta.mat", {"synsets": np.array(rows, dtype=kind).reshape(-1, 1)})
        lines = [str(1 + official.index(synset)) for synset in truth]
        (data / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(lines) + "\n")
    return root


def openimages(root: Path, *, per_class: int = 2) -> Path:
    """train/, val/, test/ with one folder per class; masks, regions to ignore and photos together."""
    for split in ("train", "val", "test"):
        for code in ("01226z", "0bt_c3"):
            for number in range(per_class):
                stem = root / split / code / f"{number:016x}"
                photo(stem.with_suffix(".jpg"), shade=40 * number)
                if split == "train":
                    continue
                half = (slice(None, None, 2), slice(None, None, 2))  # masks are stored at another size
                grey(stem.parent / f"{stem.name}_m{code}_7dab3053.png", block(slice(4, 10), slice(6, 20))[half])
                grey(stem.parent / f"{stem.name}_m{code}_8856c605.png", block(slice(20, 26), slice(30, 36))[half])
                grey(stem.parent / f"{stem.name}_ignore.png", block(slice(0, 8), slice(0, 12))[half])
    return root


def dogs(root: Path, *, per_class: int = 4) -> Path:
    """Images/, Annotation/ (XML without a suffix) and the two lists."""
    lists: dict[str, list[tuple[str, str, int]]] = {"train": [], "test": []}
    for label, breed in enumerate(("n02085620-Chihuahua", "n02085782-Japanese_spaniel"), start=1):
        for number in range(per_class):
            name = f"{breed}/{breed[:9]}_{number}"
            photo(root / "Images" / f"{name}.jpg", shade=25 * number)
            xml(root / "Annotation" / name, [("Chihuahua", (3, 2, 30, 25))])
            lists["train" if number % 2 == 0 else "test"].append((f"{name}.jpg", name, label))
    for split, rows in lists.items():
        files, marks = (np.array([[row[k]] for row in rows], dtype=object) for k in (0, 1))
        labels = np.array([[row[2]] for row in rows], dtype=np.uint8)
        savemat(root / f"{split}_list.mat", {"file_list": files, "annotation_list": marks, "labels": labels})
    return root


def aircraft(root: Path, *, per_class: int = 2) -> Path:
    """fgvc-aircraft-2013b/data/."""
    data = root / "fgvc-aircraft-2013b" / "data"
    variants, families, makers = ("707-320", "F/A-18"), ("Boeing 707", "F/A-18"), ("Boeing", "McDonnell Douglas")
    levels = {"variant": variants, "family": families, "manufacturer": makers}
    boxes, number = [], 0
    rows: dict[tuple[str, str], list[str]] = {}
    for split in ("train", "val", "test"):
        for k in range(len(variants)):
            for _ in range(per_class):
                number += 1
                name = f"{number:07d}"
                photo(data / "images" / f"{name}.jpg", (WIDTH, HEIGHT + 20))
                boxes.append(f"{name} 1 3 {WIDTH} 28")
                for level, names in levels.items():
                    for into in (split, "trainval") if split != "test" else (split,):
                        rows.setdefault((level, into), []).append(f"{name} {names[k]}")
    for (level, split), lines in rows.items():
        (data / f"images_{level}_{split}.txt").write_text("\n".join(lines) + "\n")
    for file, names in (("variants", variants), ("families", families), ("manufacturers", makers)):
        (data / f"{file}.txt").write_text("\n".join(names) + "\n")
    (data / "images_box.txt").write_text("\n".join(boxes) + "\n")
    return root


def voc(root: Path, year: str = "2012") -> Path:
    """VOCdevkit/VOC<year>/ with Main and Segmentation sets."""
    base = root / "VOCdevkit" / f"VOC{year}"
    stems = [f"2007_{k:06d}" if year == "2012" else f"{k:06d}" for k in range(1, 7)]
    for k, stem in enumerate(stems):
        photo(base / "JPEGImages" / f"{stem}.jpg", shade=20 * k)
        objects = [("dog", (1, 1, 20, 15)), ("person", (11, 6, WIDTH, HEIGHT))]
        xml(base / "Annotations" / f"{stem}.xml", objects[: 1 + k % 2])
        numbered = block(slice(0, 15), slice(0, 20), 1)
        if k % 2:
            numbered[8:, 21:] = 2
        numbered[14, :20] = 255  # the border that belongs to nobody
        grey(base / "SegmentationObject" / f"{stem}.png", numbered)
    for kind in ("Main", "Segmentation"):
        for split, chosen in (("train", stems[:3]), ("val", stems[3:5]), ("trainval", stems[:5]), ("test", stems[5:])):
            path = base / "ImageSets" / kind / f"{split}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(chosen) + "\n")
    return root


def cards(root: Path, *, per_class: int = 10) -> Path:
    """train/ and test/ with an XML file beside each photo; every fifth photo shows two cards."""
    names = ("nine", "ten", "jack", "queen", "king", "ace")
    for split, count in (("train", per_class), ("test", 2)):
        for k, name in enumerate(names):
            for number in range(count):
                stem = root / split / f"{name}{number}"
                photo(stem.with_suffix(".jpg"), shade=10 * k + number)
                cards = [(name, (2, 3, 36, 25)), (names[k - 1], (4, 5, 38, 28))]
                xml(stem.with_suffix(".xml"), cards[: 2 if number % 5 == 4 else 1])
    return root


def coco(root: Path, year: str = "2017", *, images: int = 4, wide: int = 20) -> Path:
    """train<year>/, val<year>/ and annotations/, with polygons `wide` pixels wide and one crowd as run lengths."""
    categories = [
        {"id": 1, "name": "person", "supercategory": "person"},
        {"id": 18, "name": "dog", "supercategory": "animal"},
    ]
    for split in (f"train{year}", f"val{year}"):
        listed, annotations = [], []
        for k in range(1, images + 1):
            name = f"{k:012d}.jpg" if year == "2017" else f"COCO_{split}_{k:012d}.jpg"
            photo(root / split / name, shade=15 * k)
            listed.append({"id": k, "file_name": name, "width": WIDTH, "height": HEIGHT})
            square = [4, 5, 4 + wide, 5, 4 + wide, 17, 4, 17]
            annotations.append(
                {"id": 2 * k, "image_id": k, "category_id": 1 + 17 * (k % 2), "bbox": [4, 5, wide, 12], "iscrowd": 0,
                 "area": 12 * wide, "segmentation": [square]}
            )  # fmt: skip
            if k == 2:
                crowd = {"size": [HEIGHT, WIDTH], "counts": [0, 2 * HEIGHT, (WIDTH - 2) * HEIGHT]}
                annotations.append(
                    {"id": 2 * k + 1, "image_id": k, "category_id": 1, "bbox": [0, 0, 2, HEIGHT], "iscrowd": 1,
                     "area": 2 * HEIGHT, "segmentation": crowd}
                )  # fmt: skip
        path = root / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"images": listed, "annotations": annotations, "categories": categories}))
    return root


FOR_RECIPES: dict[str, Callable[[Path], Path]] = {
    "aircraft": aircraft,
    "cards": cards,
    "coco": lambda root: coco(coco(root, "2014", images=24, wide=34), "2017", images=24, wide=34),
    "cub": lambda root: cub(root, per_class=12),
    "dogs": dogs,
    "imagenet": imagenet,
    "openimages": openimages,
    "voc2007": lambda root: voc(root, "2007"),
    "voc2012": lambda root: voc(root, "2012"),
}
"""The tree that the recipes of a data set read, by the beginning of their names."""
