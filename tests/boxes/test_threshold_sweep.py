from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import hypothesis.extra.numpy as hnp
import numpy as np
import protocol_oracle as oracle
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import ndimage

from wsolnb.boxes import BoxRule
from wsolnb.boxes.component_tree import component_table
from wsolnb.boxes.components import doubled_contour_area, pad
from wsolnb.boxes.quantise import quantise
from wsolnb.boxes.threshold_sweep import levels, sweep_boxes, sweep_ious

ONE = torch.tensor([0, 0, 1, 1])
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=11)
FLAT = hnp.arrays(np.uint8, SHAPES, elements=st.integers(0, 2))  # plateaus and ties
STEEP = hnp.arrays(np.uint8, SHAPES, elements=st.sampled_from([0, 1, 2, 3, 100, 101, 254, 255]))


@st.composite
def smooth(draw: st.DrawFn) -> np.ndarray:
    """Few cells, enlarged: what real maps look like."""
    cells = draw(hnp.arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32)))
    size = (draw(st.integers(1, 16)), draw(st.integers(1, 16)))
    return oracle.quantised(cv2.resize(cells, size, interpolation=cv2.INTER_CUBIC).clip(0, 1))


@st.composite
def truths(draw: st.DrawFn) -> np.ndarray:
    """One to three boxes with inclusive far corners, some of them outside the map."""
    rows = draw(hnp.arrays(np.int64, (draw(st.integers(1, 3)), 4), elements=st.integers(0, 9)))
    rows[:, 2:] += rows[:, :2]
    return rows


IMAGES = st.one_of(FLAT, STEEP, smooth())


def brute(image: np.ndarray, eight: bool) -> list[tuple[int, ...]]:
    """Every component of every level by labelling each: level, box, pixels and first pixel."""
    found = []
    for value in range(1, 256):
        if value > image.max():
            break
        labels, _ = ndimage.label(image >= value, np.ones((3, 3)) if eight else None)
        for k, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            pixels = np.flatnonzero(labels == k)
            box = (columns.start, rows.start, columns.stop, rows.stop)
            found.append((value, *box, len(pixels), int(pixels[0])))
    return found


def first_pixels(image: np.ndarray, table: np.ndarray) -> list[tuple[int, ...]]:
    """The table with each seed moved to the left end of its run: the component's first pixel."""
    rows = []
    for row in table.tolist():
        y, x = divmod(row[6], image.shape[1])
        while x > 0 and image[y, x - 1] >= row[0]:
            x -= 1
        rows.append((*row[:6], y * image.shape[1] + x))
    return rows


@given(image=IMAGES, eight=st.booleans())
@settings(max_examples=300, deadline=None)
def test_every_component_of_every_level(image: np.ndarray, eight: bool) -> None:
    table = component_table(image, eight)
    assert sorted(first_pixels(image, table)) == sorted(brute(image, eight))


@pytest.mark.parametrize("eight", [True, False])
def test_every_component_of_noise_and_of_a_larger_map(eight: bool) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (23, 31), dtype=np.uint8)
    cells = cv2.resize(rng.random((5, 8), np.float32), (90, 60), interpolation=cv2.INTER_CUBIC)
    for image in (noise, oracle.quantised(oracle.minmax(cells))):
        assert sorted(first_pixels(image, component_table(image, eight))) == sorted(brute(image, eight))


