"""`wsolnb localize` with a classifier: photos in files, overlays and COCO files out, and nothing overwritten."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from filelock import FileLock
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from wsolnb.cli.app import app
from wsolnb.cli.localize import Format, Method, choice
from wsolnb.inference.export import FORMATS
from wsolnb.inference.localize import RULES
from wsolnb.inference.localizer import classifier_localizer
from wsolnb.inference.photos import Localized, localize_photos
from wsolnb.models.pretrained import PretrainedClassifier, pretrained_classifier
from wsolnb.plots.images import overlay

COLUMNS = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
ORIENTATION = 0x0112


class Red(torch.nn.Module):
    """Class 0 is red, class 1 green, class 2 blue: pools 16 x 16 pixels to a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.pool, self.fc = torch.nn.AvgPool2d(16), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Linear(3, 3)
        self.fc.weight = torch.nn.Parameter(2 * torch.eye(3) - 1)
        self.fc.bias = torch.nn.Parameter(torch.zeros(3))
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.fc(self.pool(self.cells(images)).flatten(1))
        return output


def localized(paths: list, out: Path, model: PretrainedClassifier, *, batch_size: int = 8, **options: Any) -> Localized:
    """Localize with a classifier, read as the options say that are not those of `localize_photos`."""
    mine = {name: options.pop(name) for name in ("classes", "by_folder", "formats", "save_maps") if name in options}
    return localize_photos(paths, out, classifier_localizer(model, **options), batch_size=batch_size, **mine)


def coco(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "coco.json").read_text())


@pytest.fixture
def red() -> PretrainedClassifier:
    return PretrainedClassifier(Red(), 64, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), ["red", "green", "blue"])


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Black photos of several sizes: a red block in the first two, a green one in the last; one turned by EXIF."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    wide, tall = Image.new("RGB", (256, 128)), Image.new("RGB", (64, 128))
    wide.paste((255, 0, 0), (128, 64, 256, 128))
    tall.paste((0, 255, 0), (0, 0, 64, 32))
    wide.save(folder / "a.png")
    sideways = wide.transpose(Image.Transpose.ROTATE_90)  # as a camera held upright stores it
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    sideways.save(folder / "more" / "a.png", exif=exif)
    tall.save(folder / "b.png")
    return [folder / "a.png", folder / "more" / "a.png", folder / "b.png"]


@pytest.fixture
def wsolnb() -> CliRunner:
    return CliRunner(env=COLUMNS)


def test_boxes_are_in_pixels_of_the_photo(red: PretrainedClassifier, photos: list[Path], tmp_path: Path) -> None:
    done = localized(photos, tmp_path / "out", red, rule=RULES["dcm"], batch_size=2)
    assert (done.photos, done.boxes, done.empty, done.unread) == (3, 3, 0, {})
    results = coco(tmp_path / "out")["annotations"]
    assert [each["bbox"] for each in results] == [[128, 64, 128, 64], [128, 64, 128, 64], [0, 0, 64, 32]]
    assert [(each["image_id"], each["category_id"]) for each in results] == [(1, 1), (2, 1), (3, 2)]
    logits = torch.tensor([0.25, -0.25, -0.25])
    assert results[0]["score"] == pytest.approx(float(logits.softmax(0)[0]), abs=1e-4)


def test_classes_without_a_box_are_counted_and_left_out(
    red: PretrainedClassifier, photos: list[Path], tmp_path: Path
) -> None:
    done = localized(photos[:1], tmp_path / "out", red, classes=[2, 0])
    assert (done.boxes, done.empty) == (1, 1)
    with Image.open(tmp_path / "out" / "overlays" / "a.png") as picture:
        assert picture.size == (2 * 256 + 4, 128 + 26)


def test_overlays_of_photos_with_one_name_do_not_meet(
    red: PretrainedClassifier, photos: list[Path], tmp_path: Path
) -> None:
    localized(photos, tmp_path / "out", red)
    assert sorted(path.name for path in (tmp_path / "out" / "overlays").iterdir()) == ["a-2.png", "a.png", "b.png"]


