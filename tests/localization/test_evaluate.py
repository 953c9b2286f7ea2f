"""Saved maps and scores by the protocol, compared with the protocol itself, the metrics, and loops over images."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import protocol_oracle as oracle
import pytest
import torch
from PIL import Image
from saved_splits import evaluated, save, smooth, values

from wsolnb.data.readers.protocol import ProtocolSplit, read_split, scaled_boxes, write_split
from wsolnb.localization.evaluate import NAMES, SavedMethod, evaluate_maps
from wsolnb.metrics import MaxBoxAcc, MaxBoxAccV2, PxAP, TopLocalization
from wsolnb.metrics.bootstrap import image_weights


def by_protocol(split, maps, *, every, ious, thresholds):
    truths = [scaled_boxes(b, (80, 120), tuple(m.shape)).numpy() for b, m in zip(split.boxes, maps, strict=True)]
    grid = np.arange(0, 1, 1 / thresholds)
    return oracle.max_box_acc([m.numpy() for m in maps], truths, every=every, ious=ious, thresholds=grid)


def test_boxes_equal_the_protocol(boxed):
    folder, split, maps = boxed
    for protocol, every, ious in (("maxboxacc", False, (0.5,)), ("maxboxaccv2", True, (0.3, 0.5, 0.7))):
        result, curve = evaluated(folder / "maps", folder / "split", protocol, thresholds=100)
        expected = by_protocol(split, maps, every=every, ious=ious, thresholds=100)
        name = NAMES[protocol][0]
        assert values(result)[name, "oracle"] == pytest.approx(expected, abs=1e-15)
        assert result["images"] == 6
        table = pd.DataFrame(curve)
        assert len(table) == 100
        assert table.filter(regex="MaxBoxAcc").max().mean() == pytest.approx(expected)


def test_boxes_equal_the_metrics(boxed):
    folder, split, maps = boxed
    for metric in (MaxBoxAcc(gt_convention="inclusive", thresholds=100), MaxBoxAccV2("inclusive", thresholds=100)):
        for map_, boxes in zip(maps, split.boxes, strict=True):
            metric.update(map_[None], [scaled_boxes(boxes, (80, 120), tuple(map_.shape))])
        name = type(metric).__name__
        result, curve = evaluated(folder / "maps", folder / "split", name.lower(), thresholds=100, threshold=0.3)
        assert values(result)[name, "oracle"] == pytest.approx(metric.compute().item(), abs=1e-15)
        assert values(result)[name, "fixed"] == pytest.approx(metric.at(0.3).item(), abs=1e-15)
        each = [column for column in curve if column.startswith("MaxBoxAcc")]
        assert np.array_equal([curve[column] for column in each], metric.accuracy()[0])
        assert tuple(values(result, "threshold")[column, "oracle"] for column in each) == metric.best_thresholds()


def test_fixed_thresholds_are_labelled(boxed):
    folder, _, _ = boxed
    result, curve = evaluated(folder / "maps", folder / "split", "maxboxacc", thresholds=10, threshold=0.3)
    oracle_row, fixed = result["numbers"]
    assert (oracle_row["kind"], oracle_row["chosen"]) == ("oracle", "oracle: best on these images")
    assert (fixed["kind"], fixed["chosen"]) == ("fixed", "fixed: chosen elsewhere")
    assert fixed["threshold"] == pytest.approx(0.3)
    assert fixed["value"] == curve["MaxBoxAcc"][3]
    with pytest.raises(ValueError, match=r"threshold 0\.35 is not among"):
        evaluated(folder / "maps", folder / "split", thresholds=10, threshold=0.35)


def test_masks_equal_the_metric(masked):
    folder, maps = masked
    read = lambda name: np.asarray(Image.open(folder / f"{name}.png")) > 0  # noqa: E731
    truth = np.stack([read("a0") | read("a1"), read("b0"), read("c0")])
    ignore = np.stack([read("ai"), *np.zeros((2, 66, 97), bool)])
    metric = PxAP()
    metric.update(maps, torch.from_numpy(truth), torch.from_numpy(ignore))
    result, curve = evaluated(folder / "maps", folder / "split", "pxap", masks=folder, threshold=0.5)
    assert values(result)["PxAP", ""] == metric.compute().item()
    assert values(result)["pixel IoU", "oracle"] == pytest.approx(metric.curve()["iou"].max().item())
    assert values(result, "threshold")["pixel IoU", "oracle"] == metric.best_threshold()
    assert values(result)["pixel IoU", "fixed"] == pytest.approx(metric.at(0.5)["iou"].item())
    assert list(curve) == ["threshold", "precision", "recall", "iou"]
    rows = {row["name"]: row for row in result["numbers"] if row["kind"] != "fixed"}
    for name, row in rows.items():
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1, name


def test_real_metadata(shared_data, tmp_path):
    split = read_split(shared_data / "wsol_metadata" / "CUB" / "val")
    few = ProtocolSplit(split.image_ids[:5], split.labels[:5], split.sizes[:5], split.boxes[:5])
    write_split(few, tmp_path / "split")
    maps = smooth(5, (224, 224))
    save(maps, few.image_ids, tmp_path / "maps")
    result, _ = evaluated(tmp_path / "maps", tmp_path / "split", thresholds=50)
    truths = [scaled_boxes(b, tuple(s.tolist()), (224, 224)).numpy() for b, s in zip(few.boxes, few.sizes, strict=True)]
    grid = np.arange(0, 1, 0.02)
    settings = {"every": True, "ious": (0.3, 0.5, 0.7), "thresholds": grid}
    expected = oracle.max_box_acc([m.numpy() for m in maps], truths, **settings)
    assert values(result)["MaxBoxAccV2", "oracle"] == pytest.approx(expected, abs=1e-15)


def test_bad_calls(boxed, tmp_path):
    folder, split, maps = boxed
    metadata = folder / "split"
    with pytest.raises(ValueError, match="unknown protocol 'iou': choose of maxboxacc, maxboxaccv2, pxap"):
        evaluated(folder / "maps", metadata, "iou")
    with pytest.raises(ValueError, match="pxap needs masks"):
        evaluated(folder / "maps", metadata, "pxap")
    with pytest.raises(FileNotFoundError, match="no maps at"):
        evaluated(folder / "nowhere", metadata)
    (folder / "bad.safetensors").write_text("x" * 100)
    with pytest.raises(ValueError, match="is no safetensors file"):
        evaluated(folder / "bad.safetensors", metadata)
    write_split(ProtocolSplit(split.image_ids, split.labels), folder / "bare")
    with pytest.raises(ValueError, match="needs boxes and image sizes"):
        evaluated(folder / "maps", folder / "bare")
    same = ProtocolSplit(("a.jpg", "a.png"), torch.tensor([0, 0]), split.sizes[:2], split.boxes[:2])
    write_split(same, folder / "same")
    save(maps[:1], ["a"], folder / "one")
    with pytest.raises(ValueError, match="1 images share a map with another"):
        evaluated(folder / "one", folder / "same")


def test_pxap_needs_the_mask_folder(masked):
    folder, _ = masked
    with pytest.raises(ValueError, match="give masks"):
        evaluated(folder / "maps", folder / "split", "pxap")


def test_box_protocols_do_without_the_slowest_imports():
    code = "import sys, wsolnb.localization.evaluate; print(*{'torchmetrics', 'pandas'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_no_number_is_a_threshold_that_is_nan(boxed):
    folder, _, _ = boxed
    with pytest.raises(ValueError, match="threshold nan is not among"):
        evaluated(folder / "maps", folder / "split", thresholds=10, threshold=float("nan"))


def test_a_small_image_may_have_a_map_of_its_own_size(tmp_path):
    split = ProtocolSplit(("a.jpg",), torch.tensor([0]), torch.tensor([[8, 12]]), (torch.tensor([[2, 3, 5, 6]]),))
    write_split(split, tmp_path / "split")
    perfect = torch.zeros(1, 8, 12)
    perfect[0, 3:7, 2:6] = 1
    save(perfect, ["a.jpg"], tmp_path / "maps")
    assert evaluated(tmp_path / "maps", tmp_path / "split", "maxboxacc", thresholds=10)[0]["numbers"][0]["value"] == 1


def right_by_hand(folder, name, method, grid, *, every, iou):
    """Whether each image is right at each threshold: the protocol's loop."""
    split = read_split(folder / name)
    rows = []
    for image, boxes, size in zip(split.image_ids, split.boxes, split.sizes, strict=True):
        score_map = np.load(folder / f"{name}-{method}" / f"{image}.npy")
        truth = scaled_boxes(boxes, tuple(size.tolist()), score_map.shape).numpy()
        rows.append(oracle.best_ious(score_map, truth, every=every, thresholds=grid) >= iou)
    return np.array(rows)


