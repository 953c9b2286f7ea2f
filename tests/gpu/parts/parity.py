"""The tests of tests/gpu/test_gpu_parity.py on this device: a row for each, with the number of cases that passed."""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from gpu_parts import DEVICE, TINY, row

FILE = Path(__file__).parents[1] / "test_gpu_parity.py"
CASES = f"{DEVICE} and not (vgg16 or resnet50 or mobilenet_v2)" if TINY else DEVICE


class Rows:
    """Prints the row of a test anew after every case of it, so that a part that is ended shows what it did."""

    def __init__(self) -> None:
        self.tests: dict[str, Counter[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or (report.when == "setup" and not report.passed):
            name = report.nodeid.partition("::")[2].partition("[")[0]
            counts = self.tests.setdefault(name, Counter())
            counts[report.outcome] += 1
            with redirect_stdout(shown), row(name.removeprefix("test_").replace("_", " ")) as cells:
                cells |= {"passed": counts["passed"], "of": counts.total()}


shown = sys.stdout
os.environ.pop(
    "PYTEST_ADDOPTS", None
)  # meant for another run: two must not share a `--basetemp`, which each one empties
with redirect_stdout(sys.stderr):
    code = pytest.main([str(FILE), "-q", "-m", "", "-p", "no:cacheprovider", "-k", CASES], plugins=[Rows()])
if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
    sys.exit(f"pytest could not run the tests: {pytest.ExitCode(code).name}")
