"""The card of a model folder: what a person should know before using it, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LISTED = 30  # classes in the card; model.json has all


def model_card(about: Mapping[str, Any]) -> str:
    """A model card in Markdown of what `model.json` says.

    Example:
        >>> about = {"method": "cam", "classes": ["cat", "dog"], "image_size": 224, "backbone": {"name": "resnet18"}}
        >>> about |= {"rule": {"threshold": 0.31, "reference": "maximum"}, "chosen": {"by": "Otsu's criterion"}}
        >>> about |= {"trained": {"photos": 40}, "versions": {"wsolnb": "0.1.0"}, "taxonomy": None}
        >>> print(model_card(about))  # doctest: +ELLIPSIS
        # cam: boxes of 2 classes
        <BLANKLINE>
        Finds boxes of these classes in photos. It was trained with labels alone: it has seen no drawn box...
    """
    classes, rule, chosen = about["classes"], about["rule"], about["chosen"]
    names = ", ".join(classes[:_LISTED]) + (f" and {len(classes) - _LISTED} more" if len(classes) > _LISTED else "")
    body = about["backbone"]
    relative = {"maximum": " of a map's maximum", "percentile": f" of percentile {rule.get('percentile')} of a map"}
    seen = "Boxes were compared with drawn ones as said above." if "boxes" in chosen else _UNSEEN
    return "\n\n".join(
        (
            f"# {about['method']}: boxes of {len(classes)} classes",
            "Finds boxes of these classes in photos. It was trained with labels alone: it has seen no drawn box.",
            _items(
                {
                    "classes": names,
                    "network": f"{body['name']}, {about['method']}, squares of {about['image_size']} pixels",
                    "input": f"as the weights of {body.get('convention', 'torchvision')} expect it",
                }
            ),
            "## Training\n\n" + _items(about["trained"]),
            "## Box threshold\n\n"
            + _items({"threshold": f"{rule['threshold']:.3g}{relative.get(rule['reference'], '')}"} | dict(chosen)),
            "## Use\n\n```sh\nwsolnb localize PHOTOS --model THIS_FOLDER -o found\n```\n\n"
            "```python\nimport wsolnb\n\nmodel = wsolnb.load(THIS_FOLDER)\n"
            "found = model.localize(images)  # RGB, (B, 3, H, W)\n```",
            f"## Limits\n\nIt names one of its classes whatever a photo shows. {seen}",
            "Made with " + ", ".join(f"{name} {number}" for name, number in about["versions"].items()) + ".\n",
        )
    )


_UNSEEN = "Its boxes were never compared with drawn ones: look at some first."


def _items(values: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in values.items())
