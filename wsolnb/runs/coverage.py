"""How often a verdict is wrong: simulated trainings of two methods between which there is no difference.

Two kinds of noise act on a measured difference. *Image noise* comes from the test images, and one training can tell how
large it is. *Training noise* comes from first weights, data and order, and one training knows nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import stats

from wsolnb.runs.paper import Paper
from wsolnb.runs.study import ABOUT, committed, read_study
from wsolnb.runs.verdicts import LEVEL, TRAININGS, differences

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATIOS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0)
_IMAGES, _DISCORDANT = 1000, 0.4  # test images, and the share on which one method is right and the other is not


def wrong_verdicts(
    ratio: float, trainings: int = TRAININGS, *, studies: int = 40_000, collapses: float = 0.0, seed: int = 0
) -> tuple[float, float]:
    """The share of simulated studies whose interval excludes zero although the true difference is zero.

    In each training 400 of 1000 test images, on average, are right with one method only; whose they are is drawn with a
    probability that training noise moves. ``ratio`` is the standard deviation of training noise over that of image
    noise. The noise is normal; or, with ``collapses``, that share of trainings of the first method loses much, and
    the others gain a little, so that the mean is zero.

    Returns:
        The share with Student's t interval over ``trainings``, and with the interval over the images of the first
        training alone.

    Example:
        >>> many, one = wrong_verdicts(2.0, studies=2000)
        >>> many < 0.07, one > 0.3
        (True, True)
    """
    generator = np.random.default_rng(seed)
    size = (studies, trainings)
    noise = generator.standard_normal(size)
    if collapses:
        noise = (collapses - (generator.random(size) < collapses)) / np.sqrt(collapses * (1 - collapses))
    shift = ratio * np.sqrt(_DISCORDANT / _IMAGES) * noise
    discordant = generator.binomial(_IMAGES, _DISCORDANT, size)
    wins = generator.binomial(discordant, np.clip(0.5 + shift / (2 * _DISCORDANT), 0, 1))
    difference = (2 * wins - discordant) / _IMAGES
    half = stats.t.ppf((1 + LEVEL) / 2, trainings - 1) * stats.sem(difference, axis=1)
    one = difference[:, 0]
    half_one = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt((discordant[:, 0] / _IMAGES - one**2) / _IMAGES)
    return float((np.abs(difference.mean(axis=1)) > half).mean()), float((np.abs(one) > half_one).mean())


def measured_ratios(papers: Sequence[Paper]) -> npt.NDArray[np.float64]:
    """Training noise over image noise, for every claim that the committed default studies measure.

    Image noise is taken from the intervals over images of the study's runs; what the differences vary beyond it is
    training noise.

    Example:
        >>> bool((measured_ratios([Paper("primer")]) >= 0).all())
        True
    """
    ratios = []
    for paper in papers:
        path = committed(paper).get("default")
        if path is None:
            continue
        of_images = json.loads(path.with_name(ABOUT).read_text(encoding="utf-8"))["image_noise"]
        study = read_study(path)
        for claim in paper.claims():
            if noise := of_images.get(claim.id):
                total = differences(claim, study).difference.var()
                ratios.append(np.sqrt(max(0.0, total - noise**2)) / noise)
    return np.asarray(ratios)


def plot_coverage(measured: npt.NDArray[np.float64], ratios: Sequence[float] = RATIOS) -> Figure:
    """Wrong verdicts against the ratio of the two noises, by both rules, over the ratios that were measured.

    Example:
        >>> plot_coverage(np.array([0.5, 2.0]), ratios=(0.0, 1.0)).axes[0].get_ylabel()
        'wrong verdicts'
    """
    import matplotlib.pyplot as plt

    many, one = zip(*map(wrong_verdicts, ratios), strict=True)
    figure, (axes, rug) = plt.subplots(2, 1, figsize=(9, 5), sharex=True, height_ratios=[6, 1])
    axes.plot(ratios, one, "o-", color="#b34700", linewidth=3)
    axes.plot(ratios, many, "o-", color="#00734f", linewidth=3)
    middle = len(ratios) // 2
    axes.annotate("one training, interval over its images", (ratios[middle], one[middle]), (8, -18), **_BESIDE)
    axes.annotate(f"{TRAININGS} trainings, Student's t", (ratios[middle], many[middle]), (8, 10), **_BESIDE)
    axes.axhline(1 - LEVEL, color="grey", linestyle=":")
    axes.set(ylim=(0, 1), ylabel="wrong verdicts", title="Two methods that do not differ: how often is one called better?")
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    rug.plot(measured.clip(max=max(ratios)), np.zeros(len(measured)), "|", color="black", markersize=18)
    rug.set(yticks=[], xlabel="training noise / image noise")
    rug.set_ylabel("claims", rotation=0, ha="right", va="center")
    return figure


_BESIDE = {"textcoords": "offset points", "fontsize": 13}
