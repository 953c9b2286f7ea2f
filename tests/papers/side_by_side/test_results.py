"""The kept rows of the comparison, and what is made of them."""

from __future__ import annotations

import pandas as pd
import pytest
import yaml

from wsolnb.data.critters import World
from wsolnb.metrics.bootstrap import Interval
from wsolnb.papers.side_by_side.methods import METHODS
from wsolnb.papers.side_by_side.results import (
    BASE,
    COLUMNS,
    COSTS,
    IN_SCENES,
    beside_kept,
    condensed,
    knob_levels,
    one_run,
    over_seeds,
    pooled,
    world_name,
)
from wsolnb.runs.paper import Paper
from wsolnb.runs.sweep import read_grid
from wsolnb.runs.verdicts import verdicts

SINGLE = ("top1_cls", "gt_known", "top1_loc", "max_box_acc", "max_box_acc_v2", "pxap")


@pytest.fixture(scope="module")
def kept() -> pd.DataFrame:
    return pd.read_csv(Paper("side_by_side").folder / "results.csv")


def test_kept_rows_hold_every_method_in_every_world_once(kept: pd.DataFrame) -> None:
    grid = yaml.safe_load((Paper("side_by_side").folder / "sweeps" / "knobs.yaml").read_text())
    worlds, seeds = [world_name(change) for change in grid["change"]], grid["seed"]
    classes = World(families=4, species=3).classes
    wanted = set()
    for world in worlds:
        for seed in seeds:
            for name, method in METHODS.items():
                metrics = list(IN_SCENES) if method.class_specific else []
                metrics += [] if world.startswith("objects") else SINGLE
                if world == BASE:
                    metrics += [*COSTS, *(f"gt_known {part}" for part in ("small", "middle", "large", *classes))]
                wanted |= {(world, seed, name, metric) for metric in metrics}
    found = list(zip(kept.world, kept.seed, kept.method, kept.metric, strict=True))
    assert len(found) == len(set(found))
    assert set(found) == wanted
    assert tuple(kept) == COLUMNS
    assert (Paper("side_by_side").folder / "results.csv").stat().st_size < 200_000


def test_kept_numbers_are_fractions_in_their_intervals(kept: pd.DataFrame) -> None:
    shares = kept[~kept.metric.isin(COSTS)]
    assert shares.value.between(0, 1).all()
    shares = shares[~shares.metric.str.contains(" ")]
    inside = (shares.low <= shares.value + 0.0011) & (shares.value <= shares.high + 0.0011)
    oracle = shares.metric.isin(["max_box_acc", "max_box_acc_v2"])  # of each draw's best threshold: may lie higher
    assert inside[~oracle].all()
    counted = kept[(kept.metric == "passes") & (kept.method != "beam")]  # which meets more or fewer windows
    assert (counted.groupby("method").value.nunique() == 1).all()


def test_kept_rows_are_of_the_default_notebook() -> None:
    """The grid sets nothing that the notebook's default slice would contradict."""
    points = read_grid("side_by_side", Paper("side_by_side").folder / "sweeps" / "knobs.yaml")
    assert len(points) == 21
    given = {name for point in points for name in point.run.given}
    assert given == {"methods", "results", "clock", "change", "seed"}


def table(**values: list[float]) -> pd.DataFrame:
    """Values of methods in two worlds with two seeds each."""
    places = [("base", 0), ("base", 1), ("clutter 1.0", 0), ("clutter 1.0", 1)]
    cells = [(*place, name, v) for name, row in values.items() for place, v in zip(places, row, strict=True)]
    rows = [(world, seed, name, "gt_known", v, v, v) for world, seed, name, v in cells]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_pooled_intervals_are_paired_and_cover_worlds_and_seeds() -> None:
    found = pooled(table(cam=[0.2, 0.4, 0.6, 0.8], tap=[0.3, 0.5, 0.7, 0.9], has=[0.5, 0.5, 0.5, 0.5]))
    cam, tap, has = (found[name]["gt_known"] for name in ("cam", "tap", "has"))
    assert (cam.value, has.value) == pytest.approx((0.5, 0.5))
    assert (cam.low, cam.high) == pytest.approx((0.2, 0.8))
    assert (has.low, has.high) == pytest.approx((0.5, 0.5))
    gap = tap.minus(cam)
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.1, 0.1, 0.1))
    assert not has.minus(cam).excludes_zero


def test_verdicts_come_from_pooled_rows(kept: pd.DataFrame) -> None:
    tested = verdicts(Paper("side_by_side"), pooled(kept))
    assert set(tested.verdict) <= {"reproduced", "same direction", "not reproduced"}
    assert tested.difference.notna().all()


def test_condensing_keeps_what_says_something_new() -> None:
    metrics = ["gt_known", "gt_known small", "ap25", "passes"]
    rows = [
        {"method": "cam", "metric": m, "value": 0.12345, "low": 0.1, "high": 0.2}
        | {"parameter.change": c, "parameter.seed": 1}
        for c in ("{}", "{'clutter': 1.0}", "{'objects': 5}")
        for m in metrics
    ]
    found = condensed(pd.DataFrame(rows))
    assert found.groupby("world", sort=False).metric.apply(list).to_dict() == {
        "base": metrics,
        "clutter 1.0": ["gt_known", "ap25"],
        "objects 5": ["ap25"],
    }
    assert set(found.value) == {0.123}
    with pytest.raises(ValueError, match=r"no column parameter\.change"):
        condensed(pd.DataFrame({"method": [], "metric": [], "parameter.seed": []}))


def test_levels_and_spread() -> None:
    rows = table(cam=[0.2, 0.4, 0.6, 0.8])
    assert knob_levels(rows, {"clutter": 0.5}) == {"clutter": {0.5: "base", 1.0: "clutter 1.0"}}
    assert over_seeds(rows).loc[("clutter 1.0", "cam", "gt_known")].tolist() == pytest.approx([0.7, 0.6, 0.8, 2])


def test_a_run_stands_beside_what_was_kept() -> None:
    now = {"cam": {"gt_known": Interval(0.25, 0.2, 0.3)}}
    assert one_run(now, {"clutter": 1.0}, 3).iloc[0].tolist() == ["clutter 1.0", 3, "cam", "gt_known", 0.25, 0.2, 0.3]
    found = beside_kept(now, table(cam=[0.2, 0.4, 0.6, 0.8]), 1, ["gt_known", "ap25"])
    assert found.loc[("cam", "gt_known")].to_dict() == pytest.approx(
        {"now": 25, "kept": 40, "seeds from": 20, "seeds to": 40}
    )
