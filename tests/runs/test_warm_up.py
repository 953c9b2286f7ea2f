"""What is compiled ahead is all that a notebook needs, and it is begun once."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from numba.core import event

from wsolnb.boxes import PRESETS, BoxRule
from wsolnb.metrics import CorLoc, MaxBoxAcc, MaxBoxAccV2, PxAP, TopLocalization
from wsolnb.runs import warm_up


class Compiled(event.Listener):
    """Names of the functions that are compiled while it listens."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_start(self, event: event.Event) -> None:
        self.names.append(event.data["dispatcher"].py_func.__name__)

    def on_end(self, event: event.Event) -> None:
        pass


def test_nothing_is_left_to_compile_for_rules_and_metrics() -> None:
    warm_up.call_all()
    maps, truth = torch.rand(3, 24, 20), [torch.tensor([[2.0, 2.0, 9.0, 12.0], [4.0, 4.0, 8.0, 8.0]])] * 3
    scores, labels = torch.rand(3, 4), torch.tensor([0, 1, 3])
    with event.install_listener("numba:compile", Compiled()) as seen:
        for rule in PRESETS.values():
            rule.all_boxes(maps[:, None].double(), torch.tensor([[30, 40], [24, 20], [30, 40]]))
        for way in (MaxBoxAcc(), MaxBoxAccV2(), MaxBoxAcc(rule=BoxRule(normalise="after", resize="bicubic"))):
            way.update(maps, truth)
        for rule in (BoxRule(), BoxRule(reference="percentile"), BoxRule.preset("wsoleval"), BoxRule.preset("ornet")):
            TopLocalization(rule=rule, thresholds=20, per_image=True).update(maps, truth, scores, labels)
        CorLoc(classes=4).update(maps, truth, labels)
        PxAP().update(maps, maps > 0.7, maps < 0.1)
    assert seen.names == []


def test_it_is_begun_once_for_every_state_of_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in warm_up._ROOMS:
        shutil.copytree(warm_up._PACKAGE / room, tmp_path / room)
    monkeypatch.setattr(warm_up, "_PACKAGE", tmp_path)
    command = (sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'a').write('.')")
    first = warm_up.compile_meanwhile(command)
    assert first is not None
    assert first.wait(60) == 0
    assert warm_up.compile_meanwhile(command) is None
    with (tmp_path / "boxes" / "threshold_sweep.py").open("a") as source_file:
        source_file.write("# changed\n")
    again = warm_up.compile_meanwhile(command)
    assert again is not None
    assert again.wait(60) == 0
    assert (tmp_path / "ran").read_text() == ".."


def test_where_nothing_can_be_written_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "__pycache__").write_text("a file in place of the folder")
    monkeypatch.setattr(warm_up, "_PACKAGE", tmp_path)
    assert warm_up.compile_meanwhile((sys.executable, "-c", "raise SystemExit(1)")) is None
