from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from wsolnb.data.readers.open import ProtocolImages
from wsolnb.data.readers.protocol import ProtocolSplit, _nearest, load_masks, read_split, scaled_boxes, write_split

FILES = ("image_ids.txt", "class_labels.txt", "image_sizes.txt", "localization.txt")
BOXES = ProtocolSplit(
    image_ids=("b/2.jpg", "a/1.jpg"),
    labels=torch.tensor([4, 0]),
    sizes=torch.tensor([[30, 50], [20, 10]]),
    boxes=(torch.tensor([[1, 2, 30, 20], [0, 0, 0, 0]]), torch.tensor([[3, 4, 5, 6]])),
)
MASKS = ProtocolSplit(
    image_ids=("b/2.jpg", "a/1.jpg"),
    labels=torch.tensor([4, 0]),
    masks=(("b/2_0.png", "b/2_1.png"), ("a/1_0.png",)),
    ignore=("b/2_ignore.png", ""),
)


def same(a, b):
    assert a.image_ids == b.image_ids
    assert a.masks == b.masks
    assert a.ignore == b.ignore
    for name in ("labels", "sizes"):
        first, second = getattr(a, name), getattr(b, name)
        assert (first is None) == (second is None)
        assert first is None or torch.equal(first, second)
    assert (a.boxes is None) == (b.boxes is None)
    for pair in zip(a.boxes or (), b.boxes or (), strict=True):
        assert torch.equal(*pair)


@pytest.mark.parametrize("split", [BOXES, MASKS, ProtocolSplit(("x.jpg",), torch.tensor([1]))])
def test_written_splits_read_back(split, tmp_path):
    write_split(split, tmp_path / "new")
    same(read_split(tmp_path / "new"), split)


@pytest.mark.parametrize(
    ("name", "images", "classes", "boxes", "masks"),
    [
        ("CUB/train", 5994, 200, 5994, None),
        ("CUB/val", 1000, 200, 1000, None),
        ("CUB/test", 5794, 200, 5794, None),
        ("OpenImages/train", 29819, 100, None, None),
        ("OpenImages/val", 2500, 100, None, 3854),
        ("OpenImages/test", 5000, 100, None, 7632),
    ],
)
def test_real_splits(name, images, classes, boxes, masks, shared_data, tmp_path):
    folder = shared_data / "wsol_metadata" / name
    split = read_split(folder)
    assert len(split) == images
    assert split.labels.unique().tolist() == list(range(classes))
    assert (split.boxes is None) == (boxes is None)
    if boxes:
        assert sum(map(len, split.boxes)) == boxes
        corners = torch.cat([each[:, 2:] for each in split.boxes])
        assert (corners.flip(1) < split.sizes).all()
    if masks:
        assert sum(map(len, split.masks)) == masks
        assert all(path.endswith("_ignore.png") for path in split.ignore)
    write_split(split, tmp_path)
    for file in FILES:
        assert (tmp_path / file).read_text() == (folder / file).read_text().rstrip("\n")


def test_the_first_box_of_cub(shared_data):
    split = read_split(shared_data / "wsol_metadata" / "CUB" / "test")
    assert split.boxes[0].tolist() == [[60, 27, 385, 331]]
    assert split.sizes[0].tolist() == [335, 500]
    assert scaled_boxes(split.boxes[0], (335, 500), (224, 224)).tolist() == [[26, 18, 172, 221]]


