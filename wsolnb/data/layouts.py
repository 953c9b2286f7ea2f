"""Which data set is in a folder: so that a wrong data root is answered with what is really there."""

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
"""Short name of every data set that has a reader, and how people call it."""

SYNSET = re.compile(r"n\d{8}")


def recognise(root: str | Path) -> str | None:
    """Name of the data set in a folder, by the files that its official layout has; None if none fits.

    Looks at a handful of files, never at all of them.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "VOCdevkit" / "VOC2012" / "Annotations").mkdir(parents=True)
        ...     print(recognise(folder))
        voc2012
    """
    root = Path(root)
    if not root.is_dir():
        return None
    if any((folder / "train_test_split.txt").is_file() for folder in (root, root / "CUB_200_2011")):
        return "cub"
    if any((folder / "data" / "variants.txt").is_file() for folder in (root, root / "fgvc-aircraft-2013b")):
        return "aircraft"
    for year in ("2017", "2014"):
        if any((root / "annotations" / f"instances_{part}{year}.json").is_file() for part in ("train", "val")):
            return f"coco{year}"
    if year := _voc_year(root):
        return f"voc{year}"
    if (root / "Images").is_dir() and ((root / "train_list.mat").is_file() or (root / "Annotation").is_dir()):
        return "dogs"
    if _has_imagenet(root):
        return "imagenet"
    if any(root.glob("*/image_ids.txt")):
        return "protocol"
    if any(next(root.glob(f"{split}/*/*_ignore.png"), None) for split in ("val", "test")):
        return "openimages"
    return None


def not_here(root: str | Path, name: str, expected: str) -> FileNotFoundError:
    """The error for a data root that does not have a data set's layout; it says what is there instead.

    Args:
        root: The folder that was given.
        name: Which data set was wanted, a key of `TITLES`.
        expected: What its layout has.

    Example:
        >>> print(not_here("/no/where", "cub", "CUB_200_2011/images.txt"))
        /no/where is not CUB-200-2011: expected CUB_200_2011/images.txt; there is no such folder
    """
    found = recognise(root)
    if not Path(root).is_dir():
        hint = "there is no such folder"
    elif found and found != name:
        hint = f"this looks like {TITLES[found]}"
    else:
        listed = sorted(child.name for child in _first(Path(root).iterdir(), 6))
        hint = f"it has {', '.join(listed)}" if listed else "the folder is empty"
    return FileNotFoundError(f"{root} is not {TITLES[name]}: expected {expected}; {hint}")


def voc_folder(root: str | Path, year: str = "") -> Path:
    """The folder with Annotations/ and JPEGImages/: `root` itself, or the one in `root/VOCdevkit`.

    Args:
        root: As given by the user.
        year: Take only this year's; "" takes the only one there is.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If there are two and no year is given.
    """
    root = Path(root)
    if (root / "Annotations").is_dir() and (not year or _voc_year(root) == year):
        return root
    years = sorted(folder.name for folder in root.glob("VOCdevkit/VOC*") if (folder / "Annotations").is_dir())
    years = [name for name in years if not year or name == f"VOC{year}"]
    if len(years) > 1:
        raise ValueError(f"{root / 'VOCdevkit'} has {', '.join(years)}: give one of these folders as the data root")
    if not years:
        raise not_here(root, f"voc{year or 2012}", f"VOCdevkit/VOC{year or '2007 or VOC2012'}/Annotations")
    return root / "VOCdevkit" / years[0]


def _voc_year(root: Path) -> str:
    for folder in (root, *sorted(root.glob("VOCdevkit/VOC20*"), reverse=True)):
        if not (folder / "Annotations").is_dir() or (folder == root and not (root / "JPEGImages").is_dir()):
            continue
        if folder.name in ("VOC2007", "VOC2012"):
            return folder.name[3:]
        first = next((folder / "Annotations").glob("*.xml"), None)
        return "2007" if first is not None and re.fullmatch(r"\d{6}", first.stem) else "2012"
    return ""


def _has_imagenet(root: Path) -> bool:
    for folder in (root, root / "ILSVRC" / "Data" / "CLS-LOC", root / "Data" / "CLS-LOC"):
        for split in ("train", "val"):
            if not (folder / split).is_dir():
                continue
            for child in _first((folder / split).iterdir(), 20):
                if SYNSET.fullmatch(child.name) or child.name.startswith("ILSVRC2012_val_"):
                    return True
    return False


def _first(items: Iterator[Path], count: int) -> list[Path]:
    return [item for item, _ in zip(items, range(count), strict=False)]
