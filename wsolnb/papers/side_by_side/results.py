"""Results of many runs of the comparison: one row per world, seed, method and metric, pooled over worlds and seeds.

results.csv of a sweep -> rows -> means over worlds and seeds, with intervals from resampled worlds and seeds
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
import yaml

from wsolnb.metrics.bootstrap import Interval, Measured, image_weights

COLUMNS = ("world", "seed", "method", "metric", "value", "low", "high")
BASE = "base"
IN_SCENES = ("ap0", "ap25", "ap50", "point_ap")
COSTS = ("passes", "memory", "milliseconds")
"""Metrics that do not depend on the world, kept for the base world only."""


def world_name(change: Mapping[str, Any]) -> str:
    """Name of a world: the knob that differs from the base world, and its value.

    Example:
        >>> world_name({}), world_name({"mark_size": 0.15})
        ('base', 'mark_size 0.15')
    """
    return " ".join(f"{name} {value}" for name, value in change.items()) or BASE


def one_run(measured: Measured, change: Mapping[str, Any], seed: int) -> pd.DataFrame:
    """The rows of one run: intervals by method and metric, what differs from the base world, and the seed.

    Example:
        >>> one_run({"cam": {"ap25": Interval(0.25, 0.2, 0.3)}}, {"clutter": 1.0}, 0).to_dict("list")["world"]
        ['clutter 1.0']
    """
    rows = [
        (world_name(change), seed, method, metric, each.value, each.low, each.high)
        for method, row in measured.items()
        for metric, each in row.items()
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def condensed(sweep: pd.DataFrame) -> pd.DataFrame:
    """The rows worth keeping of the `results.csv` of a sweep (`wsolnb.runs.record.load_runs`), to three decimals.

    Left out are costs and breakdowns by size and class outside of the base world, and single-object metrics in worlds
    that differ in the number of objects in a scene. Costs and breakdowns have no intervals. Columns: `COLUMNS`.

    Raises:
        ValueError: If the table is not of the comparison.

    Example:
        >>> row = {"method": "cam", "metric": "ap25", "value": 0.25, "low": 0.2, "high": 0.3, "parameter.seed": 1}
        >>> condensed(pd.DataFrame([row | {"parameter.change": "{'objects': 5}"}])).to_dict("list")["world"]
        ['objects 5']
    """
    if missing := {"parameter.change", "parameter.seed", "method", "metric"} - set(sweep):
        raise ValueError(f"no results of the comparison: there is no column {', '.join(sorted(missing))}")
    changes = sweep["parameter.change"].map(lambda text: yaml.safe_load(text) if isinstance(text, str) else text)
    rows = sweep.assign(world=changes.map(world_name), seed=sweep["parameter.seed"])[list(COLUMNS)]
    base = rows.world == BASE
    detail = rows.metric.isin(COSTS) | rows.metric.str.contains(" ")
    again = rows.world.str.startswith("objects") & ~rows.metric.isin(IN_SCENES)
    rows[["low", "high"]] = rows[["low", "high"]].where(~detail)
    return rows[base | ~(detail | again)].round(3).reset_index(drop=True)


def pooled(rows: pd.DataFrame, *, draws: int = 1000, seed: int = 0) -> Measured:
    """Every method's mean over worlds and seeds, with an interval over the choice of both.

    Worlds and seeds are resampled independently; a run counts as often as its world times its seed. All methods share
    the draws, so differences are paired. Few seeds give rough intervals, but one lucky training does not decide. In the
    rows, as `condensed` gives them, every method has the same worlds and seeds; the intervals are for
    `wsolnb.runs.verdicts.verdicts`.

    Example:
        >>> values = {"cam": (0.5, 0.7), "tap": (0.6, 0.9)}
        >>> table = [("base", k, m, "gt_known", v, v, v) for m, pair in values.items() for k, v in enumerate(pair)]
        >>> found = pooled(pd.DataFrame(table, columns=list(COLUMNS)))
        >>> gap = found["tap"]["gt_known"].minus(found["cam"]["gt_known"])
        >>> [round(each, 2) for each in (gap.value, gap.low, gap.high)]
        [0.15, 0.1, 0.2]
    """
    result: dict[str, dict[str, Interval]] = {}
    for metric, part in rows.groupby("metric", sort=False):
        cube = part.pivot_table(index=["world", "seed"], columns="method", values="value", sort=False)
        worlds, seeds = (cube.index.get_level_values(k) for k in (0, 1))
        often = [
            image_weights(level.nunique(), draws, seed + k)[:, torch.as_tensor(pd.factorize(level)[0])]
            for k, level in enumerate((worlds, seeds))
        ]
        weights = often[0] * often[1]
        for method in cube:
            values = torch.tensor(cube[method].to_numpy(copy=True), dtype=torch.float64)
            drawn = weights @ values / weights.sum(dim=1)
            low, high = torch.nanquantile(drawn, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
            each = Interval(float(values.mean()), low, high, draws=drawn)
            result.setdefault(str(method), {})[str(metric)] = each
    return result


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean, minimum, maximum and count over the seeds, by world, method and metric.

    Example:
        >>> table = [("base", k, "cam", "gt_known", v, v, v) for k, v in enumerate((0.25, 0.75))]
        >>> over_seeds(pd.DataFrame(table, columns=list(COLUMNS))).loc[("base", "cam", "gt_known")].tolist()
        [0.5, 0.25, 0.75, 2.0]
    """
    return rows.groupby(["world", "method", "metric"], sort=False).value.agg(["mean", "min", "max", "count"])