GOOD = {
    "image_ids.txt": "a.jpg\nb.jpg",
    "class_labels.txt": "a.jpg,0\nb.jpg,1",
    "image_sizes.txt": "a.jpg,50,30\nb.jpg,50,30",
    "localization.txt": "a.jpg,1,2,3,4\na.jpg,5,6,7,8\nb.jpg,0,0,9,9",
}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "image_ids.txt",
            "a.jpg\nb.jpg\na.jpg",
            r"image_ids.txt, line 3: image 'a.jpg' is listed twice, first in line 1",
        ),
        ("image_ids.txt", "a.jpg\n\nb.jpg", "image_ids.txt, line 2: empty"),
        ("image_ids.txt", "", "lists no image"),
        ("class_labels.txt", "a.jpg,0\nb.jpg,bird", r"class_labels.txt, line 2: 'b.jpg,bird' does not parse"),
        ("class_labels.txt", "a.jpg,0\nb.jpg,-1", "line 2: class -1 of 'b.jpg' is below 0"),
        ("class_labels.txt", "a.jpg,0\na.jpg,1", "line 2: image 'a.jpg' is listed twice"),
        ("class_labels.txt", "a.jpg,0", "no row for 1 of 2 images, the first is 'b.jpg'"),
        ("class_labels.txt", "a.jpg,0\nb.jpg,1\nc.jpg,1", "line 3: image 'c.jpg' is not in image_ids.txt"),
        ("class_labels.txt", "", "no row for 2 of 2 images"),
        ("image_sizes.txt", "a.jpg,50,30\nb.jpg,50", "image_sizes.txt, line 2: .* expected path,width,height"),
        ("image_sizes.txt", "a.jpg,50,30\nb.jpg,0,30", "line 2: width 0 of 'b.jpg' is below 1"),
        ("localization.txt", "a.jpg,1,2,3,4\nb.jpg,1,2,0,4", r"line 2: box 1,2,0,4 of 'b.jpg' has negative size"),
        ("localization.txt", "a.jpg,1,2,3,4\nb.jpg,1,2,3.5,4", "localization.txt, line 2: .* whole numbers"),
        ("localization.txt", "a.jpg,1,2,3,4\nb.jpg,1,2,3", "localization.txt, line 2: .* does not parse"),
        ("localization.txt", "a.jpg,1,2,3,4", "no row for 1 of 2 images"),
        ("localization.txt", "a.jpg", "line 1: 'a.jpg' does not parse, expected path,mask,ignore or path,x0,y0,x1,y1"),
        ("localization.txt", "a.jpg,m.png,i.png\na.jpg,n.png,j.png", "line 2: the ignore region of 'a.jpg' must stand"),
    ],
)
def test_bad_files(file, text, message, tmp_path):
    for name, content in (GOOD | {file: text}).items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_split(tmp_path)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image_ids.txt in .*: is this the folder of one split"):
        read_split(tmp_path)
    (tmp_path / "image_ids.txt").write_text("a.jpg")
    with pytest.raises(FileNotFoundError, match=r"no class_labels.txt"):
        read_split(tmp_path)
    (tmp_path / "class_labels.txt").write_text("a.jpg,7\n")
    assert read_split(tmp_path).boxes is None


def test_splits_that_do_not_fit_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="2 images but 1 labels"):
        write_split(replace(BOXES, labels=torch.tensor([1])), tmp_path)
    with pytest.raises(ValueError, match="boxes or masks, not both"):
        write_split(replace(BOXES, masks=MASKS.masks, ignore=MASKS.ignore), tmp_path)


@given(
    st.lists(st.integers(0, 499), min_size=4, max_size=4),
    st.tuples(st.integers(1, 600), st.integers(1, 600)),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
)
def test_scaling_equals_plain_arithmetic(box, size, frame):
    (height, width), (rows, columns) = size, frame
    x0, y0, x1, y1 = box
    expected = [int(x0 * columns / width), int(y0 * rows / height), int(x1 * columns / width), int(y1 * rows / height)]
    assert scaled_boxes(torch.tensor([box]), size, frame).tolist() == [expected]


@given(st.integers(1, 700), st.integers(1, 300))
@settings(max_examples=200)
def test_nearest_neighbours_are_opencvs(old, new):
    source = np.arange(old, dtype=np.float32)[None]
    expected = cv2.resize(source, (new, 1), interpolation=cv2.INTER_NEAREST)[0]
    assert _nearest(old, new).tolist() == expected.tolist()


def test_masks(tmp_path):
    rng = np.random.default_rng(0)
    values = {name: rng.random((13, 21)) > 0.6 for name in ("b/2_0.png", "b/2_1.png", "b/2_ignore.png", "a/1_0.png")}
    for name, mask in values.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image = Image.fromarray(mask) if name == "b/2_1.png" else Image.fromarray(mask.astype(np.uint8) * 255)
        image.save(tmp_path / name)
    mask, ignore = load_masks(MASKS, 0, tmp_path, (13, 21))
    union = values["b/2_0.png"] | values["b/2_1.png"]
    assert np.array_equal(mask, union)
    assert np.array_equal(ignore, values["b/2_ignore.png"] & ~union)
    mask, ignore = load_masks(MASKS, 1, tmp_path, (8, 30))
    expected = cv2.resize(values["a/1_0.png"].astype(np.float32), (30, 8), interpolation=cv2.INTER_NEAREST) > 0.5
    assert np.array_equal(mask, expected)
    assert not ignore.any()
    with pytest.raises(ValueError, match="has no masks"):
        load_masks(BOXES, 0, tmp_path, (8, 30))
    with pytest.raises(FileNotFoundError, match="no mask at"):
        load_masks(MASKS, 0, tmp_path / "a", (8, 30))
    (tmp_path / "a/1_0.png").write_text("no image")
    with pytest.raises(ValueError, match="does not decode"):
        load_masks(MASKS, 1, tmp_path, (8, 30))


