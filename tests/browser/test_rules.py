"""The explorer's arithmetic in the browser against the package's own, on random inputs: the same numbers and boxes."""

from __future__ import annotations

import base64
import itertools
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import wsolnb.explorer
from wsolnb.boxes import PRESETS, BoxRule, iou
from wsolnb.boxes.quantise import percentile
from wsolnb.explorer import payload
from wsolnb.explorer.picture import greys
from wsolnb.papers.barz2022.maps import assigned_classes, class_scores, dense_class_map

HERE = Path(wsolnb.explorer.__file__).parent
DECODE = """(text) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}"""


@pytest.fixture
def pure(page: Any) -> Any:
    """A page that has the pure functions as `pure` and `floats` for arrays; call `pure(expression, argument)`."""
    source = "\n".join((HERE / name).read_text(encoding="utf-8") for name in ("rules.js", "dense.js"))
    page.goto("about:blank")
    page.evaluate(
        """async ([source, decode]) => {
          const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
          window.pure = await import(url);
          window.floats = eval(decode);
        }""",
        [source, DECODE],
    )
    return page.evaluate


def sent(values: torch.Tensor) -> str:
    return base64.b64encode(values.contiguous().numpy().astype("<f4").tobytes()).decode()


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize(("cells", "size"), [((7, 9), (224, 200)), ((14, 13), (97, 180)), ((15, 20), (150, 201))])
def test_enlarges_maps_as_pytorch_does(pure: Any, mode: str, cells: tuple[int, int], size: tuple[int, int]) -> None:
    """To 2e-6, or where PyTorch itself rounds by more than half of that on this processor, to twice as much."""
    maps = torch.randn(cells)
    corners = {} if mode == "nearest" else {"align_corners": False}
    wanted, exact = (
        functional.interpolate(each[None, None], size, mode=mode, **corners)[0, 0] for each in (maps, maps.double())
    )
    rounding = float((wanted - exact).abs().max())
    found = pure(
        "([m, h, w, H, W, mode]) => Array.from(window.pure.upsample(floats(m), h, w, H, W, mode))",
        [sent(maps), *cells, *size, mode],
    )
    assert np.abs(np.array(found).reshape(size) - wanted.numpy()).max() <= max(2e-6, 2 * rounding)
    assert rounding < 1e-5


def rules() -> list[BoxRule]:
    """Every preset, and every value of every field once or more."""
    components = ("largest", "largest_contour", "all", "all_contours", "extent")
    corners = ("exclusive", "padded", "padded_clamped", "last")
    mixed = [
        BoxRule(cut, reference, 80, strict=strict, resize=resize, component=component, far_corner=corner)
        for (cut, strict), reference, component, resize, corner in zip(
            itertools.cycle([(0.3, True), (0.55, False), (0.8, True)]),
            itertools.cycle(["maximum", "percentile", "absolute", "maximum"]),
            itertools.islice(itertools.cycle(components), 40),
            itertools.cycle([None, "bilinear", "nearest"]),
            itertools.cycle(corners),
        )
    ]
    fours = [BoxRule(t, connectivity=4, component=c) for t in (0.4, 0.7) for c in ("largest", "all", "extent")]
    normalised = [
        BoxRule(t, normalise=n, quantise=q, resize="bicubic", component=c, empty="image")
        for t in (0.25, 0.6) for n in ("before", "after") for q in (False, True) for c in ("largest_contour", "all")
    ]  # fmt: skip
    presets = [BoxRule.preset(name, threshold=t) for name in PRESETS for t in (0.1, 0.45, 0.7, 1.5)]
    return [*presets, *mixed, *fours, *normalised]


def kinds(count: int) -> list[torch.Tensor]:
    """Maps that are hard in different ways: smooth, noisy, of few levels, negative, half empty, and flat."""
    maps: list[torch.Tensor] = []
    for _ in range(count):
        noise = torch.randn(2, 9, 13)
        smooth = functional.avg_pool2d(noise, 3, 1, 1)
        maps += [smooth, torch.rand(2, 11, 8), (torch.rand(2, 12, 17) * 4).floor() / 4, -noise.abs(), smooth.relu()]
    return [*maps, torch.zeros(1, 5, 7), torch.full((1, 4, 3), 0.25), torch.ones(1, 1, 1)]