def knob_levels(rows: pd.DataFrame, base: Mapping[str, Any]) -> dict[str, dict[float, str]]:
    """The levels of each knob, with the name of the world that has it; `base` gives the levels of the base world.

    Example:
        >>> table = pd.DataFrame({"world": ["base", "clutter 1.0", "clutter 0.0"]})
        >>> knob_levels(table, {"clutter": 0.5, "objects": 2})
        {'clutter': {0.0: 'clutter 0.0', 0.5: 'base', 1.0: 'clutter 1.0'}}
    """
    levels: dict[str, dict[float, str]] = {}
    for name in rows.world.unique():
        if name != BASE:
            knob, value = name.split(" ")
            levels.setdefault(knob, {float(base[knob]): BASE})[float(value)] = name
    return {knob: dict(sorted(found.items())) for knob, found in levels.items()}


def beside_kept(measured: Measured, rows: pd.DataFrame, seed: int, metrics: Sequence[str]) -> pd.DataFrame:
    """Numbers of this run beside the kept ones of the base world: the same seed's, and the range of all seeds.

    Percent by method and metric: `now`, `kept`, `seeds from`, `seeds to`; NaN where that seed was not kept.

    Example:
        >>> kept = pd.DataFrame([("base", 0, "cam", "ap25", 0.5, 0.4, 0.6)], columns=list(COLUMNS))
        >>> beside_kept({"cam": {"ap25": Interval(0.25, 0.2, 0.3)}}, kept, 0, ["ap25"]).iloc[0].tolist()
        [25.0, 50.0, 50.0, 50.0]
    """
    base = rows[rows.world == BASE]
    spread = over_seeds(base).droplevel(0)
    same = base[base.seed == seed].set_index(["method", "metric"]).value
    table = {
        (method, metric): {
            "now": 100 * row[metric].value,
            "kept": 100 * same.get((method, metric), float("nan")),
            "seeds from": 100 * spread["min"].get((method, metric), float("nan")),
            "seeds to": 100 * spread["max"].get((method, metric), float("nan")),
        }
        for method, row in measured.items()
        for metric in metrics
        if metric in row
    }
    return pd.DataFrame.from_dict(table, orient="index")
