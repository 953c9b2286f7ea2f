"""``wsolnb data get`` and ``wsolnb data check``: bring data sets to a folder, and verify what is in one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from wsolnb.data.download.sources import TABLE, Source, find, human, read_sources

data_app = typer.Typer(
    help="Download data sets from their official sources, and verify them in place.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
_Name = Annotated[str, typer.Argument(metavar="NAME", help=f"One of: {', '.join(read_sources())}.")]
_Root = Annotated[Path, typer.Option(help="The data set's folder: what notebooks call data_root.")]
_Table = Annotated[Path, typer.Option(help="Another table of sources, such as one of mirrors.", show_default=False)]


@data_app.command("get")
def get_command(
    name: _Name,
    root: _Root,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before the download.")] = False,
    sources: _Table = TABLE,
) -> None:
    """Download, verify and extract a data set. Repeat the command after an interruption to resume."""
    from wsolnb.data.download.fetch import get, interrupted, missing_places, read_record

    source = find(name, read_sources(sources))
    _describe(source)
    complete = read_record(source, root) is not None and not missing_places(source, root)
    if not interrupted(source, root) and (complete or _placed_by_hand(source, root)):
        typer.secho(f"complete in {root}", fg="green")
        return
    if not yes and sys.stdin.isatty() and not typer.confirm(f"Get it into {root}?"):
        raise typer.Exit(1)
    try:
        changed = get(source, root, say=typer.echo)
    except KeyboardInterrupt:
        typer.secho("stopped; what has come is kept: give the same command again to go on", fg="red", err=True)
        raise typer.Exit(130) from None
    typer.secho(f"{'ready' if changed else 'complete'} in {root}", fg="green")


@data_app.command("check")
def check_command(
    root: _Root,
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="As for `get`; by default recognised by the layout.")
    ] = "",
    deep: Annotated[bool, typer.Option("--deep", help="Decode every image, and take checksums of archives.")] = False,
    sources: _Table = TABLE,
) -> None:
    """Verify a data set in place: layout, numbers of images and classes, annotations, files obtained by hand."""
    from wsolnb.data.download.check import check
    from wsolnb.data.readers.layouts import recognise

    if not name and not (found := recognise(root)):
        raise FileNotFoundError(f"{root} looks like none of the data sets: give a NAME to see what is missing")
    source = find(name or str(found), read_sources(sources))
    problems = 0
    for finding in check(source, root, deep=deep):
        problems += not finding.good
        typer.secho(f"{'ok     ' if finding.good else 'PROBLEM'}  {finding.text}", fg=None if finding.good else "red")
    if problems:
        raise typer.Exit(1)
    typer.secho(f"{source.title} is complete in {root}", fg="green")


def _placed_by_hand(source: Source, root: Path) -> bool:
    """Whether the complete data set is there without having been downloaded by us."""
    from wsolnb.data.download.check import check
    from wsolnb.data.readers.layouts import layouts_in

    return source.reader in layouts_in(root) and all(finding.good for finding in check(source, root))


def _describe(source: Source) -> None:
    """Print size, files and licence of a download."""
    typer.secho(source.title, bold=True)
    typer.echo(f"  licence   {source.licence}\n  homepage  {source.homepage}")
    unknown = sum(file.size is None for file in source.files)
    rest = f" and {unknown} files of unknown size" if unknown else ""
    typer.echo(f"  size      {human(source.size)}{rest}, in {len(source.files)} files; as much again when extracted")
    if len(source.files) <= 6:
        for file in source.files:
            proof = file.checksum.partition(":")[0].upper() or "unverified"
            typer.echo(f"    {file.name}  {human(file.size)}  {proof}  {file.url}")
