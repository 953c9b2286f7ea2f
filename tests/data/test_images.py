"""Every mode that Pillow knows comes out as the 8-bit RGB of what it shows, or is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsolnb.data.readers.images import UnreadableImage, decode, to_rgb

WHITE = (255, 255, 255)
SHOWN = {
    "1": (1, WHITE),
    "L": (60, (60, 60, 60)),
    "P": (1, (10, 20, 30)),
    "RGB": ((10, 20, 30), (10, 20, 30)),
    "RGBX": ((10, 20, 30, 0), (10, 20, 30)),
    "CMYK": ((255, 0, 0, 0), (0, 255, 255)),
    "YCbCr": ((60, 128, 128), (60, 60, 60)),
    "LAB": ((128, 128, 128), (119, 119, 119)),
    "HSV": ((0, 0, 60), (60, 60, 60)),
    "I": (200 * 257, (200, 200, 200)),
    "I;16": (200 * 257, (200, 200, 200)),
    "I;16L": (200 * 257, (200, 200, 200)),
    "I;16B": (200 * 257, (200, 200, 200)),
    "I;16N": (200 * 257, (200, 200, 200)),
    "F": (0.5, (128, 128, 128)),
    "LA": ((60, 255), (60, 60, 60)),
    "La": ((60, 255), (60, 60, 60)),
    "PA": ((1, 255), (10, 20, 30)),
    "RGBA": ((10, 20, 30, 0), WHITE),
    "RGBa": ((10, 20, 30, 255), (10, 20, 30)),
}


@pytest.mark.parametrize("mode", SHOWN)
def test_every_mode(mode: str) -> None:
    value, expected = SHOWN[mode]
    image = Image.new(mode, (3, 2))
    if mode in ("P", "PA"):
        image.putpalette([0, 0, 0, 10, 20, 30])
    image.paste(value, (0, 0, 3, 2)) if mode not in ("I;16L", "I;16B", "I;16N", "La", "RGBa") else None
    if mode in ("I;16L", "I;16B", "I;16N"):
        order = ">u2" if mode == "I;16B" else "<u2"
        image = Image.frombytes(mode, (3, 2), np.full(6, value, order).tobytes())
    elif mode in ("La", "RGBa"):
        image = Image.frombytes(mode, (3, 2), bytes(value) * 6)  # type: ignore[call-overload]
    shown = to_rgb(image)
    assert shown.mode == "RGB"
    assert shown.getpixel((2, 1)) == expected


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_show_what_8_bits_show(tmp_path: Path, suffix: str) -> None:
    grey = np.full((4, 6), 60, np.uint8)
    grey[1:3, 2:5] = 200
    Image.fromarray(grey).save(tmp_path / f"8.{suffix}")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / f"16.{suffix}")
    assert torch.equal(decode(tmp_path / f"8.{suffix}"), decode(tmp_path / f"16.{suffix}"))


def test_floats_from_0_to_1_are_read_and_others_refused(tmp_path: Path) -> None:
    for name, top in (("unit", 1), ("large", 255), ("nan", np.nan)):
        Image.fromarray(np.full((4, 6), top, np.float32)).save(tmp_path / f"{name}.tif")
    assert decode(tmp_path / "unit.tif").unique().tolist() == [255]
    for name in ("large", "nan"):
        with pytest.raises(UnreadableImage, match=rf"{name}\.tif does not decode .*its values of mode F run from"):
            decode(tmp_path / f"{name}.tif")
    Image.fromarray(np.full((4, 6), 10**6, np.int32)).save(tmp_path / "deep.tif")
    with pytest.raises(UnreadableImage, match=r"deep\.tif .*run from 1e\+06 to 1e\+06, only 0 to 65535 is read"):
        decode(tmp_path / "deep.tif")


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=0)
    assert decode(tmp_path / "a.png")[:, 0].T.tolist() == [[255, 255, 255], [40, 50, 60]]
