"""Every reader with every field of its format removed, doubled, emptied or replaced.

The outcome has to be what a plain, strict reading of the changed files says; where that fails, what the unchanged files
say (the change does no harm); or an error in one line that names a file of the data set.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import layout_trees as trees
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.numpy import save_file
from scipy.io import loadmat, savemat

from wsolnb.data.readers.aircraft import Aircraft
from wsolnb.data.readers.coco import CocoScenes
from wsolnb.data.readers.cub import CubBirds
from wsolnb.data.readers.dogs import StanfordDogs
from wsolnb.data.readers.imagenet import ImageNet
from wsolnb.data.readers.open import ProtocolImages
from wsolnb.data.readers.voc import VocScenes
from wsolnb.localization.evaluate import SavedMethod, evaluate_maps

W, H = trees.WIDTH, trees.HEIGHT
Outcome = list[Any]

NUMBERS = ("-1", "-7", "0", "-0.0", "1", "2", "7.5", "nan", "-inf", "1e400", "9" * 30, "9" * 5000, "1,5")
WORDS = ("", " ", "x", "é", "猫", "\0", "\ufeff1", "NaN", "null", "true", "a/b", "../x", "None")
TEXTS = st.sampled_from(NUMBERS + WORDS) | st.text(max_size=6) | st.integers(-60, 60).map(str)
ODD: Any = (None, True, False, 7.5, -0.0, np.nan, np.inf, 10**30, 10**400, [], {}, [1, 2], [[]], {"a": 1})
VALUES = st.sampled_from(ODD + NUMBERS + WORDS) | st.integers(-60, 60)
BOUNDED = settings(
    max_examples=200, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def judge(read: Callable[[], Outcome], plain: Callable[[], Outcome], good: Outcome, names: list[str]) -> None:
    try:
        outcome = read()
    except (ValueError, OSError) as error:
        message = str(error)
        assert "\n" not in message, message
        assert any(name in message for name in names), message
        return
    try:
        expected = plain()
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError, ElementTree.ParseError):
        expected = good
    assert outcome in (expected, good), f"{outcome} is neither {expected} nor {good}"


@cache
def unchanged(kind: str, root: Path) -> Outcome:
    """What the files say before anything is changed."""
    return READERS[kind](root)


class Changed:
    """A file with other content for the length of a block."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data, self.before = path, data, path.read_bytes()

    def __enter__(self) -> None:
        self.path.write_bytes(self.data)

    def __exit__(self, *_: object) -> None:
        self.path.write_bytes(self.before)


def photos_of(photos: Any) -> Outcome:
    found = [(photos.name(k), photos[k][1]) for k in range(len(photos))]
    return [photos.classes, [(name, int(t["labels"]), np.round(t["boxes"].tolist(), 3).tolist()) for name, t in found]]


def scenes_of(scenes: Any) -> Outcome:
    rows = []
    for k, file in enumerate(scenes.files):
        target = scenes[k][1]
        boxes = np.round(target["boxes"].tolist(), 3).tolist()
        rows.append((file.name, boxes, [scenes.classes[i] for i in target["labels"]], target["crowd"].tolist()))
    return rows


def inside(box: list[float], slack: float = 2) -> list[float]:
    x0, y0, x1, y1 = box
    if not (-slack <= x0 <= x1 <= W + slack and -slack <= y0 <= y1 <= H + slack):
        raise ValueError
    return np.round(np.clip(box, 0, [W, H, W, H]).astype(np.float32), 3).tolist()


# --- text files: a word, a line or the whole file -------------------------------------------------------------------


@st.composite
def changed_text(draw: st.DrawFn, files: dict[str, str], separator: str) -> tuple[str, bytes]:
    name = draw(st.sampled_from(sorted(files)))
    lines = files[name].splitlines()
    k = draw(st.integers(0, len(lines) - 1))
    words = lines[k].split(separator)
    j = draw(st.integers(0, len(words) - 1))
    kinds = ("no word", "word twice", "no line", "line twice", "negated", "empty", "file twice")
    kind = draw(st.sampled_from(("word",) * 4 + kinds + ("bom", "utf-16", "cp1252", "crlf")))
    if kind == "word":
        words[j] = draw(TEXTS)
    elif kind == "negated":
        words[j] = f"-{words[j]}"
    elif kind == "no word":
        del words[j]
    elif kind == "word twice":
        words.insert(j, words[j])
    lines[k] = separator.join(words)
    lines[k : k + 1] = {"no line": [], "line twice": [lines[k]] * 2}.get(kind, [lines[k]])
    text = {"empty": ""}.get(kind, "\n".join(lines * (2 if kind == "file twice" else 1)) + "\n")
    if kind == "cp1252":
        return name, text.encode() + b"\xe9\n"
    encoding = {"bom": "utf-8-sig", "utf-16": "utf-16"}.get(kind, "utf-8")
    text = text.replace("\n", "\r\n") if kind == "crlf" else text
    return name, text.encode(encoding, "replace")


