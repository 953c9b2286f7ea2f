"""The kernel of a run: of this very interpreter, and stopped in a way that lets a training save itself."""

from __future__ import annotations

import os
import signal

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager


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
