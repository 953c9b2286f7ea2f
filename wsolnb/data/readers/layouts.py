"""Recognise the data set in a folder, so that the error about a wrong data root can name it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

TITLES = {
    "cub": "CUB-200-2011",
    "imagenet": "ImageNet (ILSVRC 2012)",
    "openimages": "OpenImages30k",
    "voc2007": "VOC2007",
    "voc2012": "VOC2012",
    "coco2014": "COCO 2014",
    "coco2017": "COCO 2017",
    "dogs": "Stanford Dogs",
    "aircraft": "FGVC-Aircraft",
    "protocol": "metadata files of the WSOL protocol",
}
"""Short name and full name of every data set that has a reader."""

SYNSET = re.compile(r"n\d{8}")


def recognise(root: str | Path) -> str | None:
    """Name of the (first) data set in a folder, by some files of its official layout; None if none fits.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("Annotations", "JPEGImages"):
    ...         (Path(folder) / "VOCdevkit" / "VOC2012" / name).mkdir(parents=True)
    ...     print(recognise(folder))
    voc2012
    """
    return next(iter(layouts_in(root)), None)


def layouts_in(root: str | Path) -> list[str]:
    """Names of all data sets in a folder.

    >>> layouts_in("/no/such/folder")
    []
    """
    root = Path(root)
    if not root.is_dir():
        return []
    years = _voc_years(root)
    signs = {
        "cub": any((folder / "train_test_split.txt").is_file() for folder in (root, root / "CUB_200_2011")),
        "aircraft": any((folder / "data/variants.txt").is_file() for folder in (root, root / "fgvc-aircraft-2013b")),
        "coco2017": _has_coco(root, "2017"),
        "coco2014": _has_coco(root, "2014"),
        "voc2012": "2012" in years,
        "voc2007": "2007" in years,
        "dogs": (root / "Images").is_dir() and ((root / "train_list.mat").is_file() or (root / "Annotation").is_dir()),
        "imagenet": _has_imagenet(root),
        "protocol": any(root.glob("*/image_ids.txt")),
        "openimages": any(next(root.glob(f"{split}/*/*_ignore.png"), None) for split in ("val", "test")),
    }
    return [name for name, present in signs.items() if present]


def not_here(root: str | Path, name: str, expected: str) -> FileNotFoundError:
    """The error for a data root that lacks what is `expected` of data set `name`; it says what is there instead.

    >>> print(not_here("/no/where", "cub", "CUB_200_2011/images.txt"))
    /no/where is not CUB-200-2011: expected CUB_200_2011/images.txt; there is no such folder
    """
    others = [TITLES[other] for other in layouts_in(root) if other != name]
    if not Path(root).is_dir():
        hint = "there is no such folder"
    elif others:
        hint = f"this looks like {' and '.join(others)}"
    else:
        listed = sorted(child.name for child in _first(Path(root).iterdir(), 6))
        hint = f"it has {', '.join(listed)}" if listed else "the folder is empty"
    return FileNotFoundError(f"{root} is not {TITLES[name]}: expected {expected}; {hint}")


def voc_folder(root: str | Path, year: str = "") -> Path:
    """The folder with Annotations/ and JPEGImages/: `root` itself, or that in `root/VOCdevkit` (of a year, if given).

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If there are two and no year is given.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "VOCdevkit" / "VOC2012" / "Annotations").mkdir(parents=True)
    ...     voc_folder(folder).name
    'VOC2012'
    """
    root = Path(root)
    if (root / "Annotations").is_dir() and (not year or _voc_years(root)[:1] == [year]):
        return root
    years = sorted(folder.name for folder in root.glob("VOCdevkit/VOC*") if (folder / "Annotations").is_dir())
    years = [name for name in years if not year or name == f"VOC{year}"]
    if len(years) > 1:
        raise ValueError(f"{root / 'VOCdevkit'} has {', '.join(years)}: give one of these folders as the data root")
    if not years:
        raise not_here(root, f"voc{year or 2012}", f"VOCdevkit/VOC{year or '2007 or VOC2012'}/Annotations")
    return root / "VOCdevkit" / years[0]


def _voc_years(root: Path) -> list[str]:
    years = []
    for folder in (root, *sorted(root.glob("VOCdevkit/VOC20*"))):
        if not (folder / "Annotations").is_dir() or not (folder / "JPEGImages").is_dir():
            continue
        first = next((folder / "Annotations").glob("*.xml"), None)
        named_2007 = first is not None and re.fullmatch(r"\d{6}", first.stem)  # later years put the year first
        years.append(folder.name[3:] if folder.name in ("VOC2007", "VOC2012") else "2007" if named_2007 else "2012")
    return years


def _has_coco(root: Path, year: str) -> bool:
    return any((root / "annotations" / f"instances_{part}{year}.json").is_file() for part in ("train", "val"))


def _has_imagenet(root: Path) -> bool:
    folders = [
        root / part / split for part in ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC") for split in ("train", "val")
    ]
    names = [child.name for folder in folders if folder.is_dir() for child in _first(folder.iterdir(), 20)]
    return any(SYNSET.fullmatch(name) or name.startswith("ILSVRC2012_val_") for name in names)


def _first(items: Iterator[Path], count: int) -> list[Path]:
    return [item for item, _ in zip(items, range(count), strict=False)]
