from __future__ import annotations

from dataclasses import replace

import cv2
import hypothesis.extra.numpy as hnp
import numpy as np
import protocol_oracle as oracle
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import ndimage
from torch.nn import functional
from torchvision.ops import box_iou

from wsolnb.boxes import PRESETS, BoxRule, iou
from wsolnb.boxes.quantise import cubehelix_grey, minmax_normalise, quantise

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))
GREY = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9), elements=st.integers(0, 6)
)
CUT = BoxRule(0.5, reference="absolute")


def as_maps(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask.astype(np.float32))[None, None]


def smooth(count: int, cells: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 1, *cells, generator=torch.Generator().manual_seed(seed))


def peer_boxes(boxes: torch.Tensor) -> np.ndarray:
    """Back from exclusive far corners to numbers that the peer reads as inclusive."""
    return (boxes - torch.tensor([0, 0, 1, 1])).numpy()


@given(mask=MASKS, connectivity=st.sampled_from([4, 8]))
@settings(max_examples=300, deadline=None)
def test_components_are_those_of_scipy(mask: np.ndarray, connectivity: int) -> None:
    rule = BoxRule.preset("dcm", reference="absolute", threshold=0.5, connectivity=connectivity)
    structure = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    labels, count = ndimage.label(mask, structure)
    expected = [[s[1].start, s[0].start, s[1].stop, s[0].stop] for s in ndimage.find_objects(labels)]
    every = BoxRule(**{**vars(rule), "component": "all"}).all_boxes(as_maps(mask), mask.shape)
    assert every[0].tolist() == expected
    assert every[1].tolist() == every[2].tolist() == [0] * count
    one = rule(as_maps(mask), mask.shape)[0, 0]
    extent = BoxRule(**{**vars(rule), "component": "extent"})(as_maps(mask), mask.shape)[0, 0]
    if count == 0:
        assert one.isnan().all()
        assert extent.isnan().all()
    else:
        assert one.tolist() == expected[np.argmax(np.bincount(labels.ravel())[1:])]
        corners = np.array(expected)
        assert extent.tolist() == [*corners[:, :2].min(0), *corners[:, 2:].max(0)]


@given(image=GREY, threshold=st.floats(0, 0.99))
@settings(max_examples=300, deadline=None)
def test_protocol_presets_are_the_protocol(image: np.ndarray, threshold: float) -> None:
    scores = image / 7.0
    stretched = oracle.quantised(oracle.minmax(scores))
    level = int(threshold * stretched.max())
    maps = torch.from_numpy(scores)[None, None]
    one = BoxRule.preset("wsoleval", threshold=threshold)(maps, image.shape)[0]
    every, _, _ = BoxRule.preset("wsoleval_multi", threshold=threshold).all_boxes(maps, image.shape)
    assert peer_boxes(one).tolist() == oracle.boxes_at(stretched, level, every=False).tolist()
    assert sorted(peer_boxes(every).tolist()) == sorted(oracle.boxes_at(stretched, level, every=True).tolist())


def opencv_box(image: np.ndarray, level: int) -> list[int]:
    x, y, w, h = cv2.boundingRect(max(oracle.contours_above(image, level), key=cv2.contourArea))
    return [x, y, x + w, y + h]


def test_rethinking_and_adl_presets_are_what_opencv_code_gives() -> None:
    maps = smooth(20, (7, 5))
    rethinking = BoxRule.preset("rethinking")(maps, (60, 44))
    adl = BoxRule.preset("adl", threshold=0.3)(maps, (60, 44))
    for i in range(len(maps)):
        bicubic = oracle.quantised(
            oracle.minmax(cv2.resize(maps[i, 0].numpy(), (44, 60), interpolation=cv2.INTER_CUBIC))
        )
        level = int(0.35 * np.percentile(bicubic, 90))
        assert np.abs(peer_boxes(rethinking[i, 0]) - opencv_box(bicubic, level)).max() <= 1  # two resizes, in float32
        grey = cubehelix_grey(minmax_normalise(functional.interpolate(maps[i : i + 1], (60, 44), mode="bilinear")[0]))[
            0
        ].numpy()
        assert peer_boxes(adl[i, 0]).tolist() == opencv_box(grey, int(0.3 * grey.max()))


def test_cubehelix_grey_is_matplotlib_then_opencv() -> None:
    import matplotlib as mpl

    values = np.linspace(0, 1, 10001)
    colours = (mpl.colormaps["cubehelix"](values)[None, :, :3].astype(np.float32) * 255).astype(np.uint8)
    expected = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)[0]
    assert np.array_equal(cubehelix_grey(torch.from_numpy(values)).numpy(), expected)


