"""The verdict board: every claim of every paper, with what the committed studies say about it, as Markdown."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd

from wsolnb._utils.files import write_atomic
from wsolnb._utils.text import markdown_table
from wsolnb.runs.coverage import measured_ratios, plot_coverage, wrong_verdicts
from wsolnb.runs.paper import Paper, paper_keys, suite_folder
from wsolnb.runs.study import committed, read_study
from wsolnb.runs.verdicts import TRAININGS, VERDICTS, texts, verdicts

_FIGURE = "wrong_verdicts.png"
_INTRODUCTION = """\
# Verdicts

Every claim of the five papers, of the primer and of the comparison that can be put to the test on drawn images,
tested on a *study*: the default run of the notebook (of the comparison the recipe `both-budgets`) with {trainings}
seeds or more, from 100 on, on which nothing was chosen. A seed decides everything that chance decides: training,
held-out and test data, first weights, order. Features that were learned in another drawn world are the same for all.
The methods of one seed share all of it, so each training gives one difference. The interval is Student's t, 95 %,
over these differences; beside it stands in how many trainings the difference has the claimed sign.

- **reproduced**: the whole interval lies on the claimed side of zero; for an equality, within the margin.
- **contradicted**: the whole interval lies on the other side; for an equality, outside of the margin.
- **undecided**: neither.
- **not tested**: these runs do not measure it, or with fewer than {trainings} trainings.

*Setting* says what was tested. Where it differs from the paper in what the claim is about, the claim stands under
*Ours*: it is no verdict on the paper. All networks are small and all images are drawn, so a verdict says whether
a mechanism shows its effect here, not whether the paper's table is right.

How often is such a verdict wrong? We simulated pairs of methods that do not differ, with noise of the sizes that
these studies show. For half of the claims training noise is at least {typical} times image noise, for one in ten
at least {most} times. There eight trainings give a wrong *reproduced* or *contradicted* in {many} % and {worst} %
of all cases. One training with an interval over its test images, the rule of earlier boards, gives one in {one} %
and {worst_one} %. What no interval mends: where one training in eight collapses, so that the noise has two heaps,
eight trainings are wrong in {heaps} %. So look at the dots, which every notebook draws.

![Wrong verdicts against training noise over image noise: 5 % with eight trainings, rising with one]({figure})

Made by `wsolnb report --board VERDICTS.md` from `papers/<key>/study.csv`.
"""


def summary(links: Path, board: str = "") -> str:
    """One line per notebook: what the paper changes, how many of its claims got which verdict, and what to remember.

    ``links`` is the folder that relative links start from, ``board`` the file there with the sections of the papers; ""
    where the summary stands in that file itself.

    Example:
        >>> summary(suite_folder()).splitlines()[0]
        '| notebook and paper | what it changes | verdicts | remember |'
    """
    rows = []
    for paper in in_order():
        tested = verdicts(paper)
        count = Counter(tested.verdict[~tested.ours])
        counts = ", ".join(f"{count[verdict]}&nbsp;{verdict}" for verdict in VERDICTS if count[verdict])
        card = _relative(paper.card, links)
        number, title = paper.notebook.name.partition("_")[0], paper.title.partition(":")[0]
        rows.append((
            f"{number} [`{paper.key}`]({card}): {_plain(title)}, {paper.year}",
            _plain(paper.changes),
            f"[{counts}]({board}#{_anchor(_heading(paper))})",
            _plain(paper.remember),
        ))  # fmt: skip
    return "\n".join(markdown_table(("notebook and paper", "what it changes", "verdicts", "remember"), rows)) + "\n"


def _heading(paper: Paper) -> str:
    return f"{paper.key}: {_plain(paper.title)}"


def _anchor(heading: str) -> str:
    """The anchor that Markdown's renderers give a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def in_order() -> list[Paper]:
    """All papers in the order of their notebooks.

    Example:
        >>> in_order()[0]
        Paper('primer')
    """
    return sorted(map(Paper, paper_keys()), key=lambda paper: paper.notebook.name)


def write_board(target: Path) -> None:
    """Write the board of the committed studies to a file, and the figure about its errors to the folder of papers.

    Example:
        >>> write_board(Path("VERDICTS.md"))  # doctest: +SKIP
    """
    from wsolnb.plots.style import encode_png, render, use_style

    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, board(target.parent).encode())
    use_style()
    picture = encode_png(render(plot_coverage(measured_ratios(in_order()))))
    write_atomic(suite_folder() / "papers" / _FIGURE, picture)


def board(links: Path) -> str:
    """The board as Markdown; ``links`` is the folder that relative links start from.

    Example:
        >>> board(suite_folder()).splitlines()[0]
        '# Verdicts'
    """
    parts = [_introduction(links), summary(links)]
    for paper in in_order():
        for name, path in committed(paper).items():
            title = f"## {_heading(paper)}" if name == "default" else f"### {paper.key}, recipe {name}"
            study = read_study(path)
            if study.seed.nunique() >= TRAININGS:
                parts += [f"{title}\n", *_sections(paper, verdicts(paper, study=study), links)]
    return "\n".join(parts)


def _introduction(links: Path) -> str:
    ratios = measured_ratios(in_order())
    typical, most = np.quantile(ratios, [0.5, 0.9]) if len(ratios) else (0.0, 0.0)
    many, one = wrong_verdicts(typical)
    worst, worst_one = wrong_verdicts(most)
    heaps, _ = wrong_verdicts(most, collapses=1 / 8)
    return _INTRODUCTION.format(
        trainings=TRAININGS,
        typical=f"{typical:.1f}",
        most=f"{most:.1f}",
        many=f"{100 * many:.1f}",
        one=f"{100 * one:.0f}",
        worst=f"{100 * worst:.1f}",
        worst_one=f"{100 * worst_one:.0f}",
        heaps=f"{100 * heaps:.0f}",
        figure=_relative(suite_folder() / "papers" / _FIGURE, links),
    )


def _sections(paper: Paper, tested: pd.DataFrame, links: Path) -> Iterator[str]:
    """The claims of a paper as a table, and below it those of our own."""
    table = texts(tested)
    for column in ("setting", "metric", "verdict"):
        table[column] = table[column].map(_plain)
    card = _relative(paper.card, links)
    table["claim"] = [
        f"{_plain(says)} ([{_plain(where)}]({card}))"
        for says, where in zip(table["claim"], table.pop("where"), strict=True)
    ]
    for ours, heading in ((False, ""), (True, "**Ours**\n")):
        if (rows := table[(tested.ours == ours).to_numpy()]).size:
            yield from ([heading] if heading else [])
            yield "\n".join(markdown_table([*table.columns], rows.to_numpy())) + "\n"


def _relative(path: Path, start: Path) -> str:
    return quote(Path(os.path.relpath(path, start)).as_posix())


def _plain(text: str) -> str:
    """Text from a paper's files that Markdown shows as it is: neither HTML nor a link."""
    return text.replace("<", "&lt;").replace("[", "\\[")