def metadata(folder, **files):
    (folder / "m").mkdir(exist_ok=True)
    for name, content in (GOOD | {f"{name}.txt": text for name, text in files.items()}).items():
        (folder / "m" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / "m"


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((100, 60), [27, 13, 67, 32]),
        ((50, 30), [13.5, 6.5, 33.5, 16]),
        ((200, 120), [54, 26, 134, 64]),
        ((33, 20), [27 * 0.33, 13 / 3, 67 * 0.33, 32 / 3]),
    ],
)
def test_boxes_follow_photos_that_were_resized(size, box, tmp_path):
    one = {"image_ids": "a.jpg", "class_labels": "a.jpg,0", "image_sizes": "a.jpg,100,60"}
    folder = metadata(tmp_path, **one, localization="a.jpg,27,13,66,31")
    Image.new("RGB", size).save(tmp_path / "a.jpg")
    target = ProtocolImages(folder, tmp_path)[0][1]
    assert torch.allclose(target["boxes"], torch.tensor([box], dtype=torch.float32))


@pytest.mark.parametrize(("size", "hint"), [((60, 100), "height change places.*EXIF rotation"), ((100, 70), "EXIF")])
def test_photos_of_another_shape_are_refused(size, hint, tmp_path):
    one = {"image_ids": "a.jpg", "class_labels": "a.jpg,0", "image_sizes": "a.jpg,100,60"}
    folder = metadata(tmp_path, **one, localization="a.jpg,27,13,66,31")
    Image.new("RGB", size).save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=rf"image_sizes\.txt, image 'a\.jpg' states 100 x 60 pixels.*{hint}"):
        ProtocolImages(folder, tmp_path)[0]


def test_boxes_that_leave_their_image_are_refused(tmp_path):
    message = r"localization\.txt, line 3: box 0,0,9,31 of 'b.jpg' leaves its image, which has 50 x 30 .*change places"
    with pytest.raises(ValueError, match=message):
        read_split(metadata(tmp_path, localization="a.jpg,1,2,3,4\na.jpg,5,6,7,8\nb.jpg,0,0,9,31"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"image_ids": "a.jpg\n./a.jpg"}, r"image_ids\.txt: 'a\.jpg' and '\./a\.jpg' are one image"),
        ({"class_labels": "a.jpg,0\nb.jpg,99999999"}, r"class_labels\.txt: class 99999999 of 'b\.jpg' is above 999999"),
        ({"class_labels": "a.jpg,0\nb.jpg," + "9" * 30}, r"class_labels\.txt, line 2: .*whole numbers of up to 18"),
        ({"class_labels": "ä.jpg,0\nb.jpg,1".encode("cp1252")}, r"class_labels\.txt, line 1: byte 0xe4 is no UTF-8"),
        ({"image_ids": "a.jpg\nb\0.jpg"}, r"image_ids\.txt, line 2 has a byte 0"),
    ],
)
def test_files_that_would_mislead(files, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_split(metadata(tmp_path, **files))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_text_as_windows_writes_it(encoding, tmp_path):
    files = {name[:-4]: text.replace("\n", "\r\n").encode(encoding) for name, text in GOOD.items()}
    same(read_split(metadata(tmp_path, **files)), read_split(metadata(tmp_path / "m")))


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "P", "RGB", "RGBA", "LA"])
def test_masks_of_every_mode(mode, tmp_path):
    image = Image.new(mode, (4, 2))
    white = {"P": 1, "I;16": 1, "RGB": (0, 0, 1), "RGBA": (0, 0, 1, 9), "LA": (1, 9)}.get(mode, 1)
    if mode == "P":
        image.putpalette([0, 0, 0, 0, 0, 1])
    image.putpixel((1, 0), white)
    image.save(tmp_path / "a.png")
    split = ProtocolSplit(("a.jpg",), torch.tensor([0]), masks=(("a.png",),), ignore=("",))
    assert load_masks(split, 0, tmp_path, (2, 4))[0].nonzero().tolist() == [[0, 1]]


def test_a_mask_without_end_is_named(tmp_path, monkeypatch):
    Image.new("1", (400, 300)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    split = ProtocolSplit(("a.jpg",), torch.tensor([0]), masks=(("a.png",),), ignore=("",))
    with pytest.raises(ValueError, match=r"mask .*a\.png does not decode: Image size \(120000 pixels\) exceeds"):
        load_masks(split, 0, tmp_path, (2, 4))
