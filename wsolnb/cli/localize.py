"""``wsolnb localize``: photos and a trained classifier in, overlays and COCO files out."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Method(StrEnum):
    """How the network is read."""

    CAM = "cam"
    NWC = "nwc"
    PAS = "pas"
    BOTH = "nwc+pas"
    DCM = "dcm"


def localize_command(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Photos.")],
    model: Annotated[str, typer.Option(help="A classifier of torchvision or timm (timm/NAME if both have one).")],
    weights: Annotated[str, typer.Option(help="DEFAULT, another name of weights, or a .safetensors or .pth file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder for overlays and COCO files.")],
    method: Annotated[Method, typer.Option(help="How the network is read.")] = Method.CAM,
    classes: Annotated[
        str, typer.Option(help="How many of the best; 'all'; or names or numbers with commas: 'tabby,' or '281,282'.")
    ] = "1",
    rule: Annotated[str | None, typer.Option(help="Box rule: a preset such as cam, dcm or rethinking.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Threshold of the box rule.")] = None,
    head: Annotated[str | None, typer.Option(help="Name of the linear layer, where there are several.")] = None,
    names: Annotated[Path | None, typer.Option(help="Text file with the name of a class in each line.")] = None,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda; by default a GPU if there is one.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos in one pass.")] = 8,
) -> None:
    """Localize classes in photos with a trained classifier; write overlays and COCO-format JSON into a new folder.

    Given again after it was stopped, it goes on.
    """
    from dataclasses import replace

    import torch

    from wsolnb._utils.text import read_lines
    from wsolnb.boxes import BoxRule
    from wsolnb.inference.found import require_free
    from wsolnb.inference.localize import RULES
    from wsolnb.inference.photos import localize_photos
    from wsolnb.models.pretrained import pretrained_classifier

    box_rule = RULES[method] if rule is None else BoxRule.preset(rule)
    box_rule = box_rule if threshold is None else replace(box_rule, threshold=threshold)
    lines = None if names is None else read_lines(names)
    require_free(out)  # before weights are fetched
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {device!r} here: {str(error).splitlines()[0]}") from None
    net = pretrained_classifier(model, weights)
    chosen = choice(classes, net.names if lines is None else lines)
    options: dict[str, Any] = {"head": head, "names": lines, "device": device, "batch_size": batch_size}
    try:
        done = localize_photos(images, out, net, method=method, classes=chosen, rule=box_rule, **options)
    except KeyboardInterrupt:
        typer.secho("stopped; what was found is kept: give the same command again to go on", fg="red", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{done.boxes} boxes in {done.photos} photos, {done.empty} classes without a box")
    typer.echo(f"overlays   {done.folder / 'overlays'}")
    how = "COCO.loadRes" if done.boxes else "an empty list, which COCO.loadRes does not read"
    typer.echo(f"boxes      {done.folder / 'results.json'} ({how}), of {done.folder / 'images.json'} (COCO)")
    for path, known in done.repeated.items():
        typer.echo(f"counted once: {path} is {known}")
    for path, why in done.unread.items():
        typer.secho(f"not read: {path}: {why}", fg="red", err=True)
    if done.unread:
        raise typer.Exit(1)


def choice(text: str, names: Sequence[str] | None) -> str | int | list[int]:
    """Parse `--classes`: a number, `all`, or classes by name or index separated by commas (one class: `dog,`).

    Raises:
        ValueError: An unknown name, or one that several classes share.

    Example:
        >>> choice("5", None), choice("all", None), choice("dog, 0", ["cat", "dog"])
        (5, 'all', [1, 0])
    """
    if text == "all":
        return text
    if "," not in text and text.strip().lstrip("+-").isdigit():
        return int(text)
    chosen = []
    for part in filter(None, map(str.strip, text.split(","))):
        matches = [index for index, name in enumerate(names or ()) if name.casefold() == part.casefold()]
        if len(matches) > 1:
            raise ValueError(f"classes {', '.join(map(str, matches))} are all named {part!r}: give the number")
        if not matches and not part.lstrip("+-").isdigit():
            unnamed = "the weights come without names; give numbers, or names with --names"
            raise ValueError(f"class {part!r}: {unnamed if names is None else 'no such name'}")
        chosen.append(matches[0] if matches else int(part))
    return chosen