def test_scores_tuning_and_intervals_equal_loops_over_images(two_splits):
    folder, grid = two_splits, np.arange(0, 1, 0.05)
    methods = {
        name: SavedMethod(folder / f"test-{name}", folder / f"{name}.npy", (folder / "val", folder / f"val-{name}"))
        for name in "ab"
    }
    result, curves = evaluate_maps(methods, folder / "test", thresholds=20)
    labels = read_split(folder / "test").labels.numpy()
    draws = image_weights(40).numpy()
    resampled = {}
    for name in "ab":
        rows = {(row["name"], row["kind"]): row for row in result["numbers"] if row["method"] == name}
        hits = right_by_hand(folder, "test", name, grid, every=False, iou=0.5)
        tuned = right_by_hand(folder, "val", name, grid, every=False, iou=0.5).mean(axis=0).argmax()
        order = np.argsort(-np.load(folder / f"{name}.npy"), axis=1, kind="stable")
        named = {
            "MaxBoxAcc": np.ones(40, bool),
            "Top-1": order[:, 0] == labels,
            "Top-5": np.array([label in row[:5] for label, row in zip(labels, order, strict=True)]),
        }
        for number, right in named.items():
            both = hits & right[:, None]
            assert rows[number, "oracle"]["value"] == both.mean(axis=0).max()
            assert rows[number, "oracle"]["threshold"] == pytest.approx(grid[both.mean(axis=0).argmax()])
            assert rows[number, "fixed"]["value"] == both[:, tuned].mean()
            assert rows[number, "fixed"]["threshold"] == pytest.approx(grid[tuned])
            assert np.array_equal(curves[name][number], both.mean(axis=0))
            best = (draws @ both / 40).max(axis=1)
            resampled[name, number, "oracle"] = best
            resampled[name, number, "fixed"] = draws @ both[:, tuned] / 40
            for kind in ("oracle", "fixed"):
                expected = np.quantile(resampled[name, number, kind], [0.025, 0.975])
                assert [rows[number, kind]["low"], rows[number, kind]["high"]] == pytest.approx(expected)
        per_iou = {}
        for iou in (0.3, 0.5, 0.7):
            hits = right_by_hand(folder, "test", name, grid, every=True, iou=iou)
            tuned = right_by_hand(folder, "val", name, grid, every=True, iou=iou).mean(axis=0).argmax()
            per_iou[iou] = hits.mean(axis=0).max(), hits[:, tuned].mean()
            assert rows[f"MaxBoxAccV2@{iou}", "oracle"]["value"] == per_iou[iou][0]
            assert rows[f"MaxBoxAccV2@{iou}", "fixed"]["value"] == per_iou[iou][1]
            assert rows[f"MaxBoxAccV2@{iou}", "fixed"]["threshold"] == pytest.approx(grid[tuned])
        mean = np.mean([*per_iou.values()], axis=0)
        assert [rows["MaxBoxAccV2", kind]["value"] for kind in ("oracle", "fixed")] == pytest.approx(mean)
        assert rows["MaxBoxAccV2", "oracle"]["chosen"] == "oracle: best on these images, one per IoU"
    for row in result["differences"]:
        assert (row["method"], row["minus"]) == ("b", "a")
        if row["name"] in named:
            gap = resampled["b", row["name"], row["kind"]] - resampled["a", row["name"], row["kind"]]
            assert [row["low"], row["high"]] == pytest.approx(np.quantile(gap, [0.025, 0.975]))
    assert len(result["differences"]) == 14
    assert result["methods"]["a"]["val"] == {"metadata": str(folder / "val"), "maps": str(folder / "val-a")}