@given(image=IMAGES, value=st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_polygon_area_is_opencvs(image: np.ndarray, value: int) -> None:
    contours = oracle.contours_above(image, value - 1)
    for row in component_table(image, True):
        if row[0] == value:
            box = (row[1], row[2], row[3] - row[1], row[4] - row[2])
            same = [cv2.contourArea(c) for c in contours if tuple(cv2.boundingRect(c)) == box]
            area = doubled_contour_area(pad(image), value, row[6] % image.shape[1], row[6] // image.shape[1])
            assert area / 2 in same


@given(image=IMAGES, truth=truths())
@settings(max_examples=300, deadline=None)
def test_protocol_presets_equal_the_protocol_at_every_level(image: np.ndarray, truth: np.ndarray) -> None:
    maps, exclusive = torch.from_numpy(image)[None], [torch.from_numpy(truth) + ONE]
    # what holds at a level holds up to the next brighter value of the image
    steps = np.searchsorted(np.unique(image), np.arange(256), side="right")
    for every, name in ((False, "wsoleval"), (True, "wsoleval_multi")):
        cuts = [oracle.boxes_at(image, level, every) for level in [-1, *np.unique(image).tolist()]]
        found = [cuts[step] for step in steps]
        expected = np.array([oracle.inclusive_iou(boxes, truth).max() for boxes in found])
        assert np.array_equal(sweep_ious(maps, exclusive, BoxRule.preset(name))[0].numpy(), expected)
        if not every:
            boxes = sweep_boxes(maps, BoxRule.preset(name))[0] - ONE
            assert np.array_equal(boxes.numpy(), np.concatenate(found))


@given(image=IMAGES, data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_sweep_is_the_rule_at_each_level(image: np.ndarray, data: st.DataObject) -> None:
    rule = BoxRule(
        reference="absolute",
        component=data.draw(st.sampled_from(["largest", "extent", "largest_contour"])),
        connectivity=8,
        far_corner=data.draw(st.sampled_from(["exclusive", "padded", "padded_clamped", "last"])),
        empty=data.draw(st.sampled_from(["none", "image", (1.0, 2.0, 3.0, 5.0)])),
    )
    if rule.component != "largest_contour":
        rule = BoxRule(**{**vars(rule), "connectivity": data.draw(st.sampled_from([4, 8]))})
    swept = sweep_boxes(torch.from_numpy(image)[None], rule)[0]
    for level in {0, 1, 2, 50, 100, 200, 254, 255, int(image.max()), max(int(image.max()) - 1, 0)}:
        at = BoxRule(**{**vars(rule), "threshold": float(level)})
        alone = at(torch.from_numpy(image.astype(np.float32))[None, None], image.shape)[0, 0]
        assert torch.equal(swept[level].nan_to_num(-7), alone.nan_to_num(-7))


@given(image=IMAGES, truth=truths(), connectivity=st.sampled_from([4, 8]))
@settings(max_examples=100, deadline=None)
def test_best_iou_over_all_components(image: np.ndarray, truth: np.ndarray, connectivity: int) -> None:
    rule = BoxRule(component="all", connectivity=connectivity)
    got = sweep_ious(torch.from_numpy(image)[None], [torch.from_numpy(truth) + ONE], rule)[0].numpy()
    expected = np.zeros(256)
    for row in brute(image, connectivity == 8):
        box = np.array([row[1:5]]) - [0, 0, 1, 1]
        expected[row[0] - 1] = max(expected[row[0] - 1], oracle.inclusive_iou(box, truth).max())
    assert np.array_equal(got, expected)


def test_levels_are_those_of_the_protocol() -> None:
    maps = torch.from_numpy(np.random.default_rng(1).integers(0, 200, (4, 3, 5), dtype=np.uint8))
    expected = [[int(t * image.max()) for t in oracle.THRESHOLDS] for image in maps.numpy()]
    assert levels(maps, oracle.THRESHOLDS, BoxRule.preset("wsoleval")).tolist() == expected
    expected = [[int(t * np.percentile(image, 90)) for t in oracle.THRESHOLDS] for image in maps.numpy()]
    assert levels(maps, oracle.THRESHOLDS, BoxRule.preset("rethinking")).tolist() == expected
    absolute = BoxRule(reference="absolute", quantise=True)
    assert levels(maps, [0.0, 0.5, 1.0], absolute).tolist() == [[0, 127, 255]] * 4


def test_degenerate_maps() -> None:
    truth = [torch.tensor([[0.0, 0.0, 1.0, 1.0]])]
    rule = BoxRule.preset("wsoleval")
    for shape in ((1, 1), (1, 7), (6, 1), (4, 5)):
        black = torch.zeros(1, *shape, dtype=torch.uint8)
        assert (sweep_boxes(black, rule) == torch.tensor([0, 0, 1, 1])).all()
        assert (sweep_ious(black, truth, rule) == 1).all()
        white = sweep_boxes(black + 255, BoxRule())[0]
        assert (white[:255] == torch.tensor([0, 0, shape[1], shape[0]])).all()
        assert white[255].isnan().all()
    none = torch.zeros(0, 4, 5, dtype=torch.uint8)
    assert sweep_boxes(none, rule).shape == (0, 256, 4)
    assert sweep_ious(none, [], rule).shape == (0, 256)
    empty = sweep_ious(torch.full((1, 2, 3), 9, dtype=torch.uint8), [torch.empty(0, 4)], rule)
    assert (empty == 0).all()


def test_batches_and_threads_change_nothing() -> None:
    cells = torch.rand(12, 1, 5, 6, generator=torch.Generator().manual_seed(2))
    maps = quantise(torch.nn.functional.interpolate(cells, (40, 56), mode="bicubic")[:, 0])
    truth = [torch.tensor([[3.0, 4.0, 30.0, 30.0], [20.0, 2.0, 50.0, 38.0]])[: 1 + i % 2] for i in range(12)]
    rule = BoxRule.preset("wsoleval_multi")
    expected = sweep_ious(maps, truth, rule)
    alone = torch.cat([sweep_ious(maps[i : i + 1], truth[i : i + 1], rule) for i in range(12)])
    assert torch.equal(expected, alone)
    strided = maps.permute(0, 2, 1).contiguous().permute(0, 2, 1)
    assert torch.equal(sweep_ious(strided, truth, rule), expected)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(sweep_ious(maps, truth, rule), expected)
        with ThreadPoolExecutor(1) as worker:
            halves = [worker.submit(sweep_ious, maps[part], truth[part], rule) for part in (slice(6), slice(6, 12))]
        assert torch.equal(torch.cat([half.result() for half in halves]), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("maps", "boxes", "rule", "error", "says"),
    [
        (torch.zeros(4, 5), [], BoxRule(), ValueError, r"\(4, 5\)"),
        (torch.zeros(1, 4, 5), [torch.ones(1, 4)], BoxRule(), TypeError, "float32"),
        (torch.zeros(2, 4, 5), [torch.ones(1, 4)], BoxRule(), TypeError, "float32"),
        (torch.zeros(2, 4, 5, dtype=torch.uint8), [torch.ones(1, 4)], BoxRule(), ValueError, "2 maps.* 1 images"),
        (torch.zeros(1, 4, 5, dtype=torch.uint8), [torch.ones(1, 4)], BoxRule(strict=False), ValueError, "strict"),
        (torch.zeros(1, 4, 5, dtype=torch.uint8), [torch.tensor([[5, 0, 3, 3]])], BoxRule(), ValueError, "image 0"),
        (torch.zeros(1, 4, 5, dtype=torch.uint8), [torch.full((1, 4), torch.nan)], BoxRule(), ValueError, "image 0"),
        (torch.zeros(1, 4, 5, dtype=torch.uint8), [torch.ones(2, 3)], BoxRule(), ValueError, r"image 0.*\(2, 3\)"),
    ],
)
def test_bad_input_is_named(
    maps: torch.Tensor, boxes: list[torch.Tensor], rule: BoxRule, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        sweep_ious(maps, boxes, rule)


def test_bad_thresholds_and_rules_with_several_boxes_are_named() -> None:
    maps = torch.zeros(1, 4, 5, dtype=torch.uint8)
    with pytest.raises(ValueError, match="between 0 and 1"):
        levels(maps, [0.5, 1.5], BoxRule())
    with pytest.raises(ValueError, match="sweep_ious"):
        sweep_boxes(maps, BoxRule(component="all"))
    with pytest.raises(TypeError, match="uint8"):
        sweep_boxes(maps.float(), BoxRule())


def test_levels_of_nan_are_refused():
    with pytest.raises(ValueError, match="fractions between 0 and 1"):
        levels(torch.ones(1, 3, 4, dtype=torch.uint8), [0.5, float("nan")], BoxRule())