def test_percentile_is_numpys() -> None:
    maps = torch.rand(4, 1, 9, 7, dtype=torch.float64)
    for percentile in (0.5, 37.5, 90.0, 100.0):
        rule = BoxRule(0.9, reference="percentile", percentile=percentile, component="all")
        boxes, image, _ = rule.all_boxes(maps, (9, 7))
        for i in range(4):
            mask = maps[i, 0].numpy() > 0.9 * np.percentile(maps[i, 0].numpy(), percentile)
            assert len(boxes[image == i]) == ndimage.label(mask, np.ones((3, 3)))[1]


def test_ornet_preset_pads_the_extent_and_its_bug_does_not() -> None:
    maps = torch.zeros(2, 1, 56, 28)
    maps[0, 0, 3:5, 10] = 0.9
    maps[0, 0, 40, 12:20] = 0.7
    rule = BoxRule.preset("ornet")
    assert rule(maps, (224, 112)).squeeze(1).tolist() == [[40, 12, 80, 164], [0, 0, 112, 224]]
    released = BoxRule.preset("ornet", far_corner="last")
    assert released(maps, (224, 112)).squeeze(1).tolist() == [[40, 12, 76, 160], [0, 0, 112, 224]]


def test_what_each_preset_gives_for_a_constant_map() -> None:
    constant = torch.zeros(1, 1, 4, 6)
    expected = {"wsoleval": [0, 0, 1, 1], "rethinking": [0, 0, 31, 21], "ornet": [0, 0, 30, 20], "adl": [0, 0, 2, 2]}
    for name, box in expected.items():
        assert BoxRule.preset(name)(constant, (20, 30))[0, 0].tolist() == box
    assert BoxRule.preset("wsoleval_multi").all_boxes(constant, (20, 30))[0].tolist() == [[0, 0, 1, 1]]
    for name in ("cam", "dcm"):
        assert BoxRule.preset(name)(constant, (20, 30)).isnan().all()


def test_a_map_without_a_positive_value_has_no_box() -> None:
    maps = -torch.rand(1, 2, 4, 5) - 0.1
    assert BoxRule.preset("dcm")(maps, (8, 10)).isnan().all()
    assert BoxRule.preset("cam", strict=False)(maps, (8, 10)).isnan().all()
    assert not BoxRule(-5.0, reference="absolute")(maps, (8, 10)).isnan().any()


def test_order_of_resize_and_stretch_and_strictness() -> None:
    maps = torch.tensor([[[[0.0, 1.0], [1.0, 0.5]]]])
    before = BoxRule(1.0, normalise="before", resize="bicubic", reference="absolute")
    after = BoxRule(1.0, normalise="after", resize="bicubic", reference="absolute")
    assert not before(maps, (16, 24)).isnan().any()  # the bicubic curve overshoots 1
    assert after(maps, (16, 24)).isnan().all()
    assert not BoxRule(1.0, strict=False)(maps, (2, 2)).isnan().any()
    assert BoxRule(1.0)(maps, (2, 2)).isnan().all()


def test_many_classes_and_sizes_at_once_are_each_map_alone() -> None:
    maps = torch.rand(5, 3, 6, 4)
    sizes = torch.tensor([[30, 20], [12, 40], [30, 20], [7, 9], [12, 40]])
    for name, preset in PRESETS.items():
        boxes, image, klass = preset.all_boxes(maps, sizes)
        assert boxes.dtype == torch.float32
        assert torch.equal(image * 3 + klass, (image * 3 + klass).sort().values)
        for b in range(5):
            for k in range(3):
                alone = preset.all_boxes(maps[b : b + 1, k : k + 1], tuple(sizes[b].tolist()))[0]
                assert torch.equal(boxes[(image == b) & (klass == k)], alone), name


def test_threads_and_precision_change_nothing() -> None:
    maps = smooth(9, (7, 9)).double()
    rule = BoxRule.preset("wsoleval")
    expected = rule(maps, (50, 40))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(rule(maps, (50, 40)), expected)
    finally:
        torch.set_num_threads(threads)
    assert rule(maps.half(), (50, 40)).shape == (9, 1, 4)
    assert rule(torch.empty(0, 4, 7, 7), (50, 40)).shape == (0, 4, 4)
    assert BoxRule.preset("dcm", component="all").all_boxes(torch.empty(0, 4, 7, 7), (50, 40))[0].shape == (0, 4)


def test_quantise_truncates_in_float64() -> None:
    values = np.random.default_rng(0).random(10000, np.float32)
    assert np.array_equal(quantise(torch.from_numpy(values)).numpy(), oracle.quantised(values))


BOXES = hnp.arrays(np.int64, (5, 4), elements=st.integers(0, 30)).map(
    lambda a: np.hstack([a[:, :2], a[:, :2] + a[:, 2:]])
)


