"""What the subclasses of jupyter_client's kernel manager and of papermill's client are for; see also test_run."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from wsolnb.runs.kernel import Kernel
from wsolnb.runs.run import Stopped, run


def test_an_interrupt_waits_for_the_cell_to_start_and_spares_its_workers(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *signalled: sent.append(signalled))
    monkeypatch.setattr(os, "killpg", None)
    monkeypatch.setattr(Kernel, "provisioner", SimpleNamespace(pid=7))
    kernel = Kernel()
    kernel.request_interrupt(signal.SIGTERM)
    assert sent == []
    assert capfd.readouterr().err == "SIGTERM: stopping; a training saves first. Again to kill it\n"
    kernel.mark_cell_started()
    assert sent == [(7, signal.SIGINT)]


NO_REPLY = """\
import os, signal, time
session = get_ipython().kernel.session
send = session.send
def interrupted(stream, message, *args, **options):
    if message == "execute_reply":
        raise KeyboardInterrupt
    return send(stream, message, *args, **options)
session.send = interrupted
os.kill(os.getppid(), signal.SIGINT)
time.sleep(60)
"""


def test_an_interrupted_cell_without_a_reply_ends_the_run(tmp_path: Path) -> None:
    nbformat.write(new_notebook(cells=[new_code_cell(NO_REPLY)]), tmp_path / "mute.ipynb")
    with pytest.raises(Stopped, match="SIGINT: stopped in cell 1; run the same again to go on"):
        run(tmp_path / "mute.ipynb", root=tmp_path / "runs")
