"""Small notebooks, really executed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from wsolnb.runs import run as runs
from wsolnb.runs.run import NOTEBOOK, RunFailed, run

PARAMETERS = """\
epochs: int = 1  # passes
name: str = "a"  # whose
out: str = ""  # where results go
"""
Maker = Callable[..., Path]


@pytest.fixture
def demo(tmp_path: Path) -> Maker:
    """Writes a notebook of a parameters cell and the given code, without any kernelspec."""

    def make(*sources: str) -> Path:
        cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), new_markdown_cell("## Work\ntext")]
        path = tmp_path / "demo.ipynb"
        nbformat.write(new_notebook(cells=cells + [new_code_cell(source) for source in sources]), path)
        return path

    return make


def test_a_run_keeps_everything_in_its_folder(demo: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = demo(
        "import os, sys\nfor epoch in range(epochs):\n    print(f'epoch {epoch + 1}/{epochs} of {name!r}')",
        "print('working\\rdone', os.environ['WSOLNB_HEADLESS'])\nprint(sys.executable)\nprint('odd', file=sys.stderr)",
        "from wsolnb.runs.record import record\n_ = record(out, {'epochs': epochs}, {'cam': {'ap25': 0.5}})",
    )
    recipe = tmp_path / "long.yaml"
    recipe.write_text("epochs: 3\nname: '8'\n")
    before = source.read_bytes()
    folder = run(source, {"name": "007"}, recipe=str(recipe), root=tmp_path / "runs")

    assert folder == tmp_path / "runs" / "demo" / "long"
    assert yaml.safe_load((folder / "parameters.yaml").read_text()) == {"epochs": 3, "name": "007"}
    assert json.loads((folder / "metrics.json").read_text())["parameters"] == {"epochs": 3}
    executed = nbformat.read(folder / NOTEBOOK, as_version=4)
    assert [cell.execution_count for cell in executed.cells if cell.cell_type == "code"] == [1, 2, 3, 4, 5]
    assert source.read_bytes() == before
    shown = capsys.readouterr().out.splitlines()
    assert shown == [
        "[1/5]",
        "[2/5]",
        "[3/5] Work",
        *(f"epoch {epoch}/3 of '007'" for epoch in (1, 2, 3)),
        "[4/5] Work",
        "done 1",
        sys.executable,
        "odd",
        "[5/5] Work",
    ]


def test_only_for_notebooks_of_papers_the_kernel_is_warmed_up(
    demo: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = demo("import sys\nprint('torch' in sys.modules, 'torch' in globals())")
    run(source, root=tmp_path / "runs")
    monkeypatch.setattr(runs, "Paper", lambda key: SimpleNamespace(key=key, notebook=source))
    run("demo", root=tmp_path / "runs")
    shown = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("[")]
    assert shown == ["False False", "True False"]


def test_runs_never_overwrite_each_other(demo: Maker, tmp_path: Path) -> None:
    source = demo("1")
    first, second = (run(source, root=tmp_path / "runs") for _ in range(2))
    assert (first.name, second.name) == ("default", "default-2")
    named = run(source, name="named", root=tmp_path / "runs")
    kept = (named / NOTEBOOK).read_bytes()
    with pytest.raises(FileExistsError, match="named exists already: choose another name"):
        run(source, name="named", root=tmp_path / "runs")
    assert (named / NOTEBOOK).read_bytes() == kept


@pytest.mark.parametrize("name", ["", "..", "a/b", "/tmp", "a b", "-x"])
def test_odd_names_are_refused(demo: Maker, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no name for a run"):
        run(demo("1"), name=name, root=tmp_path / "runs")


def test_a_failing_cell_keeps_the_notebook_and_says_where(demo: Maker, tmp_path: Path) -> None:
    source = demo("def deep():\n    raise ValueError('no classes left after min_boxes=8')", "deep()", "print('never')")
    with pytest.raises(RunFailed) as caught:
        run(source, root=tmp_path / "runs")
    assert str(caught.value) == "ValueError: no classes left after min_boxes=8\nin cell 4 (Work), at: deep()"
    executed = nbformat.read(caught.value.notebook, as_version=4)
    assert any(output.output_type == "error" for cell in executed.cells for output in cell.get("outputs", []))
    assert executed.cells[-1].execution_count is None
    assert caught.value.notebook == tmp_path / "runs" / "demo" / "default" / NOTEBOOK


def test_a_kernel_that_dies_is_told_apart(demo: Maker, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"the kernel died in cell 3 \(Work\)") as caught:
        run(demo("import os\nos._exit(9)", "1"), root=tmp_path / "runs")
    assert caught.value.notebook.exists()
    assert not (caught.value.notebook.parent / "metrics.json").exists()


def test_a_kernel_that_does_not_start_is_tried_again(
    demo: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []

    class Flaky(runs.Kernel):
        async def start_kernel(self, **options: object) -> None:
            starts.append(1)
            if len(starts) in failing:
                raise RuntimeError("no free port")
            await super().start_kernel(**options)

    monkeypatch.setattr(runs, "Kernel", Flaky)
    failing = {1}
    assert (run(demo("1"), root=tmp_path / "runs") / NOTEBOOK).exists()
    assert len(starts) == 2
    failing = {3, 4}
    with pytest.raises(RunFailed, match="the kernel did not start, tried twice: no free port"):
        run(demo("1"), root=tmp_path / "runs")


def test_the_kernel_is_this_interpreters_own(
    demo: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "jupyter" / "kernels" / "python3"
    other.mkdir(parents=True)
    spec = {"argv": ["/nowhere/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "other"}
    (other / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    run(demo("import sys\nprint(sys.executable)"), root=tmp_path / "runs")
    assert sys.executable in capsys.readouterr().out


def test_parameters_are_checked_before_anything_is_written(demo: Maker, tmp_path: Path) -> None:
    for given, said in (
        ({"epohcs": 1}, r"demo.ipynb has no parameter 'epohcs' \(did you mean 'epochs'\?\); known: epochs, name, out"),
        ({"epochs": "many"}, "parameter epochs wants int, which 'many' is not"),
        ({"name": 7}, "parameter name wants str"),
        ({"out": "here"}, "out is set by the run itself"),
    ):
        with pytest.raises(ValueError, match=said):
            run(demo("1"), given, root=tmp_path / "runs")
    with pytest.raises(FileNotFoundError, match="no recipe"):
        run(demo("1"), recipe=str(tmp_path / "gone.yaml"), root=tmp_path / "runs")
    with pytest.raises(FileNotFoundError, match="no notebook"):
        run(tmp_path / "gone.ipynb", root=tmp_path / "runs")
    with pytest.raises(ValueError, match="no paper 'nobody2000'"):
        run("nobody2000", root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
