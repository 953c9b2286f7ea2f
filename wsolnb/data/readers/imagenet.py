"""Read ImageNet-1k (ILSVRC 2012): a folder per class, a flat or sorted val, boxes in XML, names in the devkit."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from torch import Tensor

from wsolnb._utils.progress import track
from wsolnb._utils.text import read_lines
from wsolnb.data.readers._files import imagenet_boxes, parse_xml
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
    """ILSVRC 2012, in the layouts in which people keep it.

    - images: `train/<synset>/*.JPEG`; `val/*.JPEG` as in the archive, or `val/<synset>/*.JPEG`; below `root` or below
      `ILSVRC/Data/CLS-LOC/`.
    - boxes: `<folder>/train/<synset>/*.xml` and `<folder>/val/*.xml` with the folder `Annotations/CLS-LOC` (in `root`
      or in `ILSVRC/`), `annotations` or `bbox`. Two fifths of the training images have them, and all of `val`.
    - `ILSVRC2012_devkit_t12/data/`: names of the classes and the classes of a flat `val`. Without the devkit, the
      classes of `val` are read from the XML files.

    Labels count the synsets in alphabetical order, as pretrained weights do, not in the devkit's order.

    Attributes:
        classes: Synsets such as `n01440764`.
        names: Readable names from the devkit (some synsets share one), or the synsets.

    Args:
        split: `train` or `val`.
        classes: Expected synsets, such as the training split's; by default those that occur.

    >>> ImageNet("data/imagenet", "val")  # doctest: +SKIP
    ImageNet(50000 images, 1000 classes)
    """

    def __init__(
        self, root: str | Path, split: str, *, classes: Sequence[str] | None = None, transform: Transform | None = None
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
        present = sorted_already or sorted(set(synsets))
        expected = list(classes) if classes is not None else present
        if expected != present:
            extra, missing = sorted(set(present) - set(expected)), sorted(set(expected) - set(present))
            odd = f"lacks {missing[0]}" if missing else "sorts them"
            odd = f"has {extra[0]}, which is not expected" if extra else odd
            raise ValueError(f"{folder} has {len(present)} classes, {len(expected)} were expected; it {odd}")
        label = {synset: k for k, synset in enumerate(present)}
        super().__init__(folder, names, [label[synset] for synset in synsets], classes=present, transform=transform)
        words = devkit[1] if devkit else {}
        self._listed: dict[str, set[str]] = {}
        self.names = [words.get(synset, synset) for synset in present]

    def has_boxes(self, index: int) -> bool:
        """Whether there is an XML file for the image; lists every folder once instead of testing every file."""
        if self._xml is None:
            return False
        folder, _, base = self.name(index).rpartition("/")
        xml = f"{os.path.splitext(base)[0]}.xml"
        for part in (folder, ""):
            if part not in self._listed:
                path = self._xml / part
                self._listed[part] = {entry.name for entry in os.scandir(path)} if path.is_dir() else set()
        return any(xml in self._listed[part] for part in (folder, ""))

    def _boxes(self, index: int, size: tuple[int, int]) -> Tensor | None:
        path = self._xml_file(self.name(index))
        return None if path is None else imagenet_boxes(path, size)[0]

    def _xml_file(self, name: str) -> Path | None:
        if self._xml is None:
            return None
        candidates = (self._xml / Path(name).with_suffix(".xml"), self._xml / f"{Path(name).stem}.xml")
        return next((path for path in candidates if path.is_file()), None)

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
            stated = parse_xml(path).findtext(".//object/name", "").strip() if path else ""
            if not stated:
                counted = f"the devkit has {len(devkit[0])} classes of val images" if devkit else "there is no devkit"
                raise ValueError(f"nothing tells the class of val/{name}: {counted}, and no XML names its object")
            synsets.append(stated)
        return synsets


def _images(folder: Path) -> list[str]:
    names = (entry.name for entry in os.scandir(folder))
    return sorted(name for name in names if name.lower().endswith(_SUFFIXES) and not name.startswith("._"))


def _devkit(root: Path) -> tuple[list[str], dict[str, str]] | None:
    """Synset of every val image in order, and readable names by synset; None without a devkit."""
    data = next((path for path in (root / _DEVKIT / "data", root / "devkit" / "data") if path.is_dir()), None)
    if data is None:
        return None
    for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt"):
        if not (data / name).is_file():
            raise FileNotFoundError(f"{data} lacks {name}: extract the devkit again")
    try:
        table = np.atleast_1d(loadmat(data / "meta.mat", squeeze_me=True)["synsets"])
        leaves = [row for row in table if int(row["num_children"]) == 0]
        synset = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
        words = {str(row["WNID"]): str(row["words"]).split(",")[0] for row in leaves}
        if not len(leaves) == len(synset) == len(words):
            raise ValueError("a number or a synset comes twice")
    except Exception as error:  # of a damaged file, SciPy raises almost anything
        raise ValueError(f"{data / 'meta.mat'} is no list of ImageNet's synsets: {error}") from None
    lines = [line.strip() for line in read_lines(data / "ILSVRC2012_validation_ground_truth.txt")]
    unknown = [line for line in lines if not line.isdecimal() or int(line) not in synset]
    if unknown:
        raise ValueError(
            f"{data / 'ILSVRC2012_validation_ground_truth.txt'} has the class {unknown[0]}, but meta.mat has "
            f"{len(synset)} classes without it"
        )
    return [synset[int(line)] for line in lines], words
