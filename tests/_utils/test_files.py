"""Files that are whole or not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wsolnb._utils.files import require_new_folder, write_atomic

FULL = """\
import resource, signal, sys
from pathlib import Path
from wsolnb._utils.files import write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path(sys.argv[1]), (b"x" * 600 for _ in range(2)))
except OSError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_file_before_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, [b"{", b"}"])
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert f"no room for {path}: " in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert path.read_bytes() == b"{}"


def test_any_other_failure_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone/a\.json cannot be written: No such file"):
        write_atomic(tmp_path / "gone" / "a.json", b"")


def test_a_folder_for_results_is_new(tmp_path: Path) -> None:
    require_new_folder(tmp_path)
    (tmp_path / ".lock").touch()
    require_new_folder(tmp_path, but=(".lock",))
    with pytest.raises(FileExistsError, match="is no empty folder: nothing is overwritten, give a new folder"):
        require_new_folder(tmp_path)
