"""Run a notebook from end to end with papermill: checked parameters, live progress, outputs together in one folder."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jupyter_client.utils import run_sync

from wsolnb._utils.signals import Interruption
from wsolnb.runs.folder import PARAMETERS, claimed_folder
from wsolnb.runs.kernel import Kernel
from wsolnb.runs.paper import Paper
from wsolnb.runs.parameters import checked, known_parameters, read_recipe
from wsolnb.runs.progress import CellProgress, count_cells

if TYPE_CHECKING:
    from papermill.exceptions import PapermillExecutionError


NOTEBOOK = "notebook.ipynb"


class RunFailed(RuntimeError):
    """A notebook did not reach its end.

    Attributes:
        notebook: The notebook as far as it came, with the error in it.
    """

    def __init__(self, message: str, notebook: Path) -> None:
        super().__init__(message)
        self.notebook = notebook


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM came; a training that was running has saved itself and said so.

    Attributes:
        number: The signal.
        notebook: The notebook as far as it came.
    """

    def __init__(self, number: int, cell: str, notebook: Path) -> None:
        at = f" in {cell}" if cell else ""
        super().__init__(f"{signal.Signals(number).name}: stopped{at}; run the same again to go on: {_GOES_ON}")
        self.number, self.notebook = number, notebook


_GOES_ON = "trainings that ended are kept, the one that ran goes on from the step at which it was saved"


def run(
    source: str | Path,
    parameters: Mapping[str, object] | None = None,
    *,
    recipe: str | None = None,
    name: str | None = None,
    root: str | Path = "runs",
) -> Path:
    """Run a paper's notebook, or any other, in a folder of its own.

    The folder ``<root>/<key>/<name>/`` gets ``parameters.yaml`` before the run, ``notebook.ipynb`` cell by cell, and
    what the notebook writes to its parameter ``out``, if it has one: ``metrics.json``, ``metrics.csv``, ``figures/``.
    Nothing that exists is overwritten, but a run of the same parameters that was stopped or killed goes on in its
    folder: trainings that ended are in the cache of weights, the one that ran goes on from its last checkpoint.

    Args:
        source: Key of a paper, or path of a notebook; then its stem is the key.
        parameters: Values, or text, by name; they go before those of the recipe.
        recipe: Name of a recipe of the paper, or path of a YAML file of parameters.
        name: Name of the folder. Without one it is the recipe's name, or ``default``, with a number behind it if that
            exists already.
        root: Where the runs are kept.

    Returns:
        The folder of the run.

    Raises:
        ValueError: If paper, recipe or a parameter is not known, a value does not fit its type, or ``name`` is no name.
        FileNotFoundError: If the notebook or the recipe does not exist.
        FileExistsError: If a folder of the given ``name`` holds another run, or another run works in it.
        RunFailed: If a cell raises or the kernel dies; the notebook is kept.
        Stopped: After Ctrl-C or SIGTERM, once a training that was running is saved. The second signal kills at once.

    Example:
        >>> run("barz2022", {"epochs": 2}, name="two-epochs")  # doctest: +SKIP
        PosixPath('runs/barz2022/two-epochs')
    """
    wanted = resolve(source, parameters, recipe=recipe)
    fallback = Path(recipe).stem if recipe else "default"
    with claimed_folder(Path(root) / wanted.key, name, fallback, _text(wanted)) as folder:
        execute(wanted, folder)
    return folder


@dataclass(frozen=True)
class Wanted:
    """A run that was asked for, checked and complete.

    Attributes:
        key: Key of the paper, or the notebook's stem.
        notebook: The notebook.
        given: The parameters that differ from the notebook's text, in their types.
        resolved: All parameters but ``out``.
        keeps: Whether the notebook has a parameter ``out``.
        preload: Whether the kernel loads the suite's packages before the first cell asks for them.
    """

    key: str
    notebook: Path
    given: dict[str, Any]
    resolved: dict[str, Any]
    keeps: bool
    preload: bool


def resolve(source: str | Path, parameters: Mapping[str, object] | None = None, *, recipe: str | None = None) -> Wanted:
    """Find a notebook and check the parameters of a run; arguments and errors as in :func:`run`.

    Example:
        >>> resolve("barz2022", {"epochs": "3"}, recipe="smoke").resolved["epochs"]
        3
    """
    key, notebook, layer = _resolve_source(str(source), recipe)
    known = known_parameters(notebook)
    given = checked(known, {**layer, **(parameters or {})}, notebook.name)
    if "out" in given:
        raise ValueError("parameter out is set by the run itself: choose its folder by name and root")
    resolved = {parameter.name: parameter.default for parameter in known.values()} | given
    resolved.pop("out", None)
    return Wanted(key, notebook, given, resolved, "out" in known, preload=not str(source).endswith(".ipynb"))


