"""Run a notebook with papermill: checked parameters, progress as it runs, and all outputs in one folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from jupyter_client.utils import run_sync

from wsolnb._utils.files import write_atomic
from wsolnb._utils.signals import Interruption
from wsolnb.runs.folder import PARAMETERS, claimed_folder
from wsolnb.runs.kernel import Kernel
from wsolnb.runs.paper import Paper
from wsolnb.runs.parameters import checked, known_parameters, read_recipe
from wsolnb.runs.processes import this_process
from wsolnb.runs.progress import CellProgress, count_cells
from wsolnb.runs.ranges import require_ranges
from wsolnb.runs.workers import stop_without

NOTEBOOK = "notebook.ipynb"


class RunFailed(RuntimeError):
    """A notebook did not reach its end; ``notebook`` is as far as it came, with the error in it."""

    def __init__(self, message: str, notebook: Path) -> None:
        super().__init__(message)
        self.notebook = notebook


class Stopped(KeyboardInterrupt):
    """The signal ``number`` ended the run; a training that was running has saved itself and printed where."""

    def __init__(self, number: int, cell: str, notebook: Path) -> None:
        at = f" in {cell}" if cell else ""
        kept = "trainings that ended are kept, the one that ran goes on from the step at which it was saved"
        super().__init__(f"{signal.Signals(number).name}: stopped{at}; run the same again to go on: {kept}")
        self.number, self.notebook = number, notebook


@dataclass(frozen=True)
class ResolvedRun:
    """A run with all its parameters, checked."""

    key: str  # of the paper, or the notebook's stem
    notebook: Path
    given: dict[str, Any]  # the parameters that override the notebook's defaults
    parameters: dict[str, Any]  # all of them but out
    has_out: bool  # whether the notebook has a parameter out
    warm_up: bool  # whether the kernel imports the suite's packages before the first cell does

    @property
    def text(self) -> str:
        """The parameters as YAML."""
        return yaml.safe_dump(self.parameters, sort_keys=False, allow_unicode=True)


def run(
    source: str | Path,
    parameters: Mapping[str, object] | None = None,
    *,
    recipe: str | None = None,
    name: str | None = None,
    root: str | Path = "runs",
) -> Path:
    """Run a paper's notebook, or any other, in a folder of its own, which is returned.

    The folder ``<root>/<key>/<name>/`` gets ``parameters.yaml`` before the run, ``notebook.ipynb`` cell by cell, and
    what the notebook writes to its parameter ``out``, if it has one: ``metrics.json``, ``metrics.csv``, ``figures/``.
    No finished run is overwritten. A run that was stopped or killed is resumed in its folder by a run of the same
    parameters: finished trainings are in the cache of weights, the last one goes on from its checkpoint. Of several
    processes under ``torchrun`` the first one writes, the others take part.

    Args:
        source: Key of a paper, or path of a notebook, whose stem is then the key.
        parameters: Values, or text, by name; they override those of the recipe.
        recipe: Name of a recipe of the paper, or path of a YAML file of parameters.
        name: Name of the folder; by default that of the recipe, or ``default``, numbered if it exists already.
        root: Folder of all runs.

    Raises:
        ValueError: If paper, recipe or a parameter is unknown, a value does not fit its type, or ``name`` is no name.
        FileNotFoundError: If the notebook or the recipe does not exist.
        FileExistsError: If the folder ``name`` holds another run, or another process runs in it.
        RunFailed: If a cell raises or the kernel dies; the notebook is kept.
        Stopped: After Ctrl-C or SIGTERM, once a training that was running is saved. A second signal kills at once.

    Example:
        >>> run("barz2022", {"epochs": 2}, name="two-epochs")  # doctest: +SKIP
        PosixPath('runs/barz2022/two-epochs')
    """
    resolved = resolve(source, parameters, recipe=recipe)
    rank, processes = this_process()
    if processes > 1:
        stop_without(os.getppid())
    if rank:
        return _follow(resolved)
    default = Path(recipe).stem if recipe else "default"
    with claimed_folder(Path(root) / resolved.key, name, default, resolved.text) as folder:
        execute(resolved, folder)
    return folder


def _follow(resolved: ResolvedRun) -> Path:
    """Execute a run whose outputs another process keeps; the folder is there only if it fails."""
    folder = Path(tempfile.mkdtemp(prefix=f"wsolnb-{this_process()[0]}-"))
    execute(replace(resolved, has_out=False), folder, log=folder / "log.txt")
    shutil.rmtree(folder)
    return folder


def resolve(
    source: str | Path, parameters: Mapping[str, object] | None = None, *, recipe: str | None = None
) -> ResolvedRun:
    """Find a notebook and check the parameters of a run; arguments and errors as in :func:`run`.

    Those of a paper also lie in their ranges (:mod:`wsolnb.runs.ranges`).

    Example:
        >>> resolve("barz2022", {"epochs": "3"}, recipe="smoke").parameters["epochs"]
        3
    """
    paper = None if str(source).endswith(".ipynb") else Paper(str(source))
    layer: dict[str, Any] = {}
    if paper and recipe is not None and not recipe.endswith((".yaml", ".yml")):
        layer = paper.recipe(recipe)
    elif recipe:
        layer = read_recipe(recipe)
    notebook = paper.notebook if paper else Path(source)
    known = known_parameters(notebook)
    given = checked(known, {**layer, **(parameters or {})}, notebook.name)
    if paper:
        require_ranges(given)
    if "out" in given:
        raise ValueError("parameter out is set by the run itself: choose its folder by name and root")
    values = {parameter.name: parameter.default for parameter in known.values()} | given
    values.pop("out", None)
    key = paper.key if paper else notebook.stem
    notebook = notebook.resolve()  # a worker may have another working directory
    return ResolvedRun(key, notebook, given, values, has_out="out" in known, warm_up=paper is not None)


# The errors that a kernel logs are of its own shutdown.
_KERNEL_OPTIONS = ("--IPKernelApp.log_level=CRITICAL", "--HistoryManager.hist_file=:memory:")
_EXTENSION = "--IPKernelApp.extra_extensions=wsolnb.runs.{}"
_HEADLESS = {"WSOLNB_HEADLESS": "1", "WSOLNB_WIDGETS": "1"}
_LOOK_EVERY = 1.0  # seconds between two looks for the run's folder
_START_TIMEOUT = 600  # seconds: the first import of torch after an installation is slow


def execute(
    resolved: ResolvedRun,
    folder: Path,
    *,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Execute a run in a folder that exists and holds no files of another run; errors as in :func:`run`.

    Progress and what cells print go to the text file ``log``, by default to standard output. The kernel gets this
    process's environment with the given variables, and this process's working directory unless ``cwd`` is given. It is
    interrupted, as by Ctrl-C, if somebody removes the folder.

    Example:
        >>> execute(resolve("barz2022", recipe="smoke"), Path("empty-folder"))  # doctest: +SKIP
    """
    write_atomic(folder / PARAMETERS, resolved.text.encode())
    values = resolved.given | ({"out": str(folder.resolve())} if resolved.has_out else {})
    launch: dict[str, Any] = {
        "extra_arguments": [*_KERNEL_OPTIONS, *(_EXTENSION.format(name) for name in _extensions(resolved))],
        "env": {**os.environ, **_HEADLESS, **(environment or {})},
        **({"cwd": str(cwd)} if cwd else {}),
    }
    target, total = folder / NOTEBOOK, count_cells(resolved.notebook) + bool(values)  # papermill adds a cell of values
    for attempt in (1, 2):  # a kernel that does not start, for want of a free port, is tried twice
        kernel = Kernel()
        with Interruption(kernel.request_interrupt) as stop, _interrupted_without(folder, kernel):
            try:
                with (
                    log.open("a", encoding="utf-8") if log else nullcontext() as file,
                    CellProgress(total, file) as progress,
                ):
                    run_sync(kernel.start_kernel)(**launch)
                    _execute_in(kernel, resolved.notebook, target, values, progress, stop)
            except (_StopRequested, RunFailed):
                if stop.number:
                    raise Stopped(stop.number, progress.cell, target) from None
                raise
            except RuntimeError as error:
                if attempt == 2:
                    raise RunFailed(f"the kernel did not start, tried twice: {error}", target) from error
            else:
                return
            finally:
                if kernel.has_kernel:
                    run_sync(kernel.shutdown_kernel)(now=True)