def table(path: Path, words: int) -> dict[str, list[str]]:
    rows = [line.split(maxsplit=words) for line in path.read_text().splitlines()]
    if any(len(row) != 1 + words for row in rows) or len({row[0] for row in rows}) < len(rows):
        raise ValueError
    return {row[0]: row[1:] for row in rows}


@pytest.fixture(scope="module")
def cub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.cub(tmp_path_factory.mktemp("cub"), per_class=2, segmentations=False)


def plain_cub(root: Path) -> Outcome:
    base = root / "CUB_200_2011"
    names, classes = table(base / "images.txt", 1), table(base / "classes.txt", 1)
    labels, training = table(base / "image_class_labels.txt", 1), table(base / "train_test_split.txt", 1)
    boxes = {key: [float(x) for x in row] for key, row in table(base / "bounding_boxes.txt", 4).items()}
    order = list(classes)
    if not names.keys() == labels.keys() == training.keys() == boxes.keys() or len(order) != 2:
        raise ValueError
    rows = []
    for key, (name,) in names.items():
        int(training[key][0])
        x, y, w, h = boxes[key]
        rows.append((name, order.index(labels[key][0]), [inside([x, y, x + w + 1, y + h + 1])]))
    return [[name.split(".", 1)[-1].replace("_", " ") for (name,) in classes.values()], rows]


@given(data=st.data())
@BOUNDED
def test_cub(data: st.DataObject, cub: Path) -> None:
    base = cub / "CUB_200_2011"
    names = ["images.txt", "classes.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt"]
    good = unchanged("cub", cub)
    name, content = data.draw(changed_text({n: (base / n).read_text() for n in names}, " "))
    with Changed(base / name, content):
        judge(lambda: READERS["cub"](cub), lambda: plain_cub(cub), good, names)


@pytest.fixture(scope="module")
def aircraft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.aircraft(tmp_path_factory.mktemp("aircraft"), per_class=1)


def plain_aircraft(root: Path) -> Outcome:
    data = root / "fgvc-aircraft-2013b" / "data"
    classes = (data / "variants.txt").read_text().split("\n")[:-1]
    labels, boxes = table(data / "images_variant_train.txt", 1), table(data / "images_box.txt", 4)
    if len(set(classes)) < len(classes):
        raise ValueError
    rows = []
    for key, (name,) in labels.items():
        x0, y0, x1, y1 = (float(x) for x in boxes[key])
        if y1 > H + 20:
            raise ValueError
        rows.append((f"{key}.jpg", classes.index(name), [inside([x0 - 1, y0 - 1, x1, min(y1, H)])]))
    return [classes, rows]


@given(data=st.data())
@BOUNDED
def test_aircraft(data: st.DataObject, aircraft: Path) -> None:
    base = aircraft / "fgvc-aircraft-2013b" / "data"
    names = ["variants.txt", "images_variant_train.txt", "images_box.txt"]
    good = unchanged("aircraft", aircraft)
    name, content = data.draw(changed_text({n: (base / n).read_text() for n in names}, " "))
    with Changed(base / name, content):
        judge(lambda: READERS["aircraft"](aircraft), lambda: plain_aircraft(aircraft), good, names)


PROTOCOL = {
    "image_ids.txt": "a.jpg\nb/b.jpg\n",
    "class_labels.txt": "a.jpg,0\nb/b.jpg,1\n",
    "image_sizes.txt": f"a.jpg,{W},{H}\nb/b.jpg,{2 * W},{2 * H}\n",
    "localization.txt": "a.jpg,4,6,30,20\na.jpg,0,0,9,9\nb/b.jpg,8,6,30,20\n",
}


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("protocol")
    (root / "split").mkdir()
    for name, text in PROTOCOL.items():
        (root / "split" / name).write_text(text)
    for name in ("a.jpg", "b/b.jpg"):
        trees.photo(root / name)
    return root


