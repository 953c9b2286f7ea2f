"""``wsolnb localize``: photos and a trained classifier or a model of ours in, overlays and annotation files out."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from wsolnb.inference.localizer import Localizer
    from wsolnb.inference.photos import Localized
    from wsolnb.inference.tune import Tuned


class Method(StrEnum):
    """How a classifier is read."""

    CAM = "cam"
    NWC = "nwc"
    PAS = "pas"
    BOTH = "nwc+pas"
    DCM = "dcm"


class Labels(StrEnum):
    """Where the known class of a photo stands."""

    FOLDER = "folder"


class Format(StrEnum):
    """What boxes are written as: `wsolnb.inference.export.FORMATS`."""

    COCO = "coco"
    YOLO = "yolo"
    VOC = "voc"
    LABEL_STUDIO = "label-studio"
    CSV = "csv"


def localize_command(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTOS|FOLDER...", help="Photos, or folders of them.")],
    model: Annotated[
        str,
        typer.Option(
            help="Folder of a model that was trained here, or a classifier of torchvision or timm (NAME, timm/NAME)."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder for overlays and boxes.")],
    weights: Annotated[
        str | None, typer.Option(help="Of a classifier: DEFAULT, another name, or a .safetensors or .pth file.")
    ] = None,
    classes: Annotated[
        str, typer.Option(help="How many of the best; 'all'; or names or numbers with commas: 'tabby,' or '281,282'.")
    ] = "1",
    labels: Annotated[
        Labels | None, typer.Option(help="'folder': the class of each photo is known, by the name of its sub-folder.")
    ] = None,
    tune: Annotated[
        Path | None,
        typer.Option(metavar="BOXES.json", help="Choose the threshold on boxes that you drew on a few photos (COCO)."),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Threshold of the box rule.")] = None,
    rule: Annotated[str | None, typer.Option(help="Box rule: a preset such as cam, dcm or rethinking.")] = None,
    formats: Annotated[
        list[Format] | None, typer.Option("--format", help="What to write; several may be given. Default: coco.")
    ] = None,
    save_maps: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A new folder for maps, as wsolnb eval reads them.")
    ] = None,
    method: Annotated[Method | None, typer.Option(help="How a classifier is read. Default: cam.")] = None,
    head: Annotated[str | None, typer.Option(help="Of a classifier: name of the linear layer, if several.")] = None,
    names: Annotated[Path | None, typer.Option(help="Of a classifier: file with the name of a class per line.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Of a classifier: shorter side of its photos.")] = None,
    mean: Annotated[str | None, typer.Option(help="Of a classifier: of R,G,B in [0, 1]: 0.485,0.456,0.406.")] = None,
    std: Annotated[str | None, typer.Option(help="Of a classifier: of R,G,B: 0.229,0.224,0.225.")] = None,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda; by default a GPU if there is one.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos in one pass.")] = 8,
) -> None:
    """Localize classes in photos with a model or a trained classifier; write overlays and boxes into a new folder.

    Given again after it was stopped, it goes on.
    """
    from dataclasses import replace

    from wsolnb.inference.export import require_formats
    from wsolnb.inference.found import require_free
    from wsolnb.inference.model import ABOUT, store_rule
    from wsolnb.inference.photo_files import find_photos
    from wsolnb.inference.photos import localize_photos
    from wsolnb.inference.tune import tune as tune_rule

    chosen_formats = [each.value for each in formats or [Format.COCO]]
    require_formats(chosen_formats)
    require_free(out)  # before weights are fetched
    if tune is not None and threshold is not None:
        raise ValueError("--tune chooses the threshold: leave out --threshold, or --tune to set it")
    if labels is not None and classes != "1":
        raise ValueError("--labels folder names the class of each photo: leave out --classes, or --labels")
    own: dict[str, Any] = {"--weights": weights, "--method": method, "--head": head, "--names": names}
    own |= {"--size": size, "--mean": mean, "--std": std}
    localizer = _localizer(model, {name: value for name, value in own.items() if value is not None}, rule, device)
    if threshold is not None:
        localizer = replace(localizer, rule=replace(localizer.rule, threshold=threshold))
    chosen = choice(classes, localizer.names)
    tuned: Tuned | None = None
    try:
        if tune is not None:
            tuned = tune_rule(localizer, find_photos(photos).root, tune, batch_size=batch_size)
            before = localizer.rule.threshold
            known = ", which was chosen on drawn boxes, perhaps on these" if _was_tuned(Path(model)) else ""
            typer.echo(f"drawn boxes found with threshold {before:.3g} as before: {tuned.before}{known}")
            better = f"drawn boxes found with threshold {tuned.rule.threshold:.3g}, chosen on them: {tuned.after}"
            typer.echo(f"{better}, each photo by a threshold chosen on the others")
            localizer = replace(localizer, rule=tuned.rule)
        by_folder = labels is not None
        options: dict[str, Any] = {"formats": chosen_formats, "save_maps": save_maps, "batch_size": batch_size}
        done = localize_photos(photos, out, localizer, classes=chosen, by_folder=by_folder, **options)
    except KeyboardInterrupt:
        typer.secho("stopped; what was found is kept: give the same command again to go on", fg="red", err=True)
        raise typer.Exit(130) from None
    if tuned is not None and (Path(model) / ABOUT).is_file():
        store_rule(Path(model), tuned.rule, tuned.chosen)
        typer.echo(f"threshold     {tuned.rule.threshold:.3g} from now on, stored in {model}")
    elif tuned is not None:
        typer.echo(f"threshold     --threshold {tuned.rule.threshold:.3g} to use it again")
    _report(done)
    if save_maps is not None:
        typer.echo(f"maps          {save_maps}")
    if done.unread:
        raise typer.Exit(1)


def _localizer(model: str, own: dict[str, Any], rule: str | None, device: str | None) -> Localizer:
    """The model of a folder, or a classifier with the options that were given for it."""
    from dataclasses import replace

    import torch

    from wsolnb._utils.text import read_lines
    from wsolnb.inference.localizer import classifier_localizer, model_localizer
    from wsolnb.inference.model import ABOUT, load
    from wsolnb.models.pretrained import pretrained_classifier

    folder = (Path(model) / ABOUT).is_file() or (Path(model).is_dir() and "--weights" not in own)
    if folder and own:
        raise ValueError(f"{model} is a model that holds its weights, method and input: leave out {', '.join(own)}")
    if not folder and "--weights" not in own:
        raise ValueError(f"{model} is no folder of a model; for a classifier, give --weights, too: DEFAULT, or a file")
    names = read_lines(own["--names"]) if "--names" in own else None
    statistics: dict[str, Any] = {
        name: _three(f"--{name}", own[f"--{name}"]) for name in ("mean", "std") if f"--{name}" in own
    }
    if min(statistics.get("std", (1.0,))) <= 0:
        raise ValueError(f"--std {own['--std']}: photos are divided by these numbers, they must be positive")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {device!r} here: {str(error).splitlines()[0]}") from None
    if folder:
        return model_localizer(load(model, device), rule)
    net = pretrained_classifier(model, own["--weights"])
    size = own.get("--size", net.size)
    if net.square and size != net.size:
        raise ValueError(f"--size {size}: {model} takes only photos of {net.size} x {net.size} pixels, leave it out")
    net = replace(net, size=size, **statistics)
    return classifier_localizer(
        net, own.get("--method", "cam"), rule, head=own.get("--head"), names=names, device=device
    )


def _was_tuned(model: Path) -> bool:
    """Whether the threshold of a model's folder was chosen on drawn boxes."""
    import json

    from wsolnb.inference.model import ABOUT

    about = model / ABOUT
    return about.is_file() and "boxes" in json.loads(about.read_text(encoding="utf-8"))["chosen"]


