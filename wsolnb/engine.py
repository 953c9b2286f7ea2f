"""Papermill's engine for a kernel that was started before; in a module of its own, as papermill takes long to load."""

from __future__ import annotations

from typing import Any

from jupyter_client.manager import AsyncKernelManager
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.log import logger

NAME = "wsolnb"


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
        kernel: AsyncKernelManager,
        input_path: str,
        start_timeout: int,
        **options: Any,
    ) -> None:
        """Execute, and save after every cell.

        Args:
            nb_man: Papermill's record of the notebook.
            kernel_name: The kernel that the notebook names; not looked at.
            kernel: The kernel, started.
            input_path: Where the notebook comes from; not looked at.
            start_timeout: Seconds that the kernel may take to answer.
            **options: Hooks and output files, for ``nbclient.NotebookClient``.
        """
        options |= {"log": logger, "startup_timeout": start_timeout, "shutdown_kernel": "immediate"}
        PapermillNotebookClient(nb_man, km=kernel, **options).execute(cleanup_kc=True)


papermill_engines.register(NAME, StartedKernel)
