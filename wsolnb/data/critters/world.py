"""The drawn world: animals on cluttered ground, with the truth about every pixel and a knob for every difficulty.

An animal is a body, shared by its family, with a mark on its head that identifies the species. What carries the class?

- `World(shared_marks=True, body_tells=1.0)`: body and mark together; a class activation map covers most of the animal.
- `World()`: the mark, and most of the time the body; the map is strong on the head and weak on the body.
- `World(body_tells=0.0)`: the mark alone. Bodies are random, and the map has no reason to leave the head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from wsolnb._utils.progress import track
from wsolnb.data.critters.bodies import BODIES
from wsolnb.data.critters.drawing import MARKS, mark_name
from wsolnb.data.critters.staging import Stage, cast, draw_stage, generator
from wsolnb.data.taxonomy import Taxonomy

Target = dict[str, Any]
_FRACTIONS = ("body_tells", "clutter", "occlusion", "cooccurrence", "repeats")


@dataclass(frozen=True)
class World:
    """The knobs of a drawn world; they determine all its images.

    >>> world = World(families=2, species=2, shared_marks=True, body_tells=1.0, size=48)
    >>> world.classes
    ['starred beetle', 'ringed beetle', 'starred fish', 'ringed fish']
    >>> image, target = world.singles(8, seed=1)[5]
    >>> image.shape, target["labels"].tolist(), target["masks"].shape
    (torch.Size([3, 48, 48]), [1], torch.Size([1, 48, 48]))

    Attributes:
        families: number of families, each with a body of its own (1 to 8).
        species: number of species in each family, each with a mark of its own (from 1).
        shared_marks: all families have the same marks, so that body AND mark identify a species; otherwise no two
            species share a mark, which identifies the species alone.
        body_tells: probability that an animal has its family's body, not that of a random family; shared marks need 1.
        mark_size: side of the mark as a fraction of the body's longer side, in (0, 0.4].
        clutter: leaves, pebbles and patches of the ground, from 0 (a plain colour) to 1.
        noise: standard deviation of the pixel noise, in units of the grey range 0 to 1.
        occlusion: probability that a leaf covers a part of an animal.
        occlusion_extent: width of that leaf as a fraction of the animal's, in (0, 0.7].
        scale: least and greatest length of an animal (the longer side of its box), as fractions of the shorter side of
            `size`, in scenes too: there, animals are as large as in singles, with more room around them.
        objects: least and greatest number of animals in a scene; an animal without a free position is left out.
        cooccurrence: probability that the next animal of a scene is the partner (see `partners`) of the one before.
        repeats: probability that the next animal of a scene repeats a species of the scene; otherwise species differ.
        size: side of the images in pixels, or (height, width).
        seed: determines partners and images.

    Raises:
        ValueError: a knob is out of its range.
    """

    families: int = 4
    species: int = 3
    shared_marks: bool = False
    body_tells: float = 0.7
    mark_size: float = 0.25
    clutter: float = 0.5
    noise: float = 0.02
    occlusion: float = 0.0
    occlusion_extent: float = 0.3
    scale: tuple[float, float] = (0.45, 0.75)
    objects: tuple[int, int] = (1, 4)
    cooccurrence: float = 0.0
    repeats: float = 0.0
    size: int | tuple[int, int] = 96
    seed: int = 0

    def __post_init__(self) -> None:
        def check(valid: bool, knob: str, rule: str) -> None:
            if not valid:
                raise ValueError(f"World: {knob}={getattr(self, knob)!r}, but it must be {rule}")

        check(1 <= self.families <= len(BODIES), "families", f"from 1 to {len(BODIES)} ({', '.join(BODIES)})")
        most = MARKS if self.shared_marks else MARKS // self.families
        check(1 <= self.species <= most, "species", f"from 1 to {most}: there are {MARKS} marks")
        for knob in _FRACTIONS:
            check(0 <= getattr(self, knob) <= 1, knob, "between 0 and 1")
        check(0 < self.mark_size <= 0.4, "mark_size", "above 0 and at most 0.4")
        check(0 <= self.noise <= 0.5, "noise", "between 0 and 0.5")
        check(0 < self.occlusion_extent <= 0.7, "occlusion_extent", "above 0 and at most 0.7")
        check(min(_height_width(self.size)) >= 16, "size", "at least 16 pixels")
        pair = len(self.scale) == 2
        check(pair and 0 < self.scale[0] <= self.scale[1] <= 1, "scale", "(least, greatest) above 0 and at most 1")
        pair = len(self.objects) == 2
        check(pair and 1 <= self.objects[0] <= self.objects[1], "objects", "(least, greatest), at least 1")
        few = self.repeats > 0 or self.objects[1] <= self.families * self.species
        check(few, "objects", f"at most {self.families * self.species}, the number of species, where repeats=0")
        alone = not self.shared_marks or self.body_tells == 1
        check(alone, "body_tells", "1 where shared_marks=True, since nothing else tells the family")
        check(self.seed >= 0, "seed", "at least 0")

    @cached_property
    def classes(self) -> list[str]:
        """Names of the species; label k is `classes[k]`, and a family's species follow one another."""
        return [f"{mark_name(self.mark(k))} {self.family(k)}" for k in range(self.families * self.species)]

    def family(self, label: int) -> str:
        """Name of the family to which the species belongs."""
        return list(BODIES)[label // self.species]

    def mark(self, label: int) -> int:
        """Number of the species' mark."""
        return label % self.species if self.shared_marks else label

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The class tree: animal, group (insect, vertebrate, mollusc), family, species."""
        parents: dict[str, str] = {}
        for label, name in enumerate(self.classes):
            family = self.family(label)
            parents |= {name: family, family: BODIES[family][0], BODIES[family][0]: "animal"}
        return Taxonomy(parents)

    @cached_property
    def partners(self) -> list[int]:
        """Label of the partner of each species; one ring through all species, fixed by the seed."""
        ring = generator(self.seed).permutation(len(self.classes))
        return [int(k) for k in np.roll(ring, -1)[np.argsort(ring)]]

    def singles(self, n: int, *, seed: int = 0, transform: Any = None) -> Critters:
        """`n` images of `size` with one animal each; labels cycle, so that the first k images are balanced."""
        return Critters(self, n, seed=seed, transform=transform)

    def scenes(
        self, n: int, *, seed: int = 0, size: int | tuple[int, int] | None = None, transform: Any = None
    ) -> Critters:
        """`n` images with several animals each, of `size` (ValueError if animals do not fit) or as large as singles."""
        return Critters(self, n, seed=seed, scene_size=size or self.size, transform=transform)


def _height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


class Critters(Dataset[tuple[tv_tensors.Image, Target]]):
    """Images of a `World`, drawn on access; made by `World.singles` and `World.scenes`.

    An image depends on the world, the seed, the kind (singles or scenes) and its index alone, not on the order of
    access or the number of images or workers. (Releases of Pillow differ in a few pixels at the corners of leaves.)
    Worlds that differ in appearance only (`noise`, `mark_size`, `clutter`, ...) draw the same animals at the same
    positions, so that comparisons are paired.
    """

    def __init__(
        self,
        world: World,
        n: int,
        *,
        seed: int = 0,
        scene_size: int | tuple[int, int] | None = None,
        transform: Any = None,
    ) -> None:
        if n < 0 or seed < 0:
            raise ValueError(f"the number of images (n={n}) and the seed ({seed}) must be at least 0")
        self.world, self.n, self.seed, self.transform = world, n, seed, transform
        self.several = scene_size is not None
        self.size = _height_width(world.size if scene_size is None else scene_size)
        self._unit = min(_height_width(world.size))
        longest = math.ceil(world.scale[1] * self._unit)
        if min(self.size) < longest:
            raise ValueError(f"scenes of {self.size} cannot hold animals of {longest} pixels: make them larger")
        self.classes, self.taxonomy = world.classes, world.taxonomy

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, Target]:
        if not -self.n <= index < self.n:
            raise IndexError(f"image {index} of {self.n}")
        stage = self.stage(index % self.n)
        image = tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(stage.pixels.transpose(2, 0, 1))))
        target: Target = {
            "boxes": tv_tensors.BoundingBoxes(torch.from_numpy(stage.boxes), format="XYXY", canvas_size=self.size),
            "labels": torch.from_numpy(stage.labels),
            "image_id": index % self.n,
            "masks": tv_tensors.Mask(torch.from_numpy(stage.masks)),
            "mark_masks": tv_tensors.Mask(torch.from_numpy(stage.mark_masks)),
        }
        return (image, target) if self.transform is None else self.transform(image, target)

    @property
    def labels(self) -> Tensor:
        """Labels of singles, int64 `(n,)`, without drawing them."""
        if self.several:
            raise AttributeError("scenes have several labels each: see their targets")
        return torch.arange(self.n) % len(self.classes)

    def stage(self, index: int) -> Stage:
        """An image and its truth as arrays, without the transform."""
        rng = generator(self.world.seed, self.seed, int(self.several), index)
        labels = cast(self.world, rng) if self.several else [index % len(self.classes)]
        return draw_stage(self.world, rng, self.size, self._unit, labels)

    def tensors(self) -> tuple[Tensor, list[Target]]:
        """All images at once: uint8 (n, 3, height, width), and their targets.

        >>> images, targets = World(size=32).singles(4).tensors()
        >>> images.shape, [t["labels"].item() for t in targets]
        (torch.Size([4, 3, 32, 32]), [0, 1, 2, 3])
        """
        images = torch.empty((self.n, 3, *self.size), dtype=torch.uint8)
        targets = []
        for index in track(range(self.n), "drawing"):
            images[index], target = self[index]
            targets.append(target)
        return images, targets
