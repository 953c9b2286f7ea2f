"""The table of networks tried, `wsolnb/inference/networks.md`: each row read again, its maps checked.

What the network itself gives where the features of one cell are set to zero on the way is held against what the maps
say it must give; where tokens are averaged, changing pixels must change the features of the cell that lies there most.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import timm
import torch
from networks_tried import CLASSES, described, network, outputs, read, where_features_are_made, without_a_cell
from torch import Tensor

from wsolnb.inference.linear_head import LinearHead

TABLE = Path(__file__).parents[2] / "wsolnb" / "inference" / "networks.md"
ROW = re.compile(r"^\| (torchvision|timm|transformers) \| (.+) \| (\d+) \| (yes|no) \| (.+) \|$", re.MULTILINE)
ROWS = ROW.findall(TABLE.read_text(encoding="utf-8"))
FAST = {"resnet10t", "efficientvit_m0", "vit_tiny_patch16_224 avg", "mixer_s32_224", "squeezenet1_1", "convit_tiny"}


def photos(side: int) -> Tensor:
    """Smooth images with some noise."""
    generator = torch.Generator().manual_seed(1)
    smooth = torch.nn.functional.interpolate(torch.randn(2, 3, 9, 9, generator=generator), (side, side), mode="bicubic")
    return smooth + 0.3 * torch.randn(2, 3, side, side, generator=generator)


def predicted(reading: LinearHead, features: Tensor) -> Tensor:
    """Outputs by the maps of other features, with the layer normalisation's divisor of their own."""
    mean, scale = features.mean((2, 3)), torch.ones(len(features))
    if reading.scale is not None:
        eps = reading.scale**-2 - reading.features.mean((2, 3)).var(1, correction=0)
        scale = (mean.var(1, correction=0) + eps).rsqrt()
    maps = torch.einsum("bdhw,cd->bchw", features, reading.weight) * scale[:, None, None, None]
    return maps.mean((2, 3)) + reading.constant


@pytest.mark.parametrize(
    ("library", "name", "side", "readable", "found"),
    [pytest.param(*row, id="-".join(row[:2]), marks=[] if row[1] in FAST else [pytest.mark.slow]) for row in ROWS],
)
def test_the_table_says_what_is_found(library: str, name: str, side: str, readable: str, found: str) -> None:
    if library == "transformers":
        pytest.importorskip("transformers", reason="pip install wsolnb[huggingface]")
    if library == "timm" and name.partition(" ")[0] not in timm.list_models():
        pytest.skip(f"this timm has no {name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, about their own code
        net = network(library, name)
        images = photos(int(side))
        reading = read(net, images)
    assert described(reading) == f"{readable}: {found}"
    if isinstance(reading, str):
        return
    plain = outputs(net, images).reshape(len(images), CLASSES)
    torch.testing.assert_close(predicted(reading, reading.features), plain, rtol=1e-4, atol=1e-5 * float(plain.std()))

    made = where_features_are_made(net, images, reading.features)
    height, width = reading.features.shape[2:]
    row, column = cell = (height // 4, width - 1 - width // 4)
    erased = reading.features.clone()
    erased[:, :, row, column] = 0
    given = without_a_cell(net, images, made, cell).reshape(len(images), CLASSES)
    assert (given - plain).abs().max() > 1e-4 * plain.std()
    torch.testing.assert_close(
        predicted(reading, erased) - plain, given - plain, rtol=1e-2, atol=1e-4 * float(plain.std())
    )

    if made[2]:  # tokens
        top, bottom = row * int(side) // height, (row + 1) * int(side) // height
        left, right = column * int(side) // width, (column + 1) * int(side) // width
        changed = images.clone()
        changed[:, :, top:bottom, left:right] *= -2
        again = read(net, changed)
        assert isinstance(again, LinearHead)
        moved = (again.features - reading.features).norm(dim=1).mean(0)
        most = divmod(int(moved.argmax()), width)
        assert max(abs(most[0] - row), abs(most[1] - column)) <= 1


def test_the_readme_counts_the_table(repo: Path) -> None:
    readme = (repo / "README.md").read_text(encoding="utf-8")
    tried, readable = len(ROWS), sum(row[3] == "yes" for row in ROWS)
    assert f"{readable} of {tried} networks tried" in readme
    assert len({tuple(row[:2]) for row in ROWS}) == tried