def plain_protocol(root: Path) -> Outcome:
    rows = {
        name: [line.rsplit(",", PROTOCOL[name].splitlines()[0].count(",")) for line in text.split("\n")[:-1]]
        for name, text in ((name, (root / "split" / name).read_text()) for name in PROTOCOL)
    }
    ids = [row[0] for row in rows["image_ids.txt"]]
    labels, sizes = (
        {row[0]: [int(x) for x in row[1:]] for row in rows[n]} for n in ("class_labels.txt", "image_sizes.txt")
    )
    found = []
    for name in ids:
        boxes = [[int(x) for x in row[1:]] for row in rows["localization.txt"] if row[0] == name]
        w, h = sizes[name] if sizes else (W, H)
        s = W / w
        if not (boxes or not rows["localization.txt"]) or abs(h * s - H) > 1:
            raise ValueError
        boxes = [inside([x0 * s, y0 * s, min(x1 + 1, w) * s, min(y1 + 1, h) * s], 0) for x0, y0, x1, y1 in boxes]
        found.append((name, labels[name][0], boxes))
    return [[str(k) for k in range(1 + max(row[1] for row in found))], found]


@given(data=st.data())
@BOUNDED
def test_protocol(data: st.DataObject, protocol: Path) -> None:
    good = unchanged("protocol", protocol)
    name, content = data.draw(changed_text(PROTOCOL, ","))
    with Changed(protocol / "split" / name, content):
        judge(lambda: READERS["protocol"](protocol), lambda: plain_protocol(protocol), good, list(PROTOCOL))


# --- XML: an element, or the whole file ------------------------------------------------------------------------------


@st.composite
def changed_xml(draw: st.DrawFn, data: bytes) -> bytes:
    root = ElementTree.fromstring(data)
    above = {child: parent for parent in root.iter() for child in parent}
    node = draw(st.sampled_from(list(above)))
    kinds = ("removed", "twice", "negated", "emptied", "bom", "utf-16", "gb2312", "cut", "namespace")
    kind = draw(st.sampled_from(("text",) * 3 + kinds))
    if kind == "text":
        node.text = "".join(c for c in draw(TEXTS) if c >= " " and not "\ud800" <= c <= "\udfff" and c < "\ufffe")
    elif kind == "removed":
        above[node].remove(node)
    elif kind == "twice":
        above[node].append(node)
    elif kind == "negated":
        node.text = f"-{node.text}"
    elif kind == "emptied":
        node.clear()
    elif kind == "namespace":
        root.set("xmlns", "http://example.org/voc")
    text = ElementTree.tostring(root, encoding="unicode")
    if kind == "cut":
        return text[: draw(st.integers(0, len(text) - 1))].encode()
    if kind in ("utf-16", "gb2312"):
        return f'<?xml version="1.0" encoding="{kind}"?>{text}'.encode(kind)
    return text.encode({"bom": "utf-8-sig"}.get(kind, "utf-8"))


def plain_objects(path: Path) -> Iterator[tuple[str, list[float], bool]]:
    root = ElementTree.parse(path).getroot()
    if root.tag != "annotation":
        raise ValueError
    for node in root.iter("object"):
        box = [float(node.find("bndbox").find(k).text) for k in ("xmin", "ymin", "xmax", "ymax")]  # type: ignore[union-attr,arg-type]
        yield (node.findtext("name") or "").strip(), box, {"0": False, "1": True}[node.findtext("difficult") or "0"]


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.voc(tmp_path_factory.mktemp("voc")) / "VOCdevkit" / "VOC2012"


def plain_voc(folder: Path, stems: Iterable[str]) -> Outcome:
    rows = []
    for stem in stems:
        objects = list(plain_objects(folder / "Annotations" / f"{stem}.xml"))
        if any(not name for name, _, _ in objects):
            raise ValueError
        boxes = [inside([x0 - 1, y0 - 1, x1, y1]) for _, (x0, y0, x1, y1), _ in objects]
        rows.append((f"{stem}.jpg", boxes, [name for name, _, _ in objects], [crowd for _, _, crowd in objects]))
    return rows