@contextmanager
def _interrupted_without(folder: Path, kernel: Kernel) -> Iterator[None]:
    """Within it, interrupt the kernel once the folder is gone: on a cluster, its sweep was stopped."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK_EVERY):
            try:
                folder.stat()
            except FileNotFoundError:
                if not kernel.interrupt_requested:
                    kernel.interrupt_cell()
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _extensions(resolved: ResolvedRun) -> list[str]:
    """The modules that the kernel loads before the first cell."""
    together = this_process()[1] > 1
    return ["processes"] * together + ["warm_up"] * resolved.warm_up


class _StopRequested(Exception):
    """The signal came between two cells, when the kernel ignores it."""


def _execute_in(
    kernel: Kernel, notebook: Path, target: Path, values: dict[str, Any], progress: CellProgress, stop: Interruption
) -> None:
    import papermill  # takes seconds, during which the kernel starts
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from wsolnb.runs import papermill_engine

    def on_cell_start(cell: Any, cell_index: int) -> None:
        kernel.cell_started = False
        if stop.number:
            raise _StopRequested
        progress.on_cell_start(cell, cell_index)

    papermill_engine.write_whole(target)
    try:
        papermill.execute_notebook(
            notebook,
            target,
            values,
            engine_name=papermill_engine.NAME,
            kernel=kernel,
            kernel_name="python3",
            language="python",
            start_timeout=_START_TIMEOUT,
            progress_bar=False,
            on_cell_start=on_cell_start,
            on_cell_execute=progress.on_cell_execute,
            stdout_file=progress,
            stderr_file=progress,
        )
    except PapermillExecutionError as error:
        raise RunFailed(_cell_message(error, progress.cell), target) from None
    except RuntimeError as error:
        if progress.cell or isinstance(error, DeadKernelError):
            message = f"the kernel died in {progress.cell}: out of memory, or killed from outside"
            raise RunFailed(message, target) from error
        raise


def _cell_message(error: Any, cell: str) -> str:
    """The error of a cell, and the line of the cell that raised it."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
    arrow = re.search(r"^-+> *\d+ +(.*\S)", plain, re.MULTILINE)
    line = f", at: {arrow[1]}" if arrow else ""
    return f"{error.ename}: {error.evalue}\nin {cell}{line}"
