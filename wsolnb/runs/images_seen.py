"""The images that a run trains on, counted without training: drawn ones, photos at hand, or an official data set's.

Photos at hand are counted by the readers of the notebooks, which decode none of them for that. Without them, the
recipe's name says which official data set it is for, and the table of sources how many photos that has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from torch import Tensor

from wsolnb.data.crops import InstanceCrops
from wsolnb.data.download.sources import Source, read_sources
from wsolnb.data.readers.open import PHOTOS, open_scenes
from wsolnb.data.tasks import multi_label, single_object
from wsolnb.data.tasks.split import SPLITS


class Images(NamedTuple):
    """Number of images in an epoch, and of their classes, each None if unknown; and what they are, in words."""

    number: int | None
    classes: int | None
    what: str = "drawn images"
    at_least: bool = False


class ImagesSeen:
    """What the parameters of a run, and the name of its recipe, say about its images.

    Attributes:
        drawn: Whether they are drawn here.
        official: The official data set, None if there is none or it is unknown.
        title: The data set, in words.

    Raises:
        FileNotFoundError: If there is no folder of the name that ``data_root`` or ``metadata`` gives.

    Example:
        >>> values = {"dataset": "protocol", "data_root": "", "splits": ["train", "val", "test"], "train_images": 0}
        >>> ImagesSeen(values, "cub-vgg16").single()
        Images(number=5994, classes=200, what='photos (official train split)', at_least=False)
    """

    def __init__(self, values: Mapping[str, Any], recipe: str | None = None) -> None:
        self.p = SimpleNamespace(**{"dataset": "critters", "data_root": "", "metadata": ""} | dict(values))
        for name in ("metadata", "data_root"):
            if (folder := getattr(self.p, name)) and not Path(folder).is_dir():
                raise FileNotFoundError(f"no folder {folder}, given as {name}")
        self.drawn = self.p.dataset == "critters"
        splits = getattr(self.p, "splits", [getattr(self.p, "train_split", "")])
        self.split: str = splits[0] or SPLITS.get(self.p.dataset, ("train",))[0]
        self.official = None if self.drawn else self._official(Path(recipe).stem if recipe else "")
        own = f"photos in {self.p.data_root}" if self.p.data_root else f"photos of your own, read as {self.p.dataset}"
        self.title = "critters, drawn here" if self.drawn else self.official.title if self.official else own

    def _official(self, recipe: str) -> Source | None:
        """The recipe is named after it, or it has the name of the data set or of the split."""
        sources = read_sources()
        for name in (recipe.partition("-")[0], self.p.dataset):
            if name in sources and sources[name].splits:
                return sources[name]
        if self.p.data_root or self.p.dataset != "coco":
            return None
        return next((source for source in sources.values() if self.split in source.splits), None)

    def given(self, name: str, classes: int) -> Images:
        """As many drawn images as a parameter says."""
        return Images(getattr(self.p, name), classes)

    def single(self) -> Images:
        """Images of one class each, as `wsolnb.data.tasks.single_object` gives them."""
        p = self.p

        def at_hand() -> Any:
            names = ("train_images", "held_images", "test_images", "seed")
            where = {"metadata": p.metadata, "splits": tuple(p.splits), "image_size": p.image_size}
            return single_object.from_photos(p.dataset, p.data_root, **where, **{n: getattr(p, n) for n in names})

        def held(total: int) -> int:
            return min(p.held_images, total // 5) or total // 5

        return self._count(at_hand, lambda task: len(task.train), held)

    def scenes(self, copied: Callable[[Tensor], list[int]]) -> Images:
        """Images of several classes, as `wsolnb.data.tasks.multi_label` gives them, those of rare classes copied.

        `copied` gives the number of copies of every image, from its classes, which photos at hand tell.
        """
        p = self.p

        def at_hand() -> Any:
            names = ("min_images", "held_share", "train_images", "held_images", "test_images", "seed")
            given = {name: getattr(p, name) for name in names}
            return multi_label.from_photos(p.dataset, p.data_root, splits=tuple(p.splits), **given)

        def count(task: Any) -> int:
            return sum(copied(multi_label.all_labels(task.train, len(task.classes))))

        found = self._count(at_hand, count, lambda total: round(p.held_share * total))
        if p.data_root or p.copies == 1:
            return found
        return found._replace(what=f"{found.what}, besides copies of those of rare classes,", at_least=True)

    def crops(self, official: Mapping[str, int], source: str) -> Images:
        """Every object of every photo, as `wsolnb.data.tasks.crops_to_scenes` gives them; or photos of one object.

        `official` has the number of objects in splits where it is known, from `source`.
        """
        p = self.p
        if p.dataset in PHOTOS:
            return self._count(lambda: PHOTOS[p.dataset](p.data_root, self.split), len, lambda total: 0)
        if not self.drawn and not p.data_root:
            count = official.get(self.split)
            classes = self.official.classes if self.official else None
            said = f"objects ({source})" if count else "objects, to be counted at data_root"
            return self._at_most(Images(count, classes, said))

        def at_hand() -> Any:
            scenes = open_scenes(p.dataset, p.data_root, self.split)
            return InstanceCrops(scenes.only(scenes.frequent_classes(p.min_boxes or 1)))

        return self._at_most(self._count(at_hand, len, lambda total: 0, what="objects"))

    def _count(
        self, at_hand: Callable[[], Any], count: Callable[[Any], int], held: Callable[[int], int], what: str = "photos"
    ) -> Images:
        p = self.p
        if self.drawn:
            return Images(p.train_images, getattr(p, "families", 4) * getattr(p, "species", 3))
        if p.data_root:
            found = at_hand()
            return Images(count(found), len(found.classes), f"{what}, counted at data_root")
        classes = self.official.classes if self.official else None
        if p.metadata:
            ids = Path(p.metadata) / self.split / "image_ids.txt"
            total = len(ids.read_text(encoding="utf-8").split("\n")) - 1
            return self._at_most(Images(total, classes, f"photos, counted in {ids}"))
        if self.official is None or self.split not in self.official.splits:
            return Images(
                p.train_images or None, classes, "photos, if there are so many" if p.train_images else "photos"
            )
        total = self.official.splits[self.split]
        kept_back = 0 if "splits" not in vars(p) or p.splits[1] else held(total)
        said = f", {kept_back:,} of them held out" if kept_back else ""
        return self._at_most(Images(total - kept_back, classes, f"{what} (official {self.split} split{said})"))

    def _at_most(self, found: Images) -> Images:
        asked = self.p.train_images
        return found._replace(number=min(asked, found.number or asked)) if asked else found