def execute(
    wanted: Wanted,
    folder: Path,
    *,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
    where: Path | None = None,
) -> None:
    """Execute a run that was checked, in a folder that exists and holds nothing of another run.

    Args:
        wanted: The run.
        folder: What its files go to.
        log: Text file that gets progress and what cells print, in place of standard output.
        environment: Variables of the kernel, besides those of this process.
        where: Working directory of the kernel; by default this process's.

    Raises:
        RunFailed: If a cell raises or the kernel dies; the notebook is kept.
        Stopped: After Ctrl-C or SIGTERM in the main thread, as in :func:`run`.

    Example:
        >>> execute(resolve("barz2022", recipe="smoke"), Path("empty-folder"))  # doctest: +SKIP
    """
    (folder / PARAMETERS).write_text(_text(wanted), encoding="utf-8")
    values = wanted.given | ({"out": str(folder.resolve())} if wanted.keeps else {})
    options = [*_KERNEL_OPTIONS, *([_PRELOAD] if wanted.preload else [])]
    launch: dict[str, Any] = {"extra_arguments": options, "env": {**os.environ, **_HEADLESS, **(environment or {})}}
    if where is not None:
        launch["cwd"] = str(where)
    _execute(wanted.notebook, folder, values, launch, log)


def _resolve_source(source: str, recipe: str | None) -> tuple[str, Path, dict[str, Any]]:
    if source.endswith(".ipynb"):
        return Path(source).stem, Path(source), read_recipe(recipe) if recipe else {}
    paper = Paper(source)
    if recipe is None:
        return paper.key, paper.notebook, {}
    layer = read_recipe(recipe) if recipe.endswith((".yaml", ".yml")) else paper.recipe(recipe)
    return paper.key, paper.notebook, layer


def _text(wanted: Wanted) -> str:
    return yaml.safe_dump(wanted.resolved, sort_keys=False, allow_unicode=True)


_KERNEL_OPTIONS = [
    "--IPKernelApp.log_level=CRITICAL",  # its errors are of its own shutdown
    "--HistoryManager.hist_file=:memory:",
]
_START_TIMEOUT = 600  # seconds: the first import of torch after an installation is slow
_PRELOAD = "--IPKernelApp.extra_extensions=wsolnb.runs.warm_up"
_HEADLESS = {"WSOLNB_HEADLESS": "1", "WSOLNB_WIDGETS": "1"}


def _execute(notebook: Path, folder: Path, values: dict[str, Any], launch: dict[str, Any], log: Path | None) -> None:
    target = folder / NOTEBOOK
    for attempt in (1, 2):
        kernel = Kernel()
        with Interruption(kernel.stop_cell) as stop:
            cell = ""
            try:
                with ExitStack() as stack:
                    file = None if log is None else stack.enter_context(log.open("a", encoding="utf-8"))
                    progress = stack.enter_context(CellProgress(count_cells(notebook) + bool(values), file))
                    run_sync(kernel.start_kernel)(**launch)
                    try:
                        _execute_in(kernel, notebook, target, values, progress, stop)
                    finally:
                        cell = progress.cell
            except (_StopHere, RunFailed):
                if stop.number:
                    raise Stopped(stop.number, cell, target) from None
                raise
            except RuntimeError as error:
                if attempt == 2:
                    raise RunFailed(f"the kernel did not start, tried twice: {error}", target) from error
            else:
                return
            finally:
                if kernel.has_kernel:
                    run_sync(kernel.shutdown_kernel)(now=True)


class _StopHere(Exception):
    """Between two cells: the kernel heeds no signal then."""


def _execute_in(
    kernel: Kernel,
    notebook: Path,
    target: Path,
    values: dict[str, Any],
    progress: CellProgress,
    stop: Interruption,
) -> None:
    import papermill  # takes seconds, in which the kernel starts
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from wsolnb.runs import kernel as engine

    def reach(cell: Any, cell_index: int) -> None:
        kernel.begun = False
        if stop.number:
            raise _StopHere
        progress.reach(cell, cell_index)

    try:
        papermill.execute_notebook(
            notebook,
            target,
            values,
            engine_name=engine.NAME,
            kernel=kernel,
            kernel_name="python3",
            language="python",
            start_timeout=_START_TIMEOUT,
            progress_bar=False,
            on_cell_start=reach,
            on_cell_execute=progress.start,
            stdout_file=progress,
            stderr_file=progress,
        )
    except PapermillExecutionError as error:
        raise RunFailed(_cell_message(error, progress.cell), target) from None
    except RuntimeError as error:
        if progress.cell or isinstance(error, DeadKernelError):
            said = f"the kernel died in {progress.cell}: out of memory, or killed from outside"
            raise RunFailed(said, target) from error
        raise


def _cell_message(error: PapermillExecutionError, cell: str) -> str:
    """The error of a cell, its message first, with the line of the cell that raised it."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
    arrow = re.search(r"^-+> *\d+ +(.*\S)", plain, re.MULTILINE)
    line = f", at: {arrow[1]}" if arrow else ""
    return f"{error.ename}: {error.evalue}\nin {cell}{line}"
