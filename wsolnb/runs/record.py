"""The results of a run: ``metrics.json``, ``metrics.csv`` and figures; and the runs of a folder as one table."""

from __future__ import annotations

import io
import json
import math
import os
import platform
import re
import subprocess
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from wsolnb._utils.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_STARTED = time.monotonic()
_PACKAGES = (
    "wsolnb", "torch", "torchvision", "lightning-fabric", "torchmetrics", "timm", "numpy", "scipy", "numba", "pandas",
    "pillow", "pycocotools", "matplotlib", "papermill", "ipykernel",
)  # fmt: skip


def record(
    out: str | Path,
    parameters: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, Any]],
    verdicts: pd.DataFrame | None = None,
    *,
    device: object = "cpu",
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the results of a run to files; the last code cell of a notebook.

    ``metrics.json`` is written atomically, so a folder that has one belongs to a run that reached its end.

    ``metrics`` holds fractions by method and metric, as numbers or intervals (``value``, ``low`` and ``high``);
    ``verdicts`` what :func:`wsolnb.runs.verdicts.verdicts` returned; ``about`` anything else worth keeping, such as
    sizes of data sets or tuned thresholds. If ``out`` is empty, nothing is written.

    Returns:
        The content of ``metrics.json``: the arguments, ``seed``, ``wall_time`` (seconds since this module was
        imported), ``finished`` (UTC), ``versions``, ``revision`` and ``machine``. A number that is not finite is None.

    Raises:
        TypeError: If a value in ``about`` or ``parameters`` cannot be written as JSON.

    Example:
        >>> record("", {"seed": 0}, {"cam": {"ap25": 0.17}})["metrics"]
        {'cam': {'ap25': {'value': 0.17}}}
    """
    content = {
        "parameters": dict(parameters),
        "metrics": {method: {name: _number(x) for name, x in row.items()} for method, row in metrics.items()},
        "verdicts": [] if verdicts is None else verdicts.to_dict("records"),
        "about": dict(about or {}),
        "seed": parameters.get("seed"),
        "device": str(device),
        "wall_time": round(time.monotonic() - _STARTED, 1),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": _versions(),
        "revision": _revision(),
        "machine": _machine(),
    }
    content = _plain(content)
    if str(out):
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame(_rows(content["metrics"]), columns=_COLUMNS).to_csv(index=False)
        write_atomic(folder / "metrics.csv", table.encode())
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        write_atomic(folder / "metrics.json", f"{text}\n".encode())
    return content


_COLUMNS = ["method", "metric", "value", "low", "high"]


def _number(number: Any) -> dict[str, float]:
    if hasattr(number, "low"):
        return {"value": number.value, "low": number.low, "high": number.high}
    return {"value": float(number)}


def _rows(metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[dict[str, Any]]:
    for method, row in metrics.items():
        for name, number in row.items():
            yield {"method": method, "metric": name, **number}


def _plain(value: Any) -> Any:
    """Convert a value for JSON: arrays and tensors to lists and numbers, what is not finite to ``None``."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot record {value!r} of type {type(value).__name__}: give a plain number, text, list or dict")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def _machine() -> dict[str, Any]:
    """The machine of a run: instructions and threads decide on rounding, and so on where a training ends."""
    import torch

    from wsolnb.train.training import bfloat16_is_fast

    cpuinfo = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*:(.*)", cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else "", re.M)
    return {
        "system": platform.platform(),
        "processor": name[1].strip() if name else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": bfloat16_is_fast(torch.device("cpu")),
    }


def _revision() -> str | None:
    """The commit of the package's checkout, with a ``+`` if tracked files differ from it."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def save_figure(figure: Figure, out: str | Path, name: str) -> None:
    """Render a figure once: save it as ``<out>/figures/<name>.png``, show it in a notebook, and close it.

    Without a folder ``out`` nothing is saved.

    Example:
        >>> from matplotlib.figure import Figure
        >>> save_figure(Figure(), "", "curves")
    """
    from IPython import get_ipython
    from IPython.display import Image, display
    from matplotlib.pyplot import close

    from wsolnb.plots.style import compact, render

    in_notebook = get_ipython() is not None
    if in_notebook or str(out):
        picture = render(figure)
        if str(out):
            folder = Path(out) / "figures"
            folder.mkdir(parents=True, exist_ok=True)
            picture.save(stream := io.BytesIO(), "PNG", compress_level=1)  # a seventh larger, in half the time
            write_atomic(folder / f"{name}.png", stream.getvalue())
        if in_notebook:
            kind, content = compact(picture)
            display(Image(content, format=kind, alt=name.replace("_", " ")))
    close(figure)


def load_runs(folder: str | Path = "runs") -> pd.DataFrame:
    """Collect the ``metrics.json`` of all finished runs below a folder: one row per run, method and metric.

    The columns: ``run`` (its folder below ``folder``), ``method``, ``metric``, ``value``, ``low``, ``high``, then
    ``wall_time``, ``device``, ``revision``, ``finished`` and one per parameter, ``parameter.<name>``. A file that is no
    record of a run is left out, with a warning that names it.

    Raises:
        FileNotFoundError: If there is no such folder.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     written = record(f"{folder}/demo/default", {"seed": 0}, {"cam": {"ap25": 0.17}})
        ...     print(load_runs(folder)[["run", "method", "metric", "value", "parameter.seed"]].to_string(index=False))
                 run method metric  value  parameter.seed
        demo/default    cam   ap25   0.17               0
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root} to read runs from")
    rows: list[dict[str, Any]] = []
    for path in sorted(root.rglob("metrics.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            of_run = {name: content[name] for name in ("wall_time", "device", "revision", "finished")}
            of_run |= {f"parameter.{name}": value for name, value in content["parameters"].items()}
            run = path.parent.relative_to(root).as_posix()
            rows += [{"run": run, **number, **of_run} for number in _rows(content["metrics"])]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            warnings.warn(f"{path} is no record of a run, and left out: {error!r}", stacklevel=2)
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["run", *_COLUMNS])
