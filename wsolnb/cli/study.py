"""``wsolnb study``: a notebook on many fresh seeds, and the verdicts that follow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsolnb.cli.options import Cluster, Jobs, Out, Parameters, Source
from wsolnb.cli.sweep import run_and_show


def study_command(
    source: Source,
    seeds: Annotated[int, typer.Option(min=1, help="How many trainings. A verdict needs 8.")] = 8,
    jobs: Jobs = 2,
    cluster: Cluster = "",
    recipe: Annotated[str | None, typer.Option(help="A recipe of the paper, or a YAML file of parameters.")] = None,
    first: Annotated[int, typer.Option("--from", metavar="SEED", help="The first seed; they count up from it.")] = 100,
    parameters: Parameters = None,
    name: Annotated[str | None, typer.Option(help="Name of the study. Default: study, or study-RECIPE.")] = None,
    out: Out = Path("runs"),
) -> None:
    """Run a notebook with fresh seeds, in runs/KEY/study/, and judge the paper's claims. Given again, it goes on."""
    from wsolnb.runs.folder import require_name
    from wsolnb.runs.run import resolve
    from wsolnb.runs.study import STUDY, Study, read_study

    if name is not None:
        require_name(name)
    given = dict(pair.split("=", 1) for pair in parameters or [])
    folder = out / resolve(source).key / (name or "-".join(["study", *([Path(recipe).stem] if recipe else [])]))
    study = Study(source, range(first, first + seeds), folder, recipe=recipe, given=given)
    try:
        run_and_show(study.sweep, lambda: study.run(jobs=jobs, cluster=cluster))
    finally:
        if (table := folder / STUDY).exists():
            typer.echo(f"study       {table}")
    if not source.endswith(".ipynb"):
        from wsolnb.runs.paper import Paper
        from wsolnb.runs.verdicts import texts, verdicts

        for row in texts(verdicts(Paper(source), study=read_study(table))).to_dict("records"):
            found = "  ".join(filter(None, (row["study: mean difference"], row["as claimed"])))
            typer.echo(f"{row['verdict'].partition(' (')[0]:>12}  {found:<34}  {row['claim']}")
