"""Read scenes in VOC's layout: one XML file of boxes per image, beside the image or in another folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from xml.etree import ElementTree

import numpy as np
from torch import Tensor

from wsolnb._utils.text import read_lines
from wsolnb.data.readers._files import (
    Object,
    check_names,
    checked_boxes,
    parse_xml,
    read_values,
    stated_size,
    xml_objects,
)
from wsolnb.data.readers.images import stored_size
from wsolnb.data.readers.scenes import Scenes, Transform

_BORDER = 255  # value of pixels between objects
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class VocScenes(Scenes):
    """Scenes with one VOC XML file per image: the official folders, or what labelling tools write.

    VOC counts pixels from 1 and names the last pixel of a box: (1, 1, width, height) is the whole image. It becomes
    (0, 0, width, height) here: 1 is subtracted from the near corner; the far corner stays, as it is now exclusive.
    Objects marked as difficult become "crowd". The image of an XML file has the same stem, or else the name that the
    XML states. `image_id` counts the images from 0.

    Args:
        annotation_dir: folder of the XML files, or VOC's own root with Annotations/ and JPEGImages/.
        image_dir: folder of the images; by default JPEGImages/ beside Annotations/, otherwise the XML's folder.
        classes: all names that may occur, in the order of the labels; any other name in an XML file is an error.
            Pass the training set's `classes` for the test set, and leave some of them out with `only`. By default the
            names that occur, sorted.
        image_set: text file with one stem or image name per line, or with further words, which are ignored; by default
            every XML file, by name.
        masks: also give masks, from SegmentationObject/ beside Annotations/: object k of the XML has the value k, the
            borders between objects, which are to be ignored, 255. Only the images of ImageSets/Segmentation have them.

    Raises:
        FileNotFoundError: a folder, the image set, an XML file that it lists or an image is missing.
        ValueError: an XML file does not parse, lacks a part or has a wrong box or class; there is no file or object; an
            image comes twice.

    >>> VocScenes("VOC2012", image_set="VOC2012/ImageSets/Main/train.txt")  # doctest: +SKIP
    VocScenes(5717 images, 15774 boxes, 20 classes)
    """

    def __init__(
        self,
        annotation_dir: str | Path,
        image_dir: str | Path | None = None,
        *,
        classes: Sequence[str] | None = None,
        image_set: str | Path | None = None,
        masks: bool = False,
        transform: Transform | None = None,
    ) -> None:
        folder, image_folder = _folders(Path(annotation_dir), image_dir)
        xml_files = _xml_files(folder, image_set)
        images_by_stem: dict[str, list[Path]] = {}
        for file in sorted(image_folder.iterdir()):
            if file.suffix.lower() in SUFFIXES:
                images_by_stem.setdefault(file.stem, []).append(file)
        files, sizes, rows = [], [], []
        objects: list[Object] = []
        for k, xml in enumerate(xml_files):
            root = parse_xml(xml)
            files.append(_image_of(xml, root, image_folder, images_by_stem))
            sizes.append(stated_size(xml, root) or stored_size(files[-1]))
            in_image = xml_objects(xml, root)
            for number, (name, _, _) in enumerate(in_image, start=1):
                if not name:
                    raise ValueError(f"{xml}: object {number} has no name")
            objects += in_image
            rows += [k] * len(in_image)
        if len(set(files)) < len(files):
            k = next(k for k, file in enumerate(files) if file in files[:k])
            raise ValueError(f"{xml_files[k]} is of {files[k].name}, and so is {xml_files[files.index(files[k])].name}")
        names = sorted({name for name, _, _ in objects}) if classes is None else list(classes)
        if not names:
            raise ValueError(f"no classes: {len(xml_files)} XML files in {folder} have no object, and none is given")
        check_names(names, names, "the list of classes")
        label = {name: k for k, name in enumerate(names)}
        for k, (name, _, _) in zip(rows, objects, strict=True):
            if name not in label:
                raise ValueError(
                    f"{xml_files[k]} has an object of the class {name!r}, which is not among the {len(names)} given, "
                    f"{names[:20]}; correct the name, or add it to `classes` and leave it out with `only`"
                )
        self._segmentations = folder.parent / "SegmentationObject" if masks else None
        self._first = np.searchsorted(rows, np.arange(len(files))).tolist()  # number of each image's first object
        size_array = np.array(sizes, dtype=np.int64).reshape(-1, 2)
        super().__init__(
            files,
            range(len(files)),
            size_array,
            images=np.array(rows, dtype=np.int64),
            boxes=checked_boxes(
                np.array([box for _, box, _ in objects], dtype=np.float64).reshape(-1, 4) - [1, 1, 0, 0],
                size_array[rows],
                lambda k: f"{xml_files[rows[k]]}: object {k - rows.index(rows[k]) + 1} ({objects[k][0]})",
            ),
            labels=np.array([label[name] for name, _, _ in objects], dtype=np.int64),
            crowd=np.array([difficult for _, _, difficult in objects], dtype=bool),
            classes=names,
            transform=transform,
        )

    def _masks(self, index: int) -> tuple[Tensor, Tensor] | None:
        if self._segmentations is None:
            return None
        path = self._segmentations / f"{self.files[index].stem}.png"
        hint = ": take an image set from ImageSets/Segmentation, whose images have them"
        height, width = self.sizes[index].tolist()
        values = read_values(path, (height, width), numbers=True, hint=hint).long()
        numbers = self._numbers[self._span(index)] - self._first[index] + 1
        return values == numbers[:, None, None], (values == _BORDER)[None]


def _folders(annotations: Path, images: str | Path | None) -> tuple[Path, Path]:
    """The folders of the XML files and of the images."""
    if (annotations / "Annotations").is_dir():
        annotations = annotations / "Annotations"
    beside = annotations.parent / "JPEGImages"
    default = beside if annotations.name == "Annotations" and beside.is_dir() else annotations
    image_folder = default if images is None else Path(images)
    for folder, content in ((annotations, "VOC's XML files"), (image_folder, "the images")):
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}: expected {content} there")
    return annotations, image_folder


def _xml_files(folder: Path, image_set: str | Path | None) -> list[Path]:
    xml_files = {file.stem: file for file in sorted(folder.glob("*.xml")) if not file.name.startswith("._")}
    if image_set is None:
        if not xml_files:
            raise ValueError(f"no XML file in {folder}: expected one per image there, or Annotations/ inside it")
        return list(xml_files.values())
    if not Path(image_set).is_file():
        raise FileNotFoundError(f"no image set {image_set}: expected a text file with one image name per line")
    listed: dict[str, int] = {}
    missing = []
    for number, line in enumerate(read_lines(Path(image_set)), start=1):
        if not (name := line.strip()):
            continue
        forms = (name, Path(name).stem, name.split()[0])  # names with blanks, with a suffix, with a flag of the class
        stem = next((form for form in forms if form in xml_files), None)
        if stem is None:
            missing.append(name.split()[0])
        elif stem in listed:
            raise ValueError(f"{image_set}, line {number}: {stem!r} stands there twice, first in line {listed[stem]}")
        else:
            listed[stem] = number
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} XML files of {image_set}, the first is {missing[0]}.xml"
        )
    if not listed:
        raise ValueError(f"the image set {image_set} is empty")
    return [xml_files[stem] for stem in listed]


def _image_of(xml: Path, root: ElementTree.Element, folder: Path, by_stem: dict[str, list[Path]]) -> Path:
    """The image with the XML's stem; the file name that the XML states decides if there are several or none."""
    stated = PureWindowsPath((root.findtext("filename") or "").strip()).name  # a path of any system, or a name
    candidates = by_stem.get(xml.stem, [])
    if named := [file for file in candidates if file.name == stated]:
        return named[0]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise ValueError(f"{xml}: which is its image, {[file.name for file in candidates]}? It states {stated!r}")
    if stated and (folder / stated).is_file():
        return folder / stated
    raise FileNotFoundError(f"{xml}: no image {xml.stem}.* in {folder}, nor {stated!r}, which the file states")
