"""Read ImageNet-1k (ILSVRC 2012): a folder per class, a flat or sorted val, boxes in XML, names in the devkit."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from scipy.io import loadmat
from torch import Tensor

from wsolnb._utils.progress import track
from wsolnb.data.readers.boxes_xml import read_boxes, read_names
from wsolnb.data.readers.layouts import SYNSET, not_here
from wsolnb.data.readers.photos import Photos
from wsolnb.data.readers.scenes import Transform

_VAL_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})")
_VAL_NAME = "ILSVRC2012_val_{:08d}.JPEG"
_SUFFIXES = (".jpeg", ".jpg", ".png")
_IMAGES = (Path(), Path("ILSVRC/Data/CLS-LOC"), Path("Data/CLS-LOC"))
_BOXES = ("Annotations/CLS-LOC", "ILSVRC/Annotations/CLS-LOC", "annotations", "bbox")
_DEVKIT = "ILSVRC2012_devkit_t12"


class ImageNet(Photos):
    """ILSVRC 2012, in the layouts in which it is found on disks.

    - images: `train/<synset>/*.JPEG`; `val/*.JPEG` as the archive has them, or `val/<synset>/*.JPEG` as many sort them;
      below `root` or below `ILSVRC/Data/CLS-LOC/`.
    - boxes: `<folder>/train/<synset>/*.xml` and `<folder>/val/*.xml` with the folder `Annotations/CLS-LOC` (there or in
      `ILSVRC/`), `annotations` or `bbox`. Two fifths of the training images have them, and all of `val`.
    - `ILSVRC2012_devkit_t12/data/`: names of the classes and the classes of a flat `val`. Without the devkit, the XML
      files tell the classes of `val`.

    Labels count the synsets in their alphabetical order, as everyone's pretrained weights do, not the devkit's order.

    Attributes:
        classes: Synsets such as `n01440764`.
        names: Readable names from the devkit (some synsets share one), or the synsets.

    Args:
        root: The data set's folder.
        split: `train` or `val`.
        classes: Synsets that are expected, such as the training split's; by default those found, or the devkit's.
        transform: Called as `transform(image, target)`.

    Raises:
        FileNotFoundError: If there is no such split, or nothing tells the classes of a flat `val`.
        ValueError: If the split is unknown, has classes that are not expected, or lacks some.

    >>> ImageNet("data/imagenet", "val")  # doctest: +SKIP
    ImageNet(50000 images, 1000 classes)
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        classes: Sequence[str] | None = None,
        transform: Transform | None = None,
    ) -> None:
        if split not in ("train", "val"):
            raise ValueError(f"unknown split {split!r} of ImageNet; known: train, val (test has no labels)")
        root = Path(root)
        folder = next((root / part / split for part in _IMAGES if (root / part / split).is_dir()), None)
        if folder is None:
            raise not_here(root, "imagenet", f"{split}/ with one folder per class (n01440764, ...)")
        devkit = _devkit(root)
        self._xml = next((root / part / split for part in _BOXES if (root / part / split).is_dir()), None)
        sorted_already = sorted(entry.name for entry in os.scandir(folder) if SYNSET.fullmatch(entry.name))
        if sorted_already:
            names = [f"{synset}/{name}" for synset in sorted_already for name in _images(folder / synset)]
            synsets = [name.split("/", 1)[0] for name in names]
        else:
            names = _images(folder)
            if split == "train" or not names:
                raise not_here(root, "imagenet", f"{split}/ with one folder per class (n01440764, ...)")
            synsets = self._flat_classes(names, devkit, root)
        found = sorted_already or sorted(set(synsets))
        known = list(classes) if classes is not None else found
        if known != found:
            extra, lacking = sorted(set(found) - set(known)), sorted(set(known) - set(found))
            odd = (
                f"has {extra[0]}, which is not expected"
                if extra
                else f"lacks {lacking[0]}"
                if lacking
                else "sorts them"
            )
            raise ValueError(f"{folder} has {len(found)} classes, {len(known)} were expected; it {odd}")
        label = {synset: k for k, synset in enumerate(known)}
        super().__init__(folder, names, [label[synset] for synset in synsets], classes=known, transform=transform)
        words = devkit[1] if devkit else {}
        self._listed: dict[str, set[str]] = {}
        self.names = [words.get(synset, synset) for synset in known]

    def has_boxes(self, index: int) -> bool:
        """Whether there is an XML file for the image; lists every folder once, not every file."""
        if self._xml is None:
            return False
        folder, _, base = self.name(index).rpartition("/")
        xml = f"{os.path.splitext(base)[0]}.xml"
        for each in (folder, ""):
            if each not in self._listed:
                there = (self._xml / each).is_dir()
                self._listed[each] = {entry.name for entry in os.scandir(self._xml / each)} if there else set()
        return any(xml in self._listed[each] for each in (folder, ""))

    def _boxes(self, index: int, size: tuple[int, int]) -> Tensor | None:
        path = self._xml_file(self.name(index))
        return None if path is None else read_boxes(path, size)[0]

    def _xml_file(self, name: str) -> Path | None:
        if self._xml is None:
            return None
        stem = Path(name).stem
        for path in (self._xml / Path(name).with_suffix(".xml"), self._xml / f"{stem}.xml"):
            if path.is_file():
                return path
        return None

    def _flat_classes(self, names: list[str], devkit: tuple[list[str], dict[str, str]] | None, root: Path) -> list[str]:
        """Synset of every image of a flat `val`, from the devkit or from the XML files."""
        if devkit is None and self._xml is None:
            raise FileNotFoundError(
                f"{root}: nothing tells the classes of the {len(names)} images in val/: put {_DEVKIT}/ or the XML "
                "files (Annotations/CLS-LOC/val/) beside it"
            )
        if devkit and (missing := sorted({_VAL_NAME.format(k + 1) for k in range(len(devkit[0]))} - set(names))):
            raise FileNotFoundError(
                f"{root}: val/ lacks {len(missing)} of the {len(devkit[0])} images that {_DEVKIT}/ lists, the first is "
                f"{missing[0]}: extract the archive again"
            )
        synsets = []
        for name in names if devkit else track(names, "classes of val"):
            number = _VAL_NUMBER.match(name)
            if devkit and number and 0 < int(number[1]) <= len(devkit[0]):
                synsets.append(devkit[0][int(number[1]) - 1])
                continue
            path = self._xml_file(name)
            stated = read_names(path) if path else []
            if not stated:
                counted = f"the devkit has {len(devkit[0])} classes of val images" if devkit else "there is no devkit"
                raise ValueError(f"nothing tells the class of val/{name}: {counted}, and no XML names its object")
            synsets.append(stated[0])
        return synsets


def _images(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(_SUFFIXES))


def _devkit(root: Path) -> tuple[list[str], dict[str, str]] | None:
    """Synset of every val image in order, and readable names by synset; None where there is no devkit."""
    data = next((each for each in (root / _DEVKIT / "data", root / "devkit" / "data") if each.is_dir()), None)
    if data is None:
        return None
    for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt"):
        if not (data / name).is_file():
            raise FileNotFoundError(f"{data} lacks {name}: extract the devkit again")
    table = loadmat(data / "meta.mat", squeeze_me=True)["synsets"]
    leaves = [row for row in table if int(row["num_children"]) == 0]
    synset = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
    words = {str(row["WNID"]): str(row["words"]).split(",")[0] for row in leaves}
    lines = (data / "ILSVRC2012_validation_ground_truth.txt").read_text(encoding="utf-8").split()
    unknown = [line for line in lines if not line.isdigit() or int(line) not in synset]
    if unknown:
        raise ValueError(
            f"{data / 'ILSVRC2012_validation_ground_truth.txt'} has the class {unknown[0]}, but meta.mat has "
            f"{len(synset)} classes without it"
        )
    return [synset[int(line)] for line in lines], words
