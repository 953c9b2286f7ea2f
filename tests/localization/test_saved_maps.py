"""Maps and scores in the files of any framework: what is read, and what is refused with which words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from saved_splits import evaluated, save, smooth

from wsolnb.data.readers.protocol import ProtocolSplit, write_split
from wsolnb.localization.maps import stretched
from wsolnb.localization.saved_maps import read_scores


def test_other_ways_to_save_maps(boxed):
    folder, split, maps = boxed
    expected, _ = evaluated(folder / "maps", folder / "split", thresholds=50)
    save_file(dict(zip(split.image_ids, maps, strict=True)), folder / "maps.safetensors")
    tensors, _ = evaluated(folder / "maps.safetensors", folder / "split", thresholds=50)
    save(maps, [image[:-4] for image in split.image_ids], folder / "short")
    short, _ = evaluated(folder / "short", folder / "split", thresholds=50)
    assert tensors["numbers"] == short["numbers"] == expected["numbers"]


def spoil(folder, case):
    maps = folder / "maps"
    if case == "missing":
        (maps / "0/2.jpg.npy").unlink()
    elif case == "extra":
        np.save(maps / "new.npy", np.zeros((3, 4)))
    elif case == "text":
        (maps / "0/2.jpg.npy").write_text("no map")
    else:
        values = np.load(maps / "0/2.jpg.npy")
        values[3, 4] = {"nan": np.nan, "large": 255}.get(case, 0.5)
        changed = {"flat": values[None], "int": np.ones((66, 90), np.int64), "pickle": np.array([None])}.get(
            case, values
        )
        np.save(maps / "0/2.jpg.npy", changed)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", r"5 maps in .* for 6 images; 1 images have no map, the first is '0/2.jpg'"),
        ("extra", r"7 maps in .* for 6 images; 1 maps belong to no image, the first is 'new.npy'"),
        ("text", r"map .*0/2.jpg.npy does not load"),
        ("nan", r"map .*0/2.jpg.npy holds NaN or infinite values"),
        ("large", r"map .*0/2.jpg.npy has values from 0 to 255, outside of \[0, 1\]"),
        ("flat", r"0/2.jpg.npy must have shape \(height, width\), got \(1, 66, 90\)"),
        ("int", r"0/2.jpg.npy must be floating point in \[0, 1\], not torch.int64"),
        ("pickle", r"map .*0/2.jpg.npy does not load"),
    ],
)
def test_bad_maps(case, message, boxed):
    folder, _, _ = boxed
    spoil(folder, case)
    with pytest.raises(ValueError, match=message):
        evaluated(folder / "maps", folder / "split", thresholds=5)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (63, 90)])
def test_coarse_maps_are_refused_or_enlarged(size, boxed):
    folder, split, _ = boxed
    maps = smooth(6, size).nan_to_num(1.0)
    save(maps, split.image_ids, folder / "coarse")
    with pytest.raises(ValueError, match=rf"'0/0.jpg' has {size[1]} x {size[0]} pixels, too coarse .*--enlarge 224"):
        evaluated(folder / "coarse", folder / "split", thresholds=10)
    large = stretched(maps.float(), (224, 224))
    save(large, split.image_ids, folder / "large")
    expected, _ = evaluated(folder / "large", folder / "split", thresholds=10)
    enlarged, _ = evaluated(folder / "coarse", folder / "split", thresholds=10, enlarge=224)
    assert enlarged["numbers"] == expected["numbers"]
    assert enlarged["enlarge"] == 224
    with pytest.raises(ValueError, match=r"enlarge maps to 64 pixels a side or more .* not to 7"):
        evaluated(folder / "coarse", folder / "split", enlarge=7)


def test_sizes_that_change_places_are_refused(boxed):
    folder, split, _ = boxed
    wide = ProtocolSplit(split.image_ids, split.labels, split.sizes, (torch.tensor([[5, 5, 110, 60]]),) * 6)
    write_split(wide, folder / "split")
    (folder / "split" / "image_sizes.txt").write_text("\n".join(f"{image},80,120" for image in split.image_ids))
    with pytest.raises(ValueError, match=r"txt, line 1: box .* leaves its image, which has 80 x 120 .*places"):
        evaluated(folder / "maps", folder / "split")
    upright = ProtocolSplit(split.image_ids, split.labels, split.sizes.flip(1), (torch.tensor([[5, 5, 50, 60]]),) * 6)
    write_split(upright, folder / "split")
    save(smooth(6, (80, 120)), split.image_ids, folder / "wide")
    with pytest.raises(ValueError, match=r"map of '0/0.jpg' has 120 x 80 pixels, image_sizes.txt states 80 x 120"):
        evaluated(folder / "wide", folder / "split")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_maps_of_few_bits(dtype, boxed):
    folder, split, maps = boxed
    few = [each.float().to(dtype) for each in maps]
    save_file(dict(zip(split.image_ids, few, strict=True)), folder / "few.safetensors")
    save([each.float() for each in few], split.image_ids, folder / "float")
    expected, _ = evaluated(folder / "float", folder / "split", thresholds=20)
    assert evaluated(folder / "few.safetensors", folder / "split", thresholds=20)[0]["numbers"] == expected["numbers"]


def test_maps_in_the_byte_order_of_other_machines(boxed):
    folder, split, maps = boxed
    expected, _ = evaluated(folder / "maps", folder / "split", thresholds=20)
    for image, each in zip(split.image_ids, maps, strict=True):
        np.save(folder / "maps" / f"{image}.npy", each.numpy().astype(">f8"))
    assert evaluated(folder / "maps", folder / "split", thresholds=20)[0]["numbers"] == expected["numbers"]


@pytest.mark.parametrize(
    ("shape", "message"), [("( 0, 90)", "must have shape"), ("(99999999999999, 90)", "does not load")]
)
def test_headers_that_lie(shape, message, boxed):
    folder, _, _ = boxed
    path = folder / "maps" / "0/2.jpg.npy"
    whole, old = path.read_bytes(), b"(66, 90), }"
    new = f"{shape}, }}".encode()
    path.write_bytes(whole.replace(old + b" " * (len(new) - len(old)), new))
    with pytest.raises(ValueError, match=rf"map .*0/2\.jpg\.npy {message}"):
        evaluated(folder / "maps", folder / "split")


SPLIT = ProtocolSplit(("a.jpg", "b.jpg", "c.jpg"), torch.tensor([2, 0, 1]))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ">f4", np.int64])
def test_scores_are_read_in_either_form(dtype, tmp_path):
    scores = np.array([[1, 2, 3, 4], [7, 5, 6, 0], [0, 1, 9, 8]], dtype=dtype)
    np.save(tmp_path / "s.npy", scores)
    assert torch.equal(read_scores(tmp_path / "s.npy", SPLIT), torch.from_numpy(scores.astype(np.float64)))
    ids = {"b.jpg": 1, "a.jpg": 0, "c.jpg": 2}
    rows = {name: torch.from_numpy(scores[i].astype(np.float32)) for name, i in ids.items()}
    save_file(rows, tmp_path / "s.safetensors")
    assert torch.equal(read_scores(tmp_path / "s.safetensors", SPLIT), read_scores(tmp_path / "s.npy", SPLIT))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros(3), r"s.npy must have shape \(3, classes\), a row for each line of image_ids.txt, not \(3,\)"),
        (np.zeros((2, 3)), r"must have shape \(3, classes\), .* not \(2, 3\)"),
        (np.zeros((3, 1, 3)), r"not \(3, 1, 3\)"),
        (np.zeros((3, 2)), r"have 2 classes \(0 to 1\), but 'a.jpg' is of class 2 in class_labels.txt"),
        (np.array([[0, 0, 0], [0, np.nan, 0], [0, 0, 0]]), r"s.npy of 'b.jpg' are NaN or infinite"),
        (np.array([[0, 0, 0], [0, 0, 0], [-np.inf, 0, 0]]), r"s.npy of 'c.jpg' are NaN or infinite"),
        (np.zeros((3, 3), bool), r"must be real numbers, not torch.bool"),
        (np.array([["x"] * 3] * 3), r"scores .*s.npy do not load"),
    ],
    ids=["one axis", "rows", "three axes", "classes", "nan", "inf", "bool", "text"],
)
def test_bad_scores(scores, message, tmp_path):
    np.save(tmp_path / "s.npy", scores)
    with pytest.raises(ValueError, match=message):
        read_scores(tmp_path / "s.npy", SPLIT)


def test_bad_scores_by_id(tmp_path):
    path = tmp_path / "s.safetensors"
    with pytest.raises(FileNotFoundError, match=r"no scores at .*s.safetensors: give a .npy file or a .safetensors"):
        read_scores(path, SPLIT)
    path.write_text("x" * 100)
    with pytest.raises(ValueError, match="is no safetensors file"):
        read_scores(path, SPLIT)
    save_file({"a.jpg": torch.zeros(3), "b.jpg": torch.zeros(3), "d.jpg": torch.zeros(3)}, path)
    message = r"1 images have no score, the first is 'c.jpg'; 1 scores belong to no image, the first is 'd.jpg'"
    with pytest.raises(ValueError, match=message):
        read_scores(path, SPLIT)
    save_file({"a.jpg": torch.zeros(3), "b.jpg": torch.zeros(4), "c.jpg": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"all of one length, not \(4,\) of 'b.jpg', \(3,\) of 'a.jpg'"):
        read_scores(path, SPLIT)
