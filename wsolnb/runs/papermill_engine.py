"""The papermill engine of a run. Importing papermill takes seconds, so import this while the kernel starts."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.iorw import LocalHandler, papermill_io
from papermill.log import logger

from wsolnb._utils.files import write_atomic
from wsolnb.runs.kernel import Kernel

NAME = "wsolnb"
_REPLY_TIMEOUT = 1.0  # seconds from the end of an interrupted cell to its reply


class _Whole(LocalHandler):
    """Writes notebooks so that no reader ever sees half of one, and a full disk leaves the one before."""

    def write(self, buf: str, path: str) -> None:
        with suppress(FileNotFoundError):  # its folder was removed, so that it is being interrupted
            write_atomic(Path(path), buf.encode())


class _Client(PapermillNotebookClient):
    """Tells the kernel manager when a cell has started, and does not wait for the reply of an interrupted one."""

    def process_message(self, msg: dict[str, Any], *args: Any, **options: Any) -> Any:
        if msg["msg_type"] == "execute_input":
            self.km.mark_cell_started()
        elif msg["content"].get("execution_state") == "idle" and self.km.interrupt_requested:
            # interrupted outside of the cell's own code, ipykernel gives up the request and sends no reply
            asyncio.get_running_loop().call_later(_REPLY_TIMEOUT, self.task_poll_for_reply.cancel)
        return super().process_message(msg, *args, **options)


class _Engine(NBClientEngine):
    """Executes a notebook in a kernel that was started before, and kills the kernel at the end.

    The notebook has written all its files by then, and a graceful shutdown takes over a second.
    """

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        *,
        kernel: Kernel,
        input_path: str,
        start_timeout: int,
        **options: Any,
    ) -> None:
        options |= {"log": logger, "startup_timeout": start_timeout, "shutdown_kernel": "immediate"}
        _Client(nb_man, km=kernel, **options).execute(cleanup_kc=True)


def write_whole(target: Path) -> None:
    """Have papermill write this notebook atomically.

    Example:
        >>> write_whole(Path("runs/primer/default/notebook.ipynb"))
    """
    papermill_io.register(str(target), _Whole())


papermill_engines.register(NAME, _Engine)