def test_nothing_is_overwritten(red: PretrainedClassifier, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    localized(photos[:1], tmp_path / "empty", red)
    before = {path: path.read_bytes() for path in (tmp_path / "empty").rglob("*") if path.is_file()}
    for out in (tmp_path / "empty", photos[0]):
        with pytest.raises(FileExistsError, match="nothing is overwritten, give a new folder"):
            localized(photos, out, red)
    assert before == {path: path.read_bytes() for path in (tmp_path / "empty").rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"paths": []}, ValueError, "no photos given"),
        ({"paths": ["gone.jpg"]}, FileNotFoundError, r"no photo or folder gone\.jpg"),
        ({"paths": [Path(__file__).parent]}, ValueError, r"cli has no photo \(\.jpg, .*\), nor has any folder in it"),
        ({"paths": [__file__]}, ValueError, r"test_localize_cli\.py cannot be read as a photo"),
        ({"names": ["red", "green"]}, ValueError, "2 names for a network with 3 classes"),
        ({"classes": [3]}, ValueError, "class 3 is not one of the model's 3 classes"),
        ({"classes": 4}, ValueError, "the model has 3 classes"),
        ({"head": "pool"}, ValueError, "the head 'pool' is no linear layer"),
        ({"method": "tap"}, ValueError, "no readout 'tap'"),
        ({"rule": "cma"}, ValueError, "no box rule 'cma'"),
    ],
)
def test_mistakes_leave_no_folder(
    red: PretrainedClassifier, photos: list[Path], tmp_path: Path, change: dict, error: type[Exception], message: str
) -> None:
    paths = change.pop("paths", photos)
    with pytest.raises(error, match=message):
        localized(paths, tmp_path / "out", red, **change)
    assert not (tmp_path / "out").exists()


def test_a_broken_photo_is_reported_and_the_others_are_done(
    red: PretrainedClassifier, photos: list[Path], tmp_path: Path
) -> None:
    Image.effect_noise((200, 100), 50).convert("RGB").save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:2000])
    done = localized([photos[0], tmp_path / "cut.jpg", photos[2]], tmp_path / "out", red)
    assert done.photos == 2
    assert list(done.unread) == ["cut.jpg"]
    assert "truncated" in done.unread["cut.jpg"]
    images = coco(tmp_path / "out")["images"]
    assert [image["file_name"] for image in images] == ["photos/a.png", "photos/b.png"]


def test_a_photo_that_is_far_longer_than_wide_is_unread_and_the_others_are_done(
    red: PretrainedClassifier, photos: list[Path], tmp_path: Path
) -> None:
    Image.new("RGB", (2000, 1)).save(tmp_path / "line.png")
    Image.new("RGB", (1024, 64), "red").save(tmp_path / "panorama.png")  # 16 times as long as wide: still read
    done = localized([tmp_path / "line.png", photos[0], tmp_path / "panorama.png"], tmp_path / "out", red)
    assert done.photos == 2
    assert list(done.unread) == ["line.png"]
    assert done.unread["line.png"] == (
        "2000 x 1 pixels: with 64 on its shorter side it would have 128000 on the longer one, at most 1024 are read: "
        "cut it"
    )
    red = replace(red, square=True)  # a network of one shape sees it squeezed
    assert localized([tmp_path / "line.png"], tmp_path / "square", red).unread == {}


def test_a_photo_of_too_many_pixels_is_unread_too(
    red: PretrainedClassifier, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15_000)  # an error from twice as many on
    done = localized([photos[0], photos[2]], tmp_path / "out", red)
    assert "exceeds limit of 30000 pixels" in done.unread["a.png"]
    assert done.photos == 1


class Dying(Red):
    """Fails at its third pass over photos, as a full memory or Ctrl-C does; the blank image is passed twice before."""

    passes = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        if self.passes == 5:
            raise KeyboardInterrupt
        return super().forward(images)