def test_top_k_equals_the_metric(two_splits):
    folder, split = two_splits, read_split(two_splits / "test")
    maps = torch.stack([torch.from_numpy(np.load(folder / "test-b" / f"{image}.npy")) for image in split.image_ids])
    scores = torch.from_numpy(np.load(folder / "b.npy")).round()  # with ties
    np.save(folder / "ties.npy", scores.numpy())
    metric = TopLocalization(0.25, gt_convention="inclusive", thresholds=20)
    metric.update(maps, list(split.boxes), scores, split.labels)
    result, _ = evaluated(
        folder / "test-b", folder / "test", "maxboxacc", scores=folder / "ties.npy", thresholds=20, threshold=0.25
    )
    for name, of in (("Top-1", "top1_error"), ("Top-5", "top5_error")):
        assert values(result)[name, "oracle"] == pytest.approx(1 - metric.compute()[f"{of}@best"].item())
        assert values(result)[name, "fixed"] == pytest.approx(1 - metric.at(0.25)[of].item())


def test_what_is_absent_is_said(two_splits, masked):
    folder = two_splits
    methods = {"a": SavedMethod(folder / "test-a", folder / "a.npy"), "b": SavedMethod(folder / "test-b")}
    result, _ = evaluate_maps(methods, folder / "test", thresholds=10)
    assert result["protocols"] == ["maxboxacc", "maxboxaccv2"]
    first, *others = result["absent"]
    assert first["names"] == ["PxAP", "pixel IoU"]
    assert first["why"].startswith("pxap needs masks, but localization.txt in")
    assert [(each["method"], each["names"]) for each in others] == [
        ("a", ["fixed"]), ("b", ["Top-1", "Top-5"]), ("b", ["fixed"])
    ]  # fmt: skip
    assert {row["name"] for row in result["differences"]} == {"MaxBoxAcc", *NAMES["maxboxaccv2"]}
    place, _ = masked
    only_pixels, _ = evaluated(place / "maps", place / "split", None, masks=place, thresholds=10)
    assert only_pixels["protocols"] == ["pxap"]
    with pytest.raises(ValueError, match=r"maxboxacc needs boxes.*; maxboxaccv2 needs boxes.*; pxap needs the folder"):
        evaluated(place / "maps", place / "split", None)