def _three(option: str, text: str) -> tuple[float, ...]:
    """Parse three numbers with commas."""
    from math import isfinite

    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3 or not all(map(isfinite, values)):
        raise ValueError(f"{option} {text}: give three numbers with commas, for red, green and blue: 0.5,0.5,0.5")
    return values


def _report(done: Localized) -> None:
    """Say what was written, and what was not read."""
    typer.echo(f"{done.boxes} boxes in {done.photos} photos, {done.empty} classes without a box")
    typer.echo(f"overlays      {done.folder / 'overlays'}")
    for name, path in done.exports.items():
        typer.echo(f"{name:<12}  {path}")
    for other, known in done.files.repeated.items():
        typer.echo(f"counted once: {other} is {known}")
    others = done.files.left_out
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        typer.echo(f"no photos by their suffix: {', '.join(others[:3])}{more}")
    for photo, why in done.unread.items():
        typer.secho(f"not read: {done.files.root / photo}: {why}", fg="red", err=True)


def choice(text: str, names: Sequence[str]) -> str | int | list[int]:
    """Parse `--classes`: a number, `all`, or classes by name or index separated by commas (one class: `dog,`).

    Raises:
        ValueError: An unknown name, or one that several classes share.

    Example:
        >>> choice("5", ["0", "1"]), choice("all", []), choice("dog, 0", ["cat", "dog"])
        (5, 'all', [1, 0])
    """
    from wsolnb.inference.localizer import class_named

    if text == "all":
        return text
    if "," not in text and text.strip().lstrip("+-").isdigit():
        return int(text)
    chosen = []
    for part in filter(None, map(str.strip, text.split(","))):
        try:
            chosen.append(class_named(part, names))
        except ValueError:
            if not part.lstrip("+-").isdigit():
                raise
            chosen.append(int(part))
    return chosen
