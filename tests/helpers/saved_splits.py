"""Splits of made-up images on disk with their score maps, and one method's evaluation."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from wsolnb.data.readers.protocol import ProtocolSplit, write_split
from wsolnb.localization.evaluate import SavedMethod, evaluate_maps


def smooth(images, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    maps = functional.interpolate(torch.rand(images, 1, 4, 5, generator=generator), size, mode="bicubic")[:, 0].double()
    maps = maps - maps.amin(dim=(1, 2), keepdim=True)
    return maps / maps.amax(dim=(1, 2), keepdim=True)


def save(maps, ids, folder, name="{}.npy"):
    for image, each in zip(ids, maps, strict=True):
        path = folder / name.format(image)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, each.numpy())


def write_boxed(folder):
    """Six images of two sizes, with their maps, as a split on disk."""
    ids = tuple(f"{i % 2}/{i}.jpg" for i in range(6))
    generator = torch.Generator().manual_seed(1)
    corner = torch.randint(20, (6, 2), generator=generator)
    boxes = tuple(torch.cat([near, near + torch.randint(60, (2,), generator=generator)])[None] for near in corner)
    boxes = (torch.cat([boxes[0], boxes[1]]), *boxes[1:])
    split = ProtocolSplit(ids, torch.arange(6) % 2, torch.tensor([[80, 120]] * 6), boxes)
    write_split(split, folder / "split")
    maps = [*smooth(4, (66, 90)), *smooth(2, (70, 70), seed=1)]
    save(maps, ids, folder / "maps")
    return folder, split, maps


def write_masked(folder):
    """Three images with masks and one ignore region, with their maps."""
    ids = ("a.jpg", "b.jpg", "c.jpg")
    masks = (("a0.png", "a1.png"), ("b0.png",), ("c0.png",))
    split = ProtocolSplit(ids, torch.arange(3), masks=masks, ignore=("ai.png", "", ""))
    write_split(split, folder / "split")
    rng = np.random.default_rng(0)
    for name in ("a0.png", "a1.png", "b0.png", "c0.png", "ai.png"):
        Image.fromarray((rng.random((66, 97)) > 0.7).astype(np.uint8) * 255).save(folder / name)
    maps = smooth(3, (66, 97))
    save(maps, ids, folder / "maps")
    return folder, maps


def write_two_splits(folder):
    """A test split of 40 images and a validation split of 12 others, with maps of two methods and their scores."""
    rng = np.random.default_rng(5)
    for name, count, seed in (("test", 40, 0), ("val", 12, 9)):
        ids = tuple(f"{name}/{i}.jpg" for i in range(count))
        near = rng.integers(0, 30, (count, 2))
        far = near + rng.integers(15, 50, (count, 2))
        boxes = tuple(torch.from_numpy(np.concatenate([a, b])[None]) for a, b in zip(near, far, strict=True))
        labels = torch.from_numpy(rng.integers(0, 8, count))
        write_split(ProtocolSplit(ids, labels, torch.tensor([[80, 80]] * count), boxes), folder / name)
        for method, shift in (("a", 0.0), ("b", 0.8)):
            maps = smooth(count, (80, 80), seed + int(10 * shift))
            for i, (x0, y0, x1, y1) in enumerate(torch.cat(boxes).tolist()):
                maps[i, y0 : y1 + 1, x0 : x1 + 1] += 0.9 - shift
            save(maps / maps.amax(dim=(1, 2), keepdim=True), ids, folder / f"{name}-{method}")
    np.save(folder / "a.npy", rng.normal(size=(40, 8)))
    np.save(folder / "b.npy", rng.normal(size=(40, 8)))
    return folder


def evaluated(maps, metadata, protocol="maxboxaccv2", *, scores=None, val=None, **options):
    """Result and curve of one method's maps by one protocol (or all that the split permits)."""
    method = SavedMethod(maps, scores, val)
    result, curves = evaluate_maps({"m": method}, metadata, [protocol] if protocol else None, **options)
    return result, curves["m"]


def values(result, key="value"):
    """A field of all numbers, by name and kind of threshold."""
    return {(row["name"], row["kind"]): row[key] for row in result["numbers"]}