@given(data=st.data())
@BOUNDED
def test_voc(data: st.DataObject, voc: Path) -> None:
    stems = (voc / "ImageSets/Main/train.txt").read_text().split()
    good, file = unchanged("voc", voc), voc / "Annotations" / f"{stems[1]}.xml"
    if data.draw(st.integers(0, 3)) == 0:
        name, content = data.draw(changed_text({"train.txt": "\n".join(stems) + "\n"}, " "))
        change = Changed(voc / "ImageSets/Main" / name, content)
    else:
        change = Changed(file, data.draw(changed_xml(file.read_bytes())))

    def plain() -> Outcome:
        return plain_voc(voc, filter(None, (voc / "ImageSets/Main/train.txt").read_text().split("\n")))

    with change:
        judge(lambda: READERS["voc"](voc), plain, good, [file.stem, "train.txt"])


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.imagenet(tmp_path_factory.mktemp("imagenet"), layout="sorted", devkit=False)


@given(data=st.data())
@BOUNDED
def test_imagenet(data: st.DataObject, imagenet: Path) -> None:
    good = unchanged("imagenet", imagenet)
    file = imagenet / "Annotations" / "CLS-LOC" / "val" / "ILSVRC2012_val_00000002.xml"
    place = [name for name, _, _ in good[1]].index(next(n for n, _, _ in good[1] if n.endswith("00000002.JPEG")))

    def plain() -> Outcome:
        boxes = []
        for _, (x0, y0, x1, y1), _ in plain_objects(file):
            if not (-W <= x0 <= 2 * W and -W <= x1 < 2 * W and -H <= y0 <= 2 * H and -H <= y1 < 2 * H):
                raise ValueError
            x0, y0, x1, y1 = np.clip([x0, y0, x1 + 1, y1 + 1], 0, [W, H, W, H]).tolist()
            boxes += [np.round(np.float32([x0, y0, x1, y1]), 3).tolist()] if x1 > x0 and y1 > y0 else []
        name, label, _ = good[1][place]
        return [good[0], [*good[1][:place], (name, label, boxes), *good[1][place + 1 :]]]

    with Changed(file, data.draw(changed_xml(file.read_bytes()))):
        judge(lambda: READERS["imagenet"](imagenet), plain, good, [file.name])


# --- JSON, MATLAB's lists, and maps ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.coco(tmp_path_factory.mktemp("coco"), images=2)


def plain_coco(path: Path) -> Outcome:
    content = json.loads(path.read_bytes())
    names = {row["id"]: row["name"] for row in content["categories"]}
    if len(set(names.values())) < len(content["categories"]) or not all(type(key) is int for key in names):
        raise ValueError
    rows = []
    for image in content["images"]:
        mine = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        boxes = [[float(x) for x in a["bbox"]] for a in mine]
        boxes = [inside([x, y, x + w, y + h]) for x, y, w, h in boxes]
        crowd = [{0: False, 1: True, "0": False, "1": True, None: False}[a.get("iscrowd")] for a in mine]
        rows.append((image["file_name"], boxes, [str(names[a["category_id"]]) for a in mine], crowd))
    return rows


