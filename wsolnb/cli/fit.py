"""``wsolnb fit``: photos in a folder per class in, a model that finds boxes out."""

from __future__ import annotations

import shlex
import signal
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

METHODS = "cam, has, adl, tap, tap+nwc+pas, csoa, ornet, dcm-onehot, dcm-semantic or beam"


def fit_command(
    folder: Annotated[
        Path, typer.Argument(help="A sub-folder of photos per class; or train/ and val/, each with such sub-folders.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="MODEL", help="A new folder for the model.")],
    method: Annotated[str, typer.Option(help=f"What is trained, and how it is read: {METHODS}.")] = "cam",
    backbone: Annotated[str, typer.Option(help="A network by name, such as mobilenet_v2, resnet50, vgg16.")] = (
        "mobilenet_v2"
    ),
    weights: Annotated[str, typer.Option(help="DEFAULT, another name of first weights, a file, or none.")] = "DEFAULT",
    convention: Annotated[
        str, typer.Option(help="Input that a file of weights expects: torchvision, tensorflow, caffe.")
    ] = ("torchvision"),
    size: Annotated[int, typer.Option(min=16, help="Side in pixels of the squares that photos are resized to.")] = 224,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Passes over the photos in the first cycle; a second one has twice as many."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos in a batch.")] = 16,
    taxonomy: Annotated[
        Path | None,
        typer.Option(help="Class tree for dcm-semantic, lines of parent TAB child. Default: WordNet's, by name."),
    ] = None,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Leave out photos that do not decode.")] = False,
    seed: Annotated[int, typer.Option(help="Of held-out photos, new layers and order.")] = 0,
    device: Annotated[str, typer.Option(help="Such as cpu or cuda; by default a GPU if there is one.")] = "auto",
) -> None:
    """Train a localization method on photos sorted into folders by class; nobody has to draw a box.

    A tenth of the photos, or those in val/, is held out. Given again after it was stopped, it goes on.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end in KeyboardInterrupt, with all saved
    made = False
    try:
        from wsolnb._utils.files import require_new_folder
        from wsolnb.data.readers.images import UnreadableImage
        from wsolnb.data.taxonomy import Taxonomy
        from wsolnb.inference.fit import fit

        if taxonomy is not None and method != "dcm-semantic":
            raise ValueError(f"--taxonomy is for dcm-semantic; {method} has no use for it")
        tree = None if taxonomy is None else Taxonomy.from_file(taxonomy)
        require_new_folder(out)
        made = not out.exists()
        out.mkdir(parents=True, exist_ok=True)  # now, not after hours of training
        options: dict[str, Any] = {"convention": convention, "image_size": size, "epochs": epochs}
        options |= {"batch_size": batch_size, "taxonomy": tree, "skip_broken": skip_broken, "seed": seed}
        first = None if weights.lower() == "none" else weights
        try:
            model = fit(folder, method, backbone=backbone, weights=first, device=device, **options)
        except UnreadableImage as error:
            raise UnreadableImage(str(error).replace("skip_broken=True", "--skip-broken")) from None
        except FloatingPointError as error:
            raise ValueError(str(error)) from None
        except ModuleNotFoundError as error:  # of an extra, which the message names
            raise ValueError(str(error).replace("as taxonomy", "by --taxonomy FILE")) from None
        model.save(out)
    except KeyboardInterrupt as stop:
        if not stop.args:  # a training says itself where it is saved
            typer.secho("stopped: give the same command again to go on", fg="red", err=True)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
        if made:
            with suppress(OSError):
                out.rmdir()  # if nothing was written
    trained, rule = model.trained, model.rule
    if skip_broken:
        typer.echo(f"skipped    {len(trained['skipped'])} photos that do not decode")
        for name in trained["skipped"]:
            typer.secho(f"           {name}", fg="red", err=True)
    relative = {"maximum": " of a map's maximum", "percentile": f" of a map's percentile {rule.percentile:g}"}
    typer.echo(f"accuracy   {trained['accuracy on those']:.1%} of {trained['held out']} held-out photos")
    typer.echo(f"threshold  {rule.threshold:.3g}{relative.get(rule.reference, '')}, by {model.chosen['by']}")
    typer.echo(f"model      {out}")
    photos = folder / "train" if (folder / "train").is_dir() and (folder / "val").is_dir() else folder
    command = ["wsolnb", "localize", str(photos), "--labels", "folder", "--model", str(out), "-o", f"{out}-boxes"]
    typer.echo(f"next       {shlex.join(command)}")
