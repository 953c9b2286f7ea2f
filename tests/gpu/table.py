"""`python tests/gpu/table.py [RESULTS.json] > docs/gpu.md`: what `everything.sh` found, or "not measured"."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

NETWORKS = [f"{name}{how}" for how in ("", ", compiled") for name in ("tiny", "mobilenet_v2", "resnet50", "vgg16")]
RATE = ["images/s", "GB at the peak"]
PARTS: dict[str, tuple[str, list[str], list[str]]] = {
    "parity": (
        "The same numbers as the processor in double precision (cases of `tests/gpu/test_gpu_parity.py`)",
        ["maps", "a training step", "quantised maps and sweeps", "boxes", "beam search"],
        ["passed", "of"],
    ),
    "training": (
        "Training: bf16, channels_last, batches of 64, 224 px (tiny: 64 px); compiled: `torch.compile`",
        NETWORKS,
        RATE,
    ),
    "localizing": (
        "`localize`, best class: bf16, channels_last, batches of 64, 224 px (tiny: 64 px); compiled: the backbone",
        NETWORKS,
        RATE,
    ),
    "peers": (
        "`localize` beside others: ResNet-50, five classes, single precision, batches of 64, 224 px",
        ["a forward pass alone", "torchcam, CAM", "grad-cam, GradCAM"],
        ["images/s", "images/s of the other", "share of its time"],
    ),
    "sweeping": (
        "MaxBoxAcc's sweep on the processor behind the device that makes maps: ResNet-50, bf16, 224 px",
        ["device alone", "sweep alone", "sweep behind the device"],
        ["images/s"],
    ),
    "recipe": (
        "`wsolnb run barz2022 --recipe drawn-128-resnet18`, both seeds at once",
        ["seed 0", "seed 1"],
        ["seconds", "AP25 of cam", "AP25 of dcm-onehot", "AP25 of dcm-semantic"],
    ),
}
"""By part: its title, its rows, its columns."""

HEAD = """# On a GPU

`tests/gpu/everything.sh docs/gpu.json` measures this in at most eight minutes, without a network;
`python tests/gpu/table.py docs/gpu.json > docs/gpu.md` makes this page."""


def cell(value: object, tiny: bool) -> str:
    """A number with three digits; what was run with tiny shapes is no measurement."""
    if value is None or tiny:
        return "not measured"
    return f"{value:.3g}" if isinstance(value, float) and value < 100 else f"{value:.0f}"  # type: ignore[str-format]


def table(results: dict[str, Any]) -> str:
    """The page, from the content of a results file; `{}`: from none.

    Example:
        >>> page = table({"parts": {"training": {"state": "stopped after 110 s", "rows": {"tiny": {"images/s": 7.0}}}}})
        >>> [line for line in page.splitlines() if line.startswith("| tiny")][0]
        '| tiny | 7 | not measured |'
    """
    tiny, found = results.get("tiny", False), results.get("parts", {})
    lines = [HEAD, ""]
    if not found or tiny:
        lines += ["Nobody has run it on a GPU yet."]
    else:
        about = ", ".join(f"{name} {value}" for name, value in results.get("machine", {}).items())
        lines += [f"Measured on {results.get('day', 'an unknown day')}: {about}."]
    for name, (title, rows, columns) in PARTS.items():
        part = found.get(name, {"state": "not run", "rows": {}})
        lines += ["", f"## {name.capitalize()}", "", f"{title}.", ""]
        if part["state"] not in ("finished", "not run"):
            lines += [f"The part {part['state']}.", ""]
        lines += ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
        for row in rows:
            cells = part["rows"].get(row, {})
            if "failed" in cells:
                shown = ["failed: " + cells["failed"].replace("|", "/"), *[""] * (len(columns) - 1)]
            else:
                shown = [cell(cells.get(column), tiny) for column in columns]
            lines += [f"| {row} | " + " | ".join(shown) + " |"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table(json.loads(Path(sys.argv[1]).read_text()) if len(sys.argv) > 1 else {}))
