"""Results of a study of the comparison: every method's mean over the trainings, with its interval."""

from __future__ import annotations

import pandas as pd

from wsolnb.metrics.bootstrap import Interval, Measured, mean_interval


def over_trainings(rows: pd.DataFrame) -> Measured:
    """Mean over the seeds of a study and its 95 % interval by Student's t, by method and metric.

    The rows have the columns `seed`, `method`, `metric` and `value`, as in `papers/side_by_side/study.csv`.

    Example:
        >>> table = [(seed, "cam", "ap25", value) for seed, value in enumerate((0.4, 0.5, 0.6))]
        >>> mean = over_trainings(pd.DataFrame(table, columns=["seed", "method", "metric", "value"]))["cam"]["ap25"]
        >>> round(mean.value, 2), round(mean.low, 2), round(mean.high, 2)
        (0.5, 0.25, 0.75)
    """
    result: dict[str, dict[str, Interval]] = {}
    for (method, metric), values in rows.groupby(["method", "metric"], sort=False).value:
        result.setdefault(str(method), {})[str(metric)] = mean_interval(values.dropna())
    return result
