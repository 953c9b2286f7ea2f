from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import protocol_oracle as oracle
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional
from typer.testing import CliRunner

from wsolnb.cli.evaluate import Protocol, eval_command
from wsolnb.data.readers.protocol import ProtocolSplit, read_split, scaled_boxes, write_split
from wsolnb.localization.maps import stretched
from wsolnb.localization.saved_maps import PROTOCOLS, evaluate_maps
from wsolnb.metrics import MaxBoxAcc, MaxBoxAccV2, PxAP

app = typer.Typer()
app.command()(eval_command)


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


@pytest.fixture
def boxed(tmp_path):
    """Six images of two sizes, with their maps, as a split on disk."""
    ids = tuple(f"{i % 2}/{i}.jpg" for i in range(6))
    generator = torch.Generator().manual_seed(1)
    corner = torch.randint(20, (6, 2), generator=generator)
    boxes = tuple(torch.cat([near, near + torch.randint(60, (2,), generator=generator)])[None] for near in corner)
    boxes = (torch.cat([boxes[0], boxes[1]]), *boxes[1:])
    split = ProtocolSplit(ids, torch.arange(6) % 2, torch.tensor([[80, 120]] * 6), boxes)
    write_split(split, tmp_path / "split")
    maps = [*smooth(4, (66, 90)), *smooth(2, (70, 70), seed=1)]
    save(maps, ids, tmp_path / "maps")
    return tmp_path, split, maps


def by_protocol(split, maps, *, every, ious, thresholds):
    truths = [scaled_boxes(b, (80, 120), tuple(m.shape)).numpy() for b, m in zip(split.boxes, maps, strict=True)]
    grid = np.arange(0, 1, 1 / thresholds)
    return oracle.max_box_acc([m.numpy() for m in maps], truths, every=every, ious=ious, thresholds=grid)


def test_boxes_equal_the_protocol(boxed):
    folder, split, maps = boxed
    for protocol, every, ious in (("maxboxacc", False, (0.5,)), ("maxboxaccv2", True, (0.3, 0.5, 0.7))):
        result, curve = evaluate_maps(folder / "maps", folder / "split", protocol, thresholds=100)
        assert result["value"] == by_protocol(split, maps, every=every, ious=ious, thresholds=100)
        assert result["images"] == 6
        table = pd.DataFrame(curve)
        assert len(table) == 100
        assert table.filter(like="accuracy").max().mean() == pytest.approx(result["value"])


def test_boxes_equal_the_metrics(boxed):
    folder, split, maps = boxed
    for metric in (MaxBoxAcc(gt_convention="inclusive", thresholds=100), MaxBoxAccV2("inclusive", thresholds=100)):
        for map_, boxes in zip(maps, split.boxes, strict=True):
            metric.update(map_[None], [scaled_boxes(boxes, (80, 120), tuple(map_.shape))])
        name = type(metric).__name__
        result, curve = evaluate_maps(folder / "maps", folder / "split", name.lower(), thresholds=100, threshold=0.3)
        assert result["value"] == metric.compute().item()
        values = [row["value"] for row in result["numbers"] if row["name"] == name]
        assert values == [metric.compute().item(), metric.at(0.3).item()]
        assert np.array_equal([curve[f"accuracy@{iou:g}"] for iou in metric.iou_thresholds], metric.accuracy()[0])
        ious = [row["threshold"] for row in result["numbers"] if row["name"].startswith("accuracy")][:3]
        assert ious == list(metric.best_thresholds() if len(metric.iou_thresholds) > 1 else ())


def test_the_command_offers_all_protocols():
    assert tuple(Protocol) == PROTOCOLS


def test_fixed_thresholds_are_labelled(boxed):
    folder, _, _ = boxed
    result, curve = evaluate_maps(folder / "maps", folder / "split", "maxboxacc", thresholds=10, threshold=0.3)
    names = {row["chosen"]: row for row in result["numbers"]}
    assert names["oracle: best on these images"]["value"] == result["value"]
    assert names["fixed: chosen elsewhere"] == {
        "name": "MaxBoxAcc",
        "value": curve["accuracy@0.5"][3],
        "threshold": 0.3,
        "chosen": "fixed: chosen elsewhere",
    }
    with pytest.raises(ValueError, match=r"threshold 0\.35 is not among"):
        evaluate_maps(folder / "maps", folder / "split", thresholds=10, threshold=0.35)


