"""Papermill's engine for a kernel that was started before; in a module of its own, as papermill takes long to load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.log import logger

from wsolnb.kernel import Kernel

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
