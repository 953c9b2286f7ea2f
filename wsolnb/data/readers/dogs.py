"""Read Stanford Dogs in its official layout: 120 breeds, boxes in ImageNet's XML, MATLAB lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import loadmat
from torch import Tensor

from wsolnb.data.readers._files import all_there, imagenet_boxes
from wsolnb.data.readers.layouts import not_here
from wsolnb.data.readers.photos import Photos
from wsolnb.data.readers.scenes import Transform


class StanfordDogs(Photos):
    """Stanford Dogs: `Images/<synset>-<breed>/*.jpg`, `Annotation/<synset>-<breed>/*` (XML without a suffix), lists.

    `train_list.mat` and `test_list.mat` hold `file_list`, `annotation_list` and `labels`, which count from 1.

    Args:
        root: Folder with `Images/`, `Annotation/` and the lists (beside them or in `lists/`).
        split: `train` (12,000 images) or `test` (8,580).

    >>> StanfordDogs("data/dogs", "test")  # doctest: +SKIP
    StanfordDogs(8580 images, 120 classes)
    """

    def __init__(self, root: str | Path, split: str, *, transform: Transform | None = None) -> None:
        if split not in ("train", "test"):
            raise ValueError(f"unknown split {split!r} of Stanford Dogs; known: train, test")
        root = Path(root)
        lists = (root / f"{split}_list.mat", root / "lists" / f"{split}_list.mat")
        listing = next((path for path in lists if path.is_file()), None)
        if listing is None or not (root / "Images").is_dir():
            raise not_here(root, "dogs", f"Images/, Annotation/ and {split}_list.mat")
        try:
            table = loadmat(listing, squeeze_me=True)
            keys = ("file_list", "annotation_list", "labels")
            names, annotations, numbers = (np.atleast_1d(table[key]).tolist() for key in keys)
            labels = [int(label) - 1 for label in numbers]
            if labels != [label - 1 for label in numbers]:
                raise ValueError("a label is no whole number")
            if not len(names) == len(annotations) == len(labels) > 0:
                raise ValueError(f"{len(names)} files, {len(annotations)} annotations and {len(labels)} labels")
        except Exception as error:  # of a damaged file, SciPy raises almost anything
            raise ValueError(
                f"{listing} is no list of Stanford Dogs with files, annotations and labels: {error}"
            ) from None
        folders = sorted(path.name for path in (root / "Images").iterdir() if path.is_dir())
        for name, label in zip(names, labels, strict=True):
            if not 0 <= label < len(folders) or folders[label] != name.split("/")[0]:
                raise ValueError(
                    f"{listing}: {name} has label {label + 1}, but Images/ has {len(folders)} folders and that is "
                    "not the number of its folder in their order"
                )
        all_there(root / "Images", names, listing)
        all_there(root / "Annotation", annotations, listing)
        classes = [folder.split("-", 1)[-1].replace("_", " ") for folder in folders]
        super().__init__(root / "Images", names, labels, classes=classes, transform=transform)
        self._annotations = annotations

    def has_boxes(self, index: int) -> bool:
        """True: every image has a box."""
        return True

    def _boxes(self, index: int, size: tuple[int, int]) -> Tensor | None:
        return imagenet_boxes(self.root.parent / "Annotation" / self._annotations[index], size)[0]