def test_thresholds_are_chosen_on_other_images(two_splits, masked):
    folder = two_splits
    val = folder / "val", folder / "val-a"
    with pytest.raises(ValueError, match=r"40 images of .*test are evaluated too, such as 'test/0.jpg': choose thresh"):
        evaluated(folder / "test-a", folder / "test", val=(folder / "test", folder / "test-a"), thresholds=5)
    with pytest.raises(ValueError, match=r"a fixed threshold, or validation splits .* not both"):
        evaluated(folder / "test-a", folder / "test", val=val, threshold=0.2, thresholds=5)
    place, _ = masked
    with pytest.raises(ValueError, match=r"maxboxaccv2 needs boxes and image sizes, but the files in .*split lack"):
        evaluated(folder / "test-a", folder / "test", val=(place / "split", place / "maps"), thresholds=5)
    with pytest.raises(ValueError, match="no method to evaluate"):
        evaluate_maps({}, folder / "test")


def test_pixel_thresholds_are_chosen_on_other_masks(masked):
    folder, maps = masked
    other = ProtocolSplit(("v.jpg",), torch.tensor([0]), masks=(("b0.png",),), ignore=("",))
    write_split(other, folder / "val")
    save(maps[1:2].sqrt(), other.image_ids, folder / "val-maps")
    result, curve = evaluated(
        folder / "maps",
        folder / "split",
        "pxap",
        masks=folder,
        val=(folder / "val", folder / "val-maps"),
        thresholds=50,
    )
    truth = np.asarray(Image.open(folder / "b0.png")) > 0
    grid = np.arange(50) / 50
    cuts = maps[1].sqrt().numpy()[None] >= grid[:, None, None]
    best = ((cuts & truth).sum((1, 2)) / (cuts | truth).sum((1, 2))).argmax()
    assert values(result, "threshold")["pixel IoU", "fixed"] == pytest.approx(grid[best])
    assert values(result)["pixel IoU", "fixed"] == pytest.approx(curve["iou"][best])
