"""Claims as strips of dots: the trainings of a study, their mean with its interval, and one more run among them."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_ROWS = 6  # claims in a figure, so that it can be read from the back of a room
_SHADES = {"reproduced": 2, "contradicted": 3}  # of the palette; grey for the others
_RUN = 1


def plot_verdicts(tested: pd.DataFrame) -> list[Figure]:
    """Draw what :func:`wsolnb.runs.verdicts.verdicts` returned, at most six claims to a figure.

    Every training of the study is a dot, their mean a bar with its 95 % interval, this run a diamond. What lies right of
    the line is as claimed; for an equality, what lies within the band. Claims that nothing measured are left out, and
    those of different units do not share a figure.

    Example:
        >>> claim = {"claim": "a-beats-b", "kind": "greater", "unit": "%", "margin": 0.0, "verdict": "undecided"}
        >>> study = {"mean": 1.0, "low": -1.0, "high": 3.0, "agreeing": 2, "trainings": 3, "differences": [3.0, 1.0, -1.0]}
        >>> (figure,) = plot_verdicts(pd.DataFrame([claim | study | {"run": 2.0}]))
        >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
        ['a beats b']
    """
    known = [row for row in tested.to_dict("records") if row["differences"] or np.isfinite(row["run"])]
    pages = []
    for unit in dict.fromkeys(row["unit"] for row in known):
        rows = [row for row in known if row["unit"] == unit]
        pages += [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]
    return [_page(page) for page in pages]


def _page(rows: list[dict[Any, Any]]) -> Figure:
    figure, axes = plt.subplots(figsize=(12.5, 1.6 + 0.85 * len(rows)))
    axes.axvline(0, color="black", linewidth=1.5)
    for height, row in enumerate(reversed(rows)):
        _strip(axes, height, row)
    names = [row["claim"].replace("-", " ") for row in reversed(rows)]
    axes.set_yticks(range(len(rows)), names, fontsize=17)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.tick_params(axis="x", labelsize=15)
    axes.tick_params(axis="y", length=0)
    unit = "points" if rows[0]["unit"] == "%" else "difference"
    axes.set_xlabel(f"against the claim  ◀  {unit}  ▶  as claimed", fontsize=16)
    handles, labels = axes.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    axes.legend(
        by_label.values(), by_label.keys(), loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False, fontsize=15
    )
    sns.despine(figure, left=True)
    return figure


def _strip(axes: Axes, height: int, row: dict[Any, Any]) -> None:
    palette = sns.color_palette("colorblind")
    sign = -1 if row["kind"] == "less" else 1
    shade = palette[_SHADES[row["verdict"]]] if row["verdict"] in _SHADES else (0.35, 0.35, 0.35)
    values = sign * np.asarray(row["differences"], dtype=float)
    if row["kind"] == "equal":
        axes.fill_betweenx([height - 0.4, height + 0.4], -row["margin"], row["margin"], color="0.88", linewidth=0)
    lift = np.linspace(0.12, 0.3, len(values)) if len(values) else []
    axes.plot(values, height + np.asarray(lift), "o", color="0.55", markersize=8, label="a training of the study")
    if len(values) > 1:
        ends = sorted((sign * row["low"], sign * row["high"]))
        label = "mean, 95 % interval"
        axes.plot(ends, [height - 0.08] * 2, color=shade, linewidth=5, solid_capstyle="butt", label=label)
        axes.plot(sign * row["mean"], height - 0.08, "|", color=shade, markersize=18, markeredgewidth=4)
    if np.isfinite(row["run"]):
        style = {"color": palette[_RUN], "markeredgecolor": "black", "markersize": 11, "zorder": 5}
        axes.plot(sign * row["run"], height - 0.26, "D", label="this run", **style)
    said = f"{row['verdict']}\n{row['agreeing']} of {row['trainings']}" if row["trainings"] else row["verdict"]
    axes.text(
        1.01, height, said, transform=axes.get_yaxis_transform(), va="center", color=shade, fontsize=16, fontweight="bold"
    )