def test_finds_the_same_boxes_for_every_rule(pure: Any) -> None:
    every, size = kinds(2), (61, 90)
    shipped = [payload.rounded(maps) for maps in every]
    compared = 0
    for rule in rules():
        for maps in shipped:
            flat = maps.amax() == maps.amin()
            if flat and rule.resize == "bicubic":
                continue  # a flat map enlarged is flat up to rounding, and stretching that to [0, 1] gives noise
            c, h, w = maps.shape
            boxes, _, which = rule.all_boxes(maps[None], size)
            found = pure(
                """([m, c, h, w, size, rule, greys]) => {
                  const all = floats(m);
                  return Array.from({ length: c }, (_, k) => {
                    const map = all.slice(k * h * w, (k + 1) * h * w);
                    return pure.boxes(pure.prepare(map, h, w, size, rule, greys), size, rule);
                  });
                }""",
                [sent(maps), c, h, w, list(size), asdict(rule), greys()],
            )
            wanted = [boxes[which == k].tolist() for k in range(c)]
            assert found == wanted, (rule, maps)
            compared += sum(map(len, wanted))
    assert compared > 2000


def test_percentiles_between_ranks(pure: Any) -> None:
    values = torch.randn(1, 13, 7)
    asked = [0.0, 12.5, 50.0, 90.0, 99.9, 100.0]
    found = pure(
        "([m, asked]) => { const s = floats(m).sort(); return asked.map((p) => pure.percentile(s, p)); }",
        [sent(values), asked],
    )
    assert found == [float(percentile(values, p)[0]) for p in asked]


def test_dense_class_maps_and_scores(pure: Any) -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        sim = torch.rand(6, 7, 11, generator=generator) * 2 - 1
        if seed % 2:
            sim = (sim * 4).round() / 4  # ties, and values that meet the threshold
        limits = [0.5, 0.25] if seed % 4 else [0.1, 0.3]
        found = pure(
            """([m, c, n, limits]) => {
              const all = floats(m);
              const maps = Array.from({ length: c }, (_, k) => all.slice(k * n, (k + 1) * n));
              const assigned = pure.assignedClasses(maps);
              const dense = pure.denseClassMap(maps, ...limits);
              return [assigned, pure.classScores(maps), dense].map((values) => Array.from(values));
            }""",
            [sent(sim), 6, 77, limits],
        )
        assert found[0] == assigned_classes(sim[None])[0].flatten().tolist()
        assert found[1] == class_scores(sim[None])[0].tolist()
        assert found[2] == dense_class_map(sim[None], *limits)[0].flatten().tolist()


def test_iou(pure: Any) -> None:
    corners = torch.rand(40, 2, 2).mul(50).round().sort(dim=1).values.flatten(1)
    found = pure("(b) => b.map((one) => b.map((other) => pure.iou(one, other)))", corners.tolist())
    assert found == iou(corners, corners).tolist()
    assert found[0][0] == 1.0


def test_histogram_counts_every_value_once(pure: Any) -> None:
    found = pure("(v) => Array.from(pure.histogram(Float32Array.from(v), 0, 1, 4))", [0, 0.1, 0.25, 0.5, 0.99, 1])
    assert found == [2, 1, 1, 2]
    assert pure("(v) => Array.from(pure.histogram(Float32Array.from(v), 3, 3, 2))", [3, 3]) == [2, 0]


def test_maps_arrive_bit_for_bit(pure: Any) -> None:
    maps = torch.randn(3, 5, 7) * torch.tensor([1e-3, 1.0, 1e4])[:, None, None]
    code, low, step = payload.codes(maps)
    found = pure(
        "([codes, lows, steps]) => pure.unpack(codes, lows, steps, 0, 0, 35, 3).map((map) => Array.from(map))",
        [code.ravel().tolist(), low.tolist(), step.tolist()],
    )
    assert found == payload.rounded(maps).flatten(1).tolist()
    error = (payload.rounded(maps) - maps).abs().amax(dim=(1, 2))
    assert (error <= 0.51 * (maps.amax(dim=(1, 2)) - maps.amin(dim=(1, 2))) / payload.STEPS).all()
