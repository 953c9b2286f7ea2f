"""Whether the numbers of a run are such as the trainings of a study make likely."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.999
LEAST = 0.005  # an image in two hundred: a number that no training moved may still move by a few images


def outside(run: pd.DataFrame, study: pd.DataFrame) -> pd.DataFrame:
    """The numbers of a run that lie outside of the study's prediction interval, with its ends.

    With mean ``m`` and standard deviation ``s`` of ``S`` trainings, one more lies within ``m ± t s √(1 + 1/S)`` with
    probability ``LEVEL``, by Student's t with ``S - 1`` degrees of freedom. ``run`` and ``study`` have the columns
    method, metric and value, the study one row per seed. A number of the run that the study lacks is outside.
    """
    found = run.set_index(["method", "metric"]).value.rename("value")
    each = study.groupby(["method", "metric"], sort=False).value
    spread = each.std().clip(lower=LEAST)
    half = stats.t.ppf((1 + LEVEL) / 2, each.count() - 1) * spread * np.sqrt(1 + 1 / each.count())
    table = pd.DataFrame({"value": found, "low": each.mean() - half, "high": each.mean() + half}).reindex(found.index)
    undefined = table.value.isna() & table.low.isna()  # in the run, and in all trainings
    return table[~table.value.between(table.low, table.high) & ~undefined]