def test_what_was_found_is_kept_and_the_same_call_goes_on(
    red: PretrainedClassifier, photos: list[Path], tmp_path: Path
) -> None:
    whole = localized(photos, tmp_path / "whole", red, batch_size=1)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        localized(photos, out, replace(red, net=Dying()), batch_size=1)
    lines = (out / "unfinished.jsonl").read_text().splitlines()
    assert [json.loads(line)["photo"] for line in lines[1:]] == ["a.png", "more/a.png"]
    with (out / "unfinished.jsonl").open("a") as file:
        file.write('{"photo": "cu')  # cut by a kill
    (out / "overlays" / "b.png.7.partial").touch()
    for other in ({"classes": 2}, {"rule": "dcm"}, {"names": ["a", "b", "c"]}, {"paths": photos[:2]}):
        with pytest.raises(FileExistsError, match="give it the same photos, weights and settings to go on"):
            localized(**{"paths": photos, "out": out, "model": red, **other})
    before = {path: path.stat().st_mtime_ns for path in (out / "overlays").glob("a*.png")}
    done = localized(photos, out, red, batch_size=2)
    assert (done.photos, done.boxes, done.empty) == (whole.photos, whole.boxes, whole.empty)
    assert coco(out) == coco(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sorted(path.name for path in out.rglob("*")) == sorted(path.name for path in whole.folder.rglob("*"))


def test_two_do_not_work_in_one_folder(red: PretrainedClassifier, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(BlockingIOError, match="another localize works in"):
        localized(photos, tmp_path / "out", red)


def test_an_overlay_shows_where_the_map_is_high_and_the_box() -> None:
    maps = torch.zeros(2, 2, 4)
    maps[0, 1, 3], maps[1] = 1.0, -1.0
    boxes = torch.tensor([[150.0, 50, 200, 100], [torch.nan] * 4])
    picture = overlay(Image.new("RGB", (200, 100), (100, 100, 100)), boxes, maps, ["a name 0.90", "another 0.10"])
    assert picture.size == (404, 126)
    hot, cold, none = picture.getpixel((190, 110)), picture.getpixel((20, 40)), picture.getpixel((400, 120))
    assert sum(hot) > 300 > 170 > sum(cold)
    assert cold == none
    assert picture.getpixel((152, 100)) == (255, 255, 255)  # the outline, 2 pixels in from the box's left edge
    long = overlay(Image.new("RGB", (800, 100)), boxes[:1], maps[:1], ["x" * 200 + " 0.90"])
    assert long.size == (360, 71)


def test_classes_are_meant_as_written() -> None:
    names = ["cat", "dog", "Dog"]
    assert choice("all", names) == "all"
    assert choice(" 3 ", names) == 3
    assert choice("1,", names) == [1]
    assert choice("cat,2", names) == [0, 2]
    assert choice("dog,", names) == [1]
    with pytest.raises(ValueError, match="classes 1, 2 are all named 'DOG'"):
        choice("DOG", names)
    with pytest.raises(ValueError, match="no class is named 'cow'; there are cat, dog, Dog"):
        choice("cow,cat", names)


def test_methods_are_those_of_the_library() -> None:
    assert list(Method) == list(RULES)
    assert list(Format) == list(FORMATS)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights for a network with seven classes."""
    path = tmp_path_factory.mktemp("weights") / "seven.safetensors"
    save_file(torchvision.models.shufflenet_v2_x0_5(num_classes=7).state_dict(), path)
    return path


def test_a_file_of_weights_brings_its_number_of_classes(weights: Path) -> None:
    net = pretrained_classifier("shufflenet_v2_x0_5", str(weights))
    assert net.net.fc.out_features == 7
    assert (net.size, tuple(net.mean), net.names, net.square) == (224, (0.485, 0.456, 0.406), None, False)
    assert not net.net.training
    with pytest.raises(ValueError, match=r"do not fit resnet18: \d+ missing keys: conv1.weight"):
        pretrained_classifier("resnet18", str(weights))
    with pytest.raises(FileNotFoundError, match="no weights at"):
        pretrained_classifier("resnet18", "gone/x.pth")
    with pytest.raises(ValueError, match="resnet18 has no weights 'BEST'; known: IMAGENET1K_V1"):
        pretrained_classifier("resnet18", "BEST")
    with pytest.raises(ValueError, match="convnext_atto has no weights 'best'; known: "):
        pretrained_classifier("convnext_atto", "best")


def test_weights_for_a_network_of_timm(tmp_path: Path) -> None:
    import timm

    torch.save(timm.create_model("resnet10t", num_classes=4).state_dict(), tmp_path / "four.pth")
    net = pretrained_classifier("timm/resnet10t", str(tmp_path / "four.pth"))
    assert net.net.get_classifier().out_features == 4
    assert net.size == 176


def test_from_the_command_line(wsolnb: CliRunner, weights: Path, photos: list[Path], tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join("abcdefg") + "\n")
    options = ["--model", "shufflenet_v2_x0_5", "--weights", str(weights), "-o", str(tmp_path / "out")]
    options += ["--names", str(names), "--threshold", "0.5", "--method", "nwc+pas", "--device", "cpu"]
    given = ["localize", *map(str, photos), *options, "--classes"]
    result = wsolnb.invoke(app, [*given, "b, c"])
    assert result.exit_code == 0, result.output
    assert " boxes in 3 photos, " in result.output
    assert f"overlays      {tmp_path / 'out' / 'overlays'}" in result.output
    found = coco(tmp_path / "out")["annotations"]
    assert {each["category_id"] for each in found} <= {2, 3}
    options[options.index("-o") + 1] = str(tmp_path / "other")
    nowhere = wsolnb.invoke(app, ["localize", str(photos[0]), *options, "--device", "abacus"])
    assert nowhere.exit_code == 2
    assert nowhere.output.startswith("error: no device 'abacus' here: ")
    again = wsolnb.invoke(app, [*given, "1"])
    assert again.exit_code == 2
    assert again.output.startswith("error: ")
    assert "nothing is overwritten" in again.output
    assert again.output.count("\n") == 1


def test_a_broken_photo_makes_the_command_fail_after_the_others(
    wsolnb: CliRunner, weights: Path, photos: list[Path], tmp_path: Path
) -> None:
    data = photos[0].read_bytes()
    photos[0].write_bytes(data[: len(data) // 2])
    options = ["--model", "shufflenet_v2_x0_5", "--weights", str(weights), "-o", str(tmp_path / "out")]
    result = wsolnb.invoke(app, ["localize", *map(str, photos), *options])
    assert result.exit_code == 1
    assert "in 2 photos" in result.output
    assert f"not read: {photos[0]}: " in result.output


def test_no_box_is_said_and_a_file_of_names_may_begin_with_a_byte_order_mark(
    wsolnb: CliRunner, weights: Path, photos: list[Path], tmp_path: Path
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join("abcdefg"), encoding="utf-8-sig")
    options = ["--model", "shufflenet_v2_x0_5", "--weights", str(weights), "--names", str(names)]
    result = wsolnb.invoke(app, ["localize", str(photos[0]), *options, "-o", str(tmp_path / "out"), "--threshold", "1"])
    assert result.exit_code == 0, result.output
    assert [each["name"] for each in coco(tmp_path / "out")["categories"]] == [*"abcdefg"]
    assert coco(tmp_path / "out")["annotations"] == []
    assert "0 boxes in 1 photos, 1 classes without a box" in result.output
    names.write_bytes("Bär\n".encode("cp1252"))
    wrong = wsolnb.invoke(app, ["localize", str(photos[0]), *options, "-o", str(tmp_path / "other")])
    assert wrong.exit_code == 2
    assert f"{names}, line 1: byte 0xe4 is no UTF-8" in wrong.output.replace("\n", " ")


def test_the_command_line_is_described_without_torch() -> None:
    code = "import sys, wsolnb.cli.localize; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_photo_that_is_given_by_several_paths_counts_once(
    red: PretrainedClassifier, photos: list[Path], tmp_path: Path
) -> None:
    link = tmp_path / "link.png"
    link.symlink_to(photos[0])
    other = photos[0].parent / "more" / ".." / photos[0].name
    done = localized([photos[0], photos[0], other, link, photos[2]], tmp_path / "out", red)
    assert done.photos == 2
    assert done.files.repeated == {str(path): str(photos[0]) for path in (photos[0], other, link)}


def test_16_bit_photos_show_what_8_bit_photos_show(red: PretrainedClassifier, tmp_path: Path) -> None:
    grey = np.zeros((128, 256), np.uint8)
    grey[64:, 128:] = 200
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    localized([tmp_path / "8.png", tmp_path / "16.png"], tmp_path / "out", red)
    first, second = (np.asarray(Image.open(tmp_path / "out" / "overlays" / f"{k}.png")) for k in (8, 16))
    assert np.array_equal(first, second)