def test_other_ways_to_save_maps(boxed):
    folder, split, maps = boxed
    expected, _ = evaluate_maps(folder / "maps", folder / "split", thresholds=50)
    save_file(dict(zip(split.image_ids, maps, strict=True)), folder / "maps.safetensors")
    tensors, _ = evaluate_maps(folder / "maps.safetensors", folder / "split", thresholds=50)
    save(maps, [image[:-4] for image in split.image_ids], folder / "short")
    short, _ = evaluate_maps(folder / "short", folder / "split", thresholds=50)
    assert tensors["numbers"] == short["numbers"] == expected["numbers"]


@pytest.fixture
def masked(tmp_path):
    ids = ("a.jpg", "b.jpg", "c.jpg")
    masks = (("a0.png", "a1.png"), ("b0.png",), ("c0.png",))
    split = ProtocolSplit(ids, torch.arange(3), masks=masks, ignore=("ai.png", "", ""))
    write_split(split, tmp_path / "split")
    rng = np.random.default_rng(0)
    for name in ("a0.png", "a1.png", "b0.png", "c0.png", "ai.png"):
        Image.fromarray((rng.random((66, 97)) > 0.7).astype(np.uint8) * 255).save(tmp_path / name)
    maps = smooth(3, (66, 97))
    save(maps, ids, tmp_path / "maps")
    return tmp_path, maps


def test_masks_equal_the_metric(masked):
    folder, maps = masked
    read = lambda name: np.asarray(Image.open(folder / f"{name}.png")) > 0  # noqa: E731
    truth = np.stack([read("a0") | read("a1"), read("b0"), read("c0")])
    ignore = np.stack([read("ai"), *np.zeros((2, 66, 97), bool)])
    metric = PxAP()
    metric.update(maps, torch.from_numpy(truth), torch.from_numpy(ignore))
    result, curve = evaluate_maps(folder / "maps", folder / "split", "pxap", masks=folder, threshold=0.5)
    assert result["value"] == metric.compute().item()
    assert [row["name"] for row in result["numbers"]] == [
        "PxAP",
        "IoU of pixels",
        "IoU of pixels",
        "precision",
        "recall",
    ]
    assert list(curve) == ["threshold", "precision", "recall", "iou"]
    assert result["numbers"][3]["value"] == metric.at(0.5)["precision"].item()


def test_the_command_writes_json_and_csv(boxed, monkeypatch):
    folder, _, _ = boxed
    arguments = [str(folder / "maps"), "--metadata", str(folder / "split"), "--protocol", "maxboxaccv2"]
    result = CliRunner().invoke(
        app, [*arguments, "--thresholds", "20", "--threshold", "0.25", "--out", str(folder / "o")]
    )
    assert result.exit_code == 0, result.output
    written = json.loads((folder / "o" / "eval.json").read_text())
    assert written["value"] == evaluate_maps(folder / "maps", folder / "split", thresholds=20)[0]["value"]
    assert f"{100 * written['value']:.2f} %" in result.output
    assert "oracle" in result.output
    table = pd.read_csv(folder / "o" / "eval.csv")
    assert list(table) == ["threshold", "accuracy@0.3", "accuracy@0.5", "accuracy@0.7"]
    assert len(table) == 20
    monkeypatch.chdir(folder)
    assert CliRunner().invoke(app, [*arguments, "--thresholds", "5"]).exit_code == 0
    assert (folder / "runs" / "eval" / "maps" / "eval.json").is_file()


