"""VOC's own lists of images per class: labels of whole images, as weak supervision has them, without any XML."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from wsolnb.data.layouts import voc_folder

_VALUES = {"1": 1.0, "-1": 0.0, "0": torch.nan}


def read_class_lists(root: str | Path, split: str) -> tuple[list[str], list[str], Tensor]:
    """Read `ImageSets/Main/<class>_<split>.txt` of all classes.

    A line holds the name of an image and 1 (it shows the class), -1 (it does not) or 0 (difficult objects only).

    Args:
        root: VOC2007 or VOC2012, or the folder that holds VOCdevkit with one of them.
        split: `train`, `val`, `trainval` or `test`.

    Returns:
        Names of the images in the order of `<split>.txt`; names of the classes, sorted; labels float32
        `(images, classes)` as `wsolnb.data.multi_label.all_labels` gives them from boxes: 1, 0, and NaN for 0.

    Raises:
        FileNotFoundError: If there is no such split, or no list of a class.
        ValueError: If a line has no name and value, a value is none of the three, or a list names other images than the
            split.

    >>> stems, classes, labels = read_class_lists("VOC2012", "train")  # doctest: +SKIP
    >>> len(stems), len(classes), labels.shape  # doctest: +SKIP
    (5717, 20, torch.Size([5717, 20]))
    """
    folder = voc_folder(root) / "ImageSets" / "Main"
    path = folder / f"{split}.txt"
    if not path.is_file():
        known = sorted(file.stem for file in folder.glob("*.txt") if "_" not in file.stem)
        raise FileNotFoundError(f"no split {split!r} in {folder}: there are {', '.join(known) or 'none'}")
    stems = path.read_text(encoding="utf-8").split()
    lists = sorted(folder.glob(f"*_{split}.txt"))
    if not lists:
        raise FileNotFoundError(f"no list of a class, such as cat_{split}.txt, in {folder}")
    place = {stem: row for row, stem in enumerate(stems)}
    labels = torch.zeros(len(stems), len(lists))
    for column, file in enumerate(lists):
        rows = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        for number, row in enumerate(rows, start=1):
            if len(row) != 2 or row[1] not in _VALUES:
                raise ValueError(f"{file}: line {number} is {' '.join(row)!r}, expected an image and 1, 0 or -1")
        if {stem for stem, _ in rows} != set(stems):
            odd = sorted({stem for stem, _ in rows} ^ set(stems))[0]
            raise ValueError(f"{file} and {path} do not name the same images: {odd} is in one of them only")
        for stem, value in rows:
            labels[place[stem], column] = _VALUES[value]
    return stems, [file.stem.removesuffix(f"_{split}") for file in lists], labels
