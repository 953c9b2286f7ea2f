"""The kernel of a run: of this very interpreter, and stopped in a way that lets a training save itself."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.log import logger


class Kernel(AsyncKernelManager):
    """Starts the kernel of this very interpreter, whatever kernels the user has registered as ``python3``.

    Attributes:
        begun: Whether it has begun the cell that it was sent last; before that it heeds no signal.
        asked: Whether it was asked to stop.
    """

    begun, asked = False, False

    def stop_cell(self, number: int) -> None:
        """Stop the running cell as Ctrl-C would, or the one that was just sent, once it runs.

        Args:
            number: The signal that asks for it, to say so.
        """
        os.write(2, f"{signal.Signals(number).name}: stopping; a training saves first. Again to kill it\n".encode())
        self.asked = True
        self._interrupt()

    def begin_cell(self) -> None:
        """Note that a cell runs now."""
        self.begun = True
        if self.asked:
            self._interrupt()

    def _interrupt(self) -> None:
        process = getattr(self.provisioner, "pid", None)
        if self.begun and process:
            os.kill(process, signal.SIGINT)  # not its workers: a training needs them to end its step

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(parent=self, kernel_dirs=[])


NAME = "wsolnb"
_SAVE_EVERY = timedelta(seconds=30)
_REPLY_TIMEOUT = 1.0  # seconds after the end of a cell that was stopped


class _Client(PapermillNotebookClient):
    """Lets the kernel know when it can be stopped, and notices when it was, but has not said so.

    The notebook is saved as each cell begins, while the kernel is at work, and now and then within a long one.
    """

    save: Callable[..., None]

    def execute(self, **options: Any) -> None:
        """Execute the notebook, without the saves that would keep the next cell waiting."""
        self.save = self.nb_man.save
        self.nb_man.save = self._save_now_and_then
        try:
            super().execute(**options)
        finally:
            self.nb_man.save = self.save

    def _save_now_and_then(self, **options: Any) -> None:
        if self.nb_man.now() - self.nb_man.last_save_time > _SAVE_EVERY:
            self.save(**options)

    def process_message(self, msg: dict[str, Any], *args: Any, **options: Any) -> Any:
        """Take a message of the kernel."""
        if msg["msg_type"] == "execute_input":
            self.km.begin_cell()
            self.save()
        elif msg["content"].get("execution_state") == "idle" and self.km.asked:
            # struck between two steps of its own, the kernel gives up the cell and sends no reply
            asyncio.get_running_loop().call_later(_REPLY_TIMEOUT, self.task_poll_for_reply.cancel)
        return super().process_message(msg, *args, **options)


class StartedKernel(NBClientEngine):
    """Executes a notebook in the kernel that it is given, and kills that at the end.

    Whatever the notebook leaves is written by then, and a kernel that is asked to leave takes over a second for it.
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
        """Execute, and save as it goes.

        Args:
            nb_man: Papermill's record of the notebook.
            kernel_name: The kernel that the notebook names; not looked at.
            kernel: The kernel, started.
            input_path: Where the notebook comes from; not looked at.
            start_timeout: Seconds that the kernel may take to answer.
            **options: Hooks and output files, for ``nbclient.NotebookClient``.
        """
        options |= {"log": logger, "startup_timeout": start_timeout, "shutdown_kernel": "immediate"}
        _Client(nb_man, km=kernel, **options).execute(cleanup_kc=True)


papermill_engines.register(NAME, StartedKernel)