def test_every_evaluation_has_a_folder_of_its_own(boxed, monkeypatch):
    folder, _, _ = boxed
    monkeypatch.chdir(folder)
    for name in ("A/cam.v1", "B/cam.v2", "B/cam.v1"):
        shutil.copytree(folder / "maps", folder / name)

    def evaluate(maps, *options):
        return CliRunner().invoke(app, [maps, "--metadata", "split", "--thresholds", "5", *options])

    for maps, protocol in (("A/cam.v1", "maxboxacc"), ("B/cam.v2", "maxboxacc"), ("B/cam.v1", "maxboxaccv2")):
        assert evaluate(maps, "--protocol", protocol).exit_code == 0
    found = {path.parent.name: json.loads(path.read_text()) for path in (folder / "runs").rglob("eval.json")}
    assert {name: (result["maps"], result["protocol"]) for name, result in found.items()} == {
        "cam.v1": ("A/cam.v1", "maxboxacc"),
        "cam.v2": ("B/cam.v2", "maxboxacc"),
        "cam.v1-2": ("B/cam.v1", "maxboxaccv2"),
    }
    (folder / "new").mkdir()
    assert evaluate("maps", "--out", "new").exit_code == 0
    before = (folder / "new" / "eval.json").read_bytes()
    again = evaluate("maps", "--out", "new")
    assert isinstance(again.exception, FileExistsError)
    assert "new exists and is no empty folder: nothing is overwritten" in str(again.exception)
    assert (folder / "new" / "eval.json").read_bytes() == before
    assert not list(folder.rglob("*.partial"))


def test_real_metadata(shared_data, tmp_path):
    split = read_split(shared_data / "wsol_metadata" / "CUB" / "val")
    few = ProtocolSplit(split.image_ids[:5], split.labels[:5], split.sizes[:5], split.boxes[:5])
    write_split(few, tmp_path / "split")
    maps = smooth(5, (224, 224))
    save(maps, few.image_ids, tmp_path / "maps")
    result, _ = evaluate_maps(tmp_path / "maps", tmp_path / "split", thresholds=50)
    truths = [scaled_boxes(b, tuple(s.tolist()), (224, 224)).numpy() for b, s in zip(few.boxes, few.sizes, strict=True)]
    grid = np.arange(0, 1, 0.02)
    settings = {"every": True, "ious": (0.3, 0.5, 0.7), "thresholds": grid}
    assert result["value"] == oracle.max_box_acc([m.numpy() for m in maps], truths, **settings)


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
        evaluate_maps(folder / "maps", folder / "split", thresholds=5)


def test_bad_calls(boxed, tmp_path):
    folder, split, maps = boxed
    metadata = folder / "split"
    with pytest.raises(ValueError, match="unknown protocol 'iou': choose one of maxboxacc, maxboxaccv2, pxap"):
        evaluate_maps(folder / "maps", metadata, "iou")
    with pytest.raises(ValueError, match="pxap needs masks"):
        evaluate_maps(folder / "maps", metadata, "pxap")
    with pytest.raises(FileNotFoundError, match="no maps at"):
        evaluate_maps(folder / "nowhere", metadata)
    (folder / "bad.safetensors").write_text("x" * 100)
    with pytest.raises(ValueError, match="is no safetensors file"):
        evaluate_maps(folder / "bad.safetensors", metadata)
    write_split(ProtocolSplit(split.image_ids, split.labels), folder / "bare")
    with pytest.raises(ValueError, match="needs boxes and image sizes"):
        evaluate_maps(folder / "maps", folder / "bare")
    same = ProtocolSplit(("a.jpg", "a.png"), torch.tensor([0, 0]), split.sizes[:2], split.boxes[:2])
    write_split(same, folder / "same")
    save(maps[:1], ["a"], folder / "one")
    with pytest.raises(ValueError, match="1 images share a map with another"):
        evaluate_maps(folder / "one", folder / "same")


def test_pxap_needs_the_mask_folder(masked):
    folder, _ = masked
    with pytest.raises(ValueError, match="give masks"):
        evaluate_maps(folder / "maps", folder / "split", "pxap")