@given(boxes=BOXES, truth=BOXES)
@settings(max_examples=200, deadline=None)
def test_iou_is_the_protocols_inclusive_one(boxes: np.ndarray, truth: np.ndarray) -> None:
    one = torch.tensor([0, 0, 1, 1])
    got = iou(torch.from_numpy(boxes) + one, torch.from_numpy(truth) + one).numpy()
    assert np.array_equal(got, oracle.inclusive_iou(boxes, truth))
    ours = box_iou(torch.from_numpy(boxes).double() + one, torch.from_numpy(truth).double() + one).numpy()
    np.testing.assert_allclose(got, ours)


def test_unclamped_iou_shows_the_released_bug() -> None:
    one, a = torch.tensor([0, 0, 1, 1]), torch.tensor([[0, 0, 19, 19]])
    apart = torch.tensor([[45, 45, 64, 64], [100, 100, 119, 119]])
    assert iou(a + one, apart + one, clamped=False)[0].tolist() == pytest.approx([25 / 7, -8 / 7])
    assert iou(a + one, apart + one)[0].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("maps", "sizes", "error", "says"),
    [
        (torch.rand(3, 4, 5), (5, 5), ValueError, r"\(3, 4, 5\)"),
        (torch.ones(1, 1, 4, 5, dtype=torch.int64), (5, 5), TypeError, "int64"),
        (torch.rand(3, 1, 4, 5), torch.full((3, 2), 4.5), TypeError, "float32"),
        (torch.rand(3, 1, 4, 5), torch.ones(2, 2), ValueError, r"3 images.*\(2, 2\)"),
        (torch.rand(2, 1, 4, 5), torch.tensor([[4, 5], [0, 5]]), ValueError, r"\[0, 5\]"),
        (torch.rand(2, 1, 4, 5).index_fill(0, torch.tensor([1]), torch.nan), (4, 5), ValueError, "image 1"),
        (torch.rand(2, 1, 4, 5).index_fill(0, torch.tensor([0]), torch.inf), (4, 5), ValueError, "image 0"),
    ],
)
def test_bad_maps_are_named(maps: torch.Tensor, sizes: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        CUT(maps, sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"component": "biggest"}, "biggest"),
        ({"connectivity": 6}, "6"),
        ({"percentile": 101.0}, "101"),
        ({"percentile": 0.0}, "above 0"),
        ({"threshold": -0.1}, "-0.1"),
        ({"empty": "whole"}, "whole"),
        ({"component": "largest_contour", "connectivity": 4}, "8-connected"),
        ({"colour_map": True}, "quantise"),
    ],
)
def test_bad_rules_are_named(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        BoxRule(**changes)  # type: ignore[arg-type]


def test_unknown_preset_and_several_boxes_where_one_is_asked() -> None:
    with pytest.raises(ValueError, match="wsoleval_multi"):
        BoxRule.preset("wsol")
    with pytest.raises(ValueError, match=r"rule\.all_boxes"):
        BoxRule.preset("wsoleval_multi")(torch.rand(1, 1, 3, 4), (3, 4))


@pytest.mark.parametrize("name", ["cam", "dcm", "wsoleval", "rethinking", "ornet", "adl"])
def test_several_thresholds_at_once_give_the_boxes_of_one_after_another(name: str) -> None:
    maps = torch.randn(3, 2, 5, 7, generator=torch.Generator().manual_seed(3))
    maps[1, 0] = -1
    sizes = torch.tensor([[33, 40], [20, 61], [33, 40]])
    thresholds = [0.05, 0.35, 0.9]
    rule = BoxRule.preset(name)
    found = rule.at_thresholds(maps, sizes, thresholds)
    assert found.shape == (3, 3, 2, 4)
    for threshold, boxes in zip(thresholds, found, strict=True):
        assert torch.equal(boxes.nan_to_num(-9), replace(rule, threshold=threshold)(maps, sizes).nan_to_num(-9))
    assert not torch.equal(found[0].nan_to_num(-9), found[2].nan_to_num(-9))
    with pytest.raises(ValueError, match=r"threshold -0\.1 is negative"):
        BoxRule().at_thresholds(maps, sizes, [0.2, -0.1])
    with pytest.raises(ValueError, match=r"gives several boxes per map; call rule\.all_boxes"):
        BoxRule(component="all").at_thresholds(maps, sizes, [0.2])


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_thresholds_are_finite(threshold):
    with pytest.raises(ValueError, match=f"threshold {threshold} is no finite number"):
        BoxRule(threshold)
    with pytest.raises(ValueError, match="is no finite number"):
        BoxRule().at_thresholds(torch.rand(1, 1, 3, 4), (3, 4), [0.5, threshold])
