"""The kernel of a run: it runs this very interpreter, and an interrupt lets a training save itself first."""

from __future__ import annotations

import os
import signal

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import default


class Kernel(AsyncKernelManager):
    """Runs this interpreter, whatever kernels the user has registered as ``python3``."""

    cell_started = False  # whether the cell that was sent last has started; until then the kernel ignores SIGINT
    interrupt_requested = False  # whether the run is to stop

    def request_interrupt(self, number: int) -> None:
        """Because of a signal, say so and interrupt the cell."""
        os.write(2, f"{signal.Signals(number).name}: stopping; a training saves first. Again to kill it\n".encode())
        self.interrupt_cell()

    def interrupt_cell(self) -> None:
        """Interrupt the running cell, or as soon as it starts the one that was just sent."""
        self.interrupt_requested = True
        self._interrupt()

    def mark_cell_started(self) -> None:
        """Note that the cell runs, and deliver an interrupt that was requested before."""
        self.cell_started = True
        if self.interrupt_requested:
            self._interrupt()

    def _interrupt(self) -> None:
        pid = getattr(self.provisioner, "pid", None)
        if self.cell_started and pid:
            # not the process group, as interrupt_kernel() does: a training needs its workers to finish the step
            os.kill(pid, signal.SIGINT)

    @default("kernel_spec_manager")
    def _only_this_interpreter(self) -> KernelSpecManager:
        return KernelSpecManager(parent=self, kernel_dirs=[])