def test_box_protocols_do_without_the_slowest_imports():
    code = "import sys, wsolnb.localization.saved_maps; print(*{'torchmetrics', 'pandas'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_no_number_is_a_threshold_that_is_nan(boxed):
    folder, _, _ = boxed
    with pytest.raises(ValueError, match="threshold nan is not among"):
        evaluate_maps(folder / "maps", folder / "split", thresholds=10, threshold=float("nan"))


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (63, 90)])
def test_coarse_maps_are_refused_or_enlarged(size, boxed):
    folder, split, _ = boxed
    maps = smooth(6, size).nan_to_num(1.0)
    save(maps, split.image_ids, folder / "coarse")
    with pytest.raises(ValueError, match=rf"'0/0.jpg' has {size[1]} x {size[0]} pixels, too coarse .*--enlarge 224"):
        evaluate_maps(folder / "coarse", folder / "split", thresholds=10)
    large = stretched(maps.float(), (224, 224))
    save(large, split.image_ids, folder / "large")
    expected, _ = evaluate_maps(folder / "large", folder / "split", thresholds=10)
    enlarged, _ = evaluate_maps(folder / "coarse", folder / "split", thresholds=10, enlarge=224)
    assert enlarged["numbers"] == expected["numbers"]
    assert enlarged["enlarge"] == 224
    with pytest.raises(ValueError, match=r"enlarge maps to 64 pixels a side or more .* not to 7"):
        evaluate_maps(folder / "coarse", folder / "split", enlarge=7)


def test_a_small_image_may_have_a_map_of_its_own_size(tmp_path):
    split = ProtocolSplit(("a.jpg",), torch.tensor([0]), torch.tensor([[8, 12]]), (torch.tensor([[2, 3, 5, 6]]),))
    write_split(split, tmp_path / "split")
    perfect = torch.zeros(1, 8, 12)
    perfect[0, 3:7, 2:6] = 1
    save(perfect, ["a.jpg"], tmp_path / "maps")
    assert evaluate_maps(tmp_path / "maps", tmp_path / "split", "maxboxacc", thresholds=10)[0]["value"] == 1


def test_sizes_that_change_places_are_refused(boxed):
    folder, split, _ = boxed
    wide = ProtocolSplit(split.image_ids, split.labels, split.sizes, (torch.tensor([[5, 5, 110, 60]]),) * 6)
    write_split(wide, folder / "split")
    (folder / "split" / "image_sizes.txt").write_text("\n".join(f"{image},80,120" for image in split.image_ids))
    with pytest.raises(ValueError, match=r"txt, line 1: box .* leaves its image, which has 80 x 120 .*places"):
        evaluate_maps(folder / "maps", folder / "split")
    upright = ProtocolSplit(split.image_ids, split.labels, split.sizes.flip(1), (torch.tensor([[5, 5, 50, 60]]),) * 6)
    write_split(upright, folder / "split")
    save(smooth(6, (80, 120)), split.image_ids, folder / "wide")
    with pytest.raises(ValueError, match=r"map of '0/0.jpg' has 120 x 80 pixels, image_sizes.txt states 80 x 120"):
        evaluate_maps(folder / "wide", folder / "split")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_maps_of_few_bits(dtype, boxed):
    folder, split, maps = boxed
    few = [each.float().to(dtype) for each in maps]
    save_file(dict(zip(split.image_ids, few, strict=True)), folder / "few.safetensors")
    save([each.float() for each in few], split.image_ids, folder / "float")
    expected, _ = evaluate_maps(folder / "float", folder / "split", thresholds=20)
    assert (
        evaluate_maps(folder / "few.safetensors", folder / "split", thresholds=20)[0]["numbers"] == expected["numbers"]
    )


def test_maps_in_the_byte_order_of_other_machines(boxed):
    folder, split, maps = boxed
    expected, _ = evaluate_maps(folder / "maps", folder / "split", thresholds=20)
    for image, each in zip(split.image_ids, maps, strict=True):
        np.save(folder / "maps" / f"{image}.npy", each.numpy().astype(">f8"))
    assert evaluate_maps(folder / "maps", folder / "split", thresholds=20)[0]["numbers"] == expected["numbers"]


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
        evaluate_maps(folder / "maps", folder / "split")


def test_an_undefined_number_is_null_in_json(masked):
    folder, _ = masked
    save(torch.zeros(3, 66, 97), ("a.jpg", "b.jpg", "c.jpg"), folder / "none")
    arguments = [
        str(folder / "none"),
        "--metadata",
        str(folder / "split"),
        "--protocol",
        "pxap",
        "--masks",
        str(folder),
    ]
    run = CliRunner().invoke(app, [*arguments, "--threshold", "0.5", "--out", str(folder / "o")])
    assert run.exit_code == 0, run.output
    written = json.loads((folder / "o" / "eval.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert [row["value"] for row in written["numbers"] if row["name"] == "precision"] == [None]
    assert "undefined" in run.output