@st.composite
def changed_json(draw: st.DrawFn, content: Any) -> bytes:
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(content)
    parent, key = draw(st.sampled_from(places))
    kind = draw(st.sampled_from(["value", "value", "value", "value", "removed", "twice", "negated", "cut", "utf-16"]))
    if kind == "value":
        parent[key] = draw(VALUES)
    elif kind == "removed":
        del parent[key]
    elif kind == "twice" and isinstance(parent, list):
        parent.insert(key, parent[key])
    elif kind == "negated" and isinstance(parent[key], int | float):
        parent[key] = -parent[key]
    try:
        text = json.dumps(content)
    except ValueError:  # an int of more digits than Python writes
        text = "[" + "9" * 5000 + "]"
    return {"cut": text[: len(text) // 2].encode(), "utf-16": text.encode("utf-16")}.get(kind, text.encode())


@pytest.mark.parametrize("masks", [False, True])
@given(data=st.data())
@BOUNDED
def test_coco(data: st.DataObject, coco: Path, masks: bool) -> None:
    path = coco / "annotations" / "instances_train2017.json"
    kind = "coco with masks" if masks else "coco"
    good = unchanged(kind, coco)
    with Changed(path, data.draw(changed_json(json.loads(path.read_bytes())))):
        judge(
            lambda: READERS[kind](coco),
            lambda: plain_coco(path),
            good,
            [path.name, "000000000001.jpg", "000000000002.jpg"],
        )


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.dogs(tmp_path_factory.mktemp("dogs"), per_class=2)


@given(data=st.data())
@BOUNDED
def test_dogs(data: st.DataObject, dogs: Path) -> None:
    path, good = dogs / "test_list.mat", unchanged("dogs", dogs)
    content = {key: value for key, value in loadmat(path).items() if not key.startswith("__")}
    key = data.draw(st.sampled_from(sorted(content)))
    kind = data.draw(st.sampled_from(["value", "value", "removed", "twice", "negated", "emptied", "cut"]))
    value: Any = content.pop(key)
    whole = path.read_bytes()
    if kind == "value":
        new = data.draw(TEXTS.filter(lambda text: text < "\ud800") | st.floats() | st.integers(0, 300))
        value = value.astype(object)
        value[data.draw(st.integers(0, len(value) - 1)), 0] = new
        content[key] = value
    elif kind != "removed":
        changes = {"twice": np.concatenate([value, value]), "emptied": value[:0]}
        content[key] = -value.astype(float) if kind == "negated" and key == "labels" else changes.get(kind, value)
    changed = dogs / "changed.mat"
    savemat(changed, content)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]  # of changed bytes, some make SciPy crash
    with Changed(path, cut if kind == "cut" else changed.read_bytes()):
        judge(lambda: READERS["dogs"](dogs), lambda: good, good, [path.name, "Chihuahua_0", "Annotation"])


@pytest.fixture(scope="module")
def maps(protocol: Path) -> Path:
    values = np.zeros((64, 70), np.float32)
    values[20:40, 10:50] = 1
    save_file({"a.jpg": values, "b/b.jpg": values}, protocol / "maps.safetensors")
    for name in ("a.jpg", "b/b.jpg"):
        (protocol / "maps" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(protocol / "maps" / f"{name}.npy", values)
    return protocol


DTYPES = ("<f4", "<f8", ">f4", "<f2", "|u1", "<i8", "|O", "<U4", "|b1", "c16", "F8_E4M3", "F8_E5M2", "BF16", "F32", "")
SHAPES = ("(64, 70)", "(70, 64)", "()", "(0, 70)", "(64, 0)", "(10000000000000, 10)", "(-1, 70)", "(1, 64, 70)")
SHAPES += ("nan", "'x'", "[64,70]", "[0,70]", "[99999999,99999999]")


@given(data=st.data(), kind=st.sampled_from(["npy", "safetensors"]))
@BOUNDED
def test_saved_maps(data: st.DataObject, kind: str, maps: Path) -> None:
    path = maps / ("maps.safetensors" if kind == "safetensors" else "maps/a.jpg.npy")
    good, whole = unchanged(kind, maps), path.read_bytes()
    words = [word for word in (b"<f4", b"(64, 70)", b"F32", b"[64,70]", b"False", b"a.jpg") if word in whole[:400]]
    at = data.draw(st.integers(0, 300))
    word = data.draw(st.sampled_from(words))
    new = data.draw(st.sampled_from(DTYPES + SHAPES)).encode()
    new += b" " * max(0, len(word) - len(new))
    changed = data.draw(
        st.sampled_from(
            [
                whole[:at],
                whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :],
                whole.replace(word, new, 1)[: len(whole)],
                whole.replace(word, new, 1),
            ]
        )
    )

    with Changed(path, changed):
        judge(lambda: READERS[kind](maps), lambda: READERS[kind](maps), good, ["maps", "a.jpg"])


READERS: dict[str, Callable[[Path], Outcome]] = {
    "cub": lambda root: photos_of(CubBirds(root, "all")),
    "aircraft": lambda root: photos_of(Aircraft(root, "train")),
    "protocol": lambda root: photos_of(ProtocolImages(root / "split", root)),
    "voc": lambda root: scenes_of(VocScenes(root, image_set=root / "ImageSets/Main/train.txt")),
    "imagenet": lambda root: photos_of(ImageNet(root, "val")),
    "coco": lambda root: scenes_of(coco_scenes(root, masks=False)),
    "coco with masks": lambda root: scenes_of(coco_scenes(root, masks=True)),
    "dogs": lambda root: photos_of(StanfordDogs(root, "test")),
    "npy": lambda root: numbers_of(root, "maps"),
    "safetensors": lambda root: numbers_of(root, "maps.safetensors"),
}


def numbers_of(root: Path, maps: str) -> Outcome:
    methods = {"cam": SavedMethod(root / maps)}
    return [evaluate_maps(methods, root / "split", ["maxboxaccv2"], thresholds=3)[0]["numbers"]]


def coco_scenes(root: Path, *, masks: bool) -> CocoScenes:
    return CocoScenes(root / "train2017", root / "annotations" / "instances_train2017.json", masks=masks)
