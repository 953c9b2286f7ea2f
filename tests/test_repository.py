"""The repository as others find it: its commands, its environment, its style, and what must not be in it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from wsolnb._utils.cache import cache_folder
from wsolnb.cli.app import app
from wsolnb.runs.paper import Paper

ALLOWED_AT_THE_TOP = {
    "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "README.md", "VERDICTS.md", "docs", "environment.yml",
    "notebooks", "papers", "pyproject.toml", "tests", "wsolnb",
}  # fmt: skip
CHECKS = [["ruff", "check", "."], ["mypy"], ["pytest"]]
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".csv", ".cfg", ".txt", ".ipynb", ".js", ".css", ""}


@pytest.fixture(scope="module")
def tracked(repo: Path) -> list[Path]:
    if not (repo / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repo, capture_output=True, text=True, check=True).stdout
    return [repo / name for name in listed.split("\0") if name and (repo / name).exists()]


@pytest.fixture(scope="module")
def project(repo: Path) -> dict:
    return tomllib.loads((repo / "pyproject.toml").read_text())["project"]


def commands(repo: Path) -> list[str]:
    """The one-line commands that the README gives as 'Run it' and 'Check it'."""
    readme = (repo / "README.md").read_text(encoding="utf-8")
    return [
        re.search(rf"^## {title}\n.*?```sh\n(.*?)\n```", readme, re.MULTILINE | re.DOTALL)[1]  # type: ignore[index]
        for title in ("Run it", "Check it")
    ]


def own_extras(requirement: str) -> list[str]:
    """The extras of this package that a requirement such as ``wsolnb[a,b]`` names."""
    return re.fullmatch(r"wsolnb\[([a-z,]+)\]", requirement)[1].split(",")  # type: ignore[index]


def test_the_first_command_names_things_that_exist(repo: Path, project: dict) -> None:
    make, install, run = (shlex.split(part) for part in commands(repo)[0].split("&&"))
    assert make == ["python3", "-m", "venv", ".venv"]
    assert install == [".venv/bin/pip", "install", "-e", ".[notebooks]"]
    program, subcommand, key = run
    assert program == ".venv/bin/wsolnb"
    assert project["scripts"] == {"wsolnb": "wsolnb.cli.app:app"}
    assert entry_points(group="console_scripts", name="wsolnb")["wsolnb"].load() is app
    assert subcommand in get_command(app).commands  # type: ignore[attr-defined]
    assert Paper(key).notebook.exists()


def test_the_second_command_installs_and_checks(repo: Path, project: dict) -> None:
    make, install, *checks = (shlex.split(part) for part in commands(repo)[1].split("&&"))
    assert make == ["python3", "-m", "venv", "--clear", ".venv-test"]
    assert install[:-1] == [".venv-test/bin/pip", "install", "-e"]
    extras = re.fullmatch(r"\.\[(.*)\]", install[-1])
    assert extras is not None
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
    assert checks == [[f".venv-test/bin/{program}", *options] for program, *options in CHECKS]


@pytest.fixture
def checkout(repo: Path, tmp_path: Path) -> Path:
    """A folder with `.ci/run` and the README alone."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_bytes((repo / ".ci" / "run").read_bytes())
    (tmp_path / "README.md").write_bytes((repo / "README.md").read_bytes())
    return tmp_path


def ci(folder: Path, *parts: str, fail: str = "") -> subprocess.CompletedProcess[str]:
    """Run `.ci/run` with programs that print what they are called with; those named `fail` fail."""
    program = f"""#!/bin/sh
if [ "${{0##*/}}" = python3 ]; then
  mkdir -p .venv-test/bin && for name in pip ruff mypy pytest; do cp "$0" .venv-test/bin/$name; done
fi
echo "${{0##*/}}" "$@"
[ "${{0##*/}}" != "{fail}" ] || exit 7
"""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "python3").write_text(program)
    (folder / "bin" / "python3").chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    environment["WSOLNB_CHROMIUM"] = "given"  # so that none is looked for or installed
    return subprocess.run(["bash", ".ci/run", *parts], cwd=folder, env=environment, capture_output=True, text=True)


QUICK = [" ".join(check) for check in CHECKS]
SLOW = ["pytest -m slow"]
BENCH = ["pip install -e .[bench]", "pytest -s -m bench"]


@pytest.mark.parametrize(
    ("parts", "checks"),
    [
        ([], QUICK + SLOW),
        (["quick"], QUICK),
        (["slow"], SLOW),
        (["bench"], BENCH),
        (["quick", "slow", "bench"], QUICK + SLOW + BENCH),
    ],
    ids=lambda value: None if value and " " in value[0] else "-".join(value) or "default",
)
def test_ci_runs_its_parts_in_one_environment(checkout: Path, parts: list[str], checks: list[str]) -> None:
    done = ci(checkout, *parts)
    assert done.returncode == 0, done.stderr
    called = [line for line in done.stdout.splitlines() if not line.startswith("+ ")]
    assert called == ["python3 -m venv --clear .venv-test", "pip install -e .[test,lint,docs]", *checks]
    if checks[:3] == QUICK:
        assert done.stdout.splitlines()[0] == f"+ {commands(checkout)[1]}"


@pytest.mark.parametrize(("program", "last"), [("python3", "python3 -m venv --clear .venv-test"), ("mypy", "mypy")])
def test_ci_stops_at_the_first_failure(checkout: Path, program: str, last: str) -> None:
    done = ci(checkout, fail=program)
    assert done.returncode == 7
    assert done.stdout.splitlines()[-1] == last


def test_ci_refuses_what_it_does_not_know(checkout: Path) -> None:
    done = ci(checkout, "quick", "fast")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no part 'fast': quick, slow or bench" in done.stderr
    (checkout / "README.md").write_text("## Check it\n\nnothing here\n")
    done = ci(checkout)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no command found" in done.stderr


@pytest.mark.parametrize("user", [0, 1000], ids=["root", "user"])
def test_ci_says_that_it_has_no_browser_and_goes_on(checkout: Path, user: int) -> None:
    (checkout / "README.md").write_text("## Check it\n\n```sh\npython3 -m this\n```\n")
    programs = checkout / "bin"  # neither a browser, nor apt-get, nor sudo
    programs.mkdir()
    for name in ("bash", "awk", "head", "dirname", "mkdir"):
        (programs / name).symlink_to(shutil.which(name) or pytest.skip(f"no {name}"))
    for name, line in (("id", f"echo {user}"), ("python3", 'echo "need=$WSOLNB_NEED_BROWSER $@"')):
        (programs / name).write_text(f"#!{shutil.which('sh')}\n{line}\n")
        (programs / name).chmod(0o755)
    settings = {"cwd": checkout, "capture_output": True, "text": True}
    done = subprocess.run(["bash", ".ci/run", "quick"], env={"PATH": str(programs)}, **settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "need= -m this"
    assert "the browser tests will be skipped" in done.stderr
    assert ("no apt-get" if user == 0 else "not root") in done.stderr
    given = {"PATH": str(programs), "WSOLNB_CHROMIUM": "/opt/browser"}
    done = subprocess.run(["bash", ".ci/run", "quick"], env=given, **settings)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("need=1 -m this", "")


def test_the_workflow_runs_the_same_script(repo: Path, project: dict) -> None:
    workflow = yaml.safe_load((repo / ".github" / "workflows" / "ci.yml").read_text())
    jobs, events = workflow["jobs"], workflow[True]  # YAML 1.1 reads `on` as true
    assert {job: [step["run"] for step in jobs[job]["steps"] if "run" in step] for job in jobs} == {
        "test": [".ci/run ${{ matrix.part }}"], "bench": [".ci/run bench"]
    }  # fmt: skip
    assert {"push", "pull_request", "schedule"} == set(events)
    assert jobs["test"]["if"] == "github.event_name != 'schedule'"
    assert jobs["bench"]["if"] == "github.event_name == 'schedule'"
    assert any("upload-artifact" in step.get("uses", "") for step in jobs["test"]["steps"])
    assert os.access(repo / ".ci" / "run", os.X_OK)

    named = [line.rpartition(" ")[2] for line in project["classifiers"] if "Python :: 3." in line]
    matrix = [(row["part"], row["python"]) for row in jobs["test"]["strategy"]["matrix"]["include"]]
    (nightly,) = [
        step["with"]["python-version"] for step in jobs["bench"]["steps"] if "setup-python" in step.get("uses", "")
    ]
    assert [python for part, python in matrix if part == "quick"] == [named[0], named[-1]]
    assert [part for part, _ in matrix].count("slow") == 1
    assert {*(python for _, python in matrix), nightly} == set(named)
    assert project["requires-python"] == f">={named[0]}"


def test_environment_and_pyproject_ask_for_the_same(repo: Path, project: dict) -> None:
    environment = yaml.safe_load((repo / "environment.yml").read_text())
    python, _, pip = environment["dependencies"]
    assert python == f"python {project['requires-python']}"
    extras = project["optional-dependencies"]
    (own, *test) = extras["test"]
    used = [name for extra in own_extras(own) for name in extras[extra]]
    assert pip["pip"] == [*project["dependencies"], *used, *test, *extras["lint"], "--editable ."]


def test_the_citation_is_of_this_version(repo: Path, project: dict) -> None:
    citation = yaml.safe_load((repo / "CITATION.cff").read_text(encoding="utf-8"))
    assert {name: str(citation[name]) for name in ("version", "license")} == {
        name: project[name] for name in ("version", "license")
    }
    assert citation["authors"] == project["authors"] == [{"name": "The wsolnb authors"}]
    assert citation["title"].startswith("wsolnb: ")


def test_dependencies_have_lower_bounds_only(project: dict) -> None:
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    ours = [name for name in wanted if name.startswith("wsolnb")]
    assert {extra for name in ours for extra in own_extras(name)} <= set(project["optional-dependencies"])
    wanted = [name for name in wanted if name not in ours]
    assert [name for name in wanted if not re.fullmatch(r"[A-Za-z0-9_.-]+>=[0-9.]+", name)] == []


def test_the_top_level_is_as_planned(repo: Path, tracked: list[Path]) -> None:
    top = {path.relative_to(repo).parts[0] for path in tracked}
    assert {name for name in top if not name.startswith(".")} <= ALLOWED_AT_THE_TOP


def test_no_folder_of_a_machine_and_no_package_index_is_named(repo: Path, tracked: list[Path]) -> None:
    machine = re.compile(r"(?<![\w.:/~-])/(?:home|root|work|Users)/\w|index[-]url|/simple[/]")
    found = []
    for path in tracked:
        if path.suffix in TEXT:
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [f"{path.relative_to(repo)}:{i}" for i, line in enumerate(lines, 1) if machine.search(line)]
    assert found == []


def test_the_readme_fits_its_reader(repo: Path) -> None:
    lines = (repo / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert lines[2].startswith("![")  # a picture before any prose


def anchors(page: Path) -> set[str]:
    """The anchors of a Markdown file's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_link_leads_to_a_file_and_a_heading(repo: Path, name: str) -> None:
    links = re.findall(r"\]\(([^) ]+)\)", (repo / name).read_text(encoding="utf-8"))
    assert links
    for link in links:
        if "://" not in link:
            target, _, anchor = link.partition("#")
            page = repo / target if target else repo / name
            assert page.exists(), link
            assert not anchor or anchor in anchors(page), link


def test_the_readme_gives_commands_that_exist(repo: Path) -> None:
    lines = re.findall(r"^\.venv/bin/wsolnb (\w+)(.*)$", (repo / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    known = get_command(app).commands  # type: ignore[attr-defined]
    assert {name for name, _ in lines} <= set(known)
    for name, rest in lines:
        options = {option for parameter in known[name].params for option in parameter.opts}
        used = re.findall(r" (--?[a-z][a-z-]*)", rest.partition("#")[0])
        assert name == "data" or set(used) <= options, name


def test_files_of_the_package_stay_short(tracked: list[Path], repo: Path) -> None:
    lengths = {path: path.read_text(encoding="utf-8").count("\n") for path in tracked if path.suffix == ".py"}
    assert {str(path): n for path, n in lengths.items() if repo / "wsolnb" in path.parents and n > 450} == {}


def test_contributing_fits_two_screens(repo: Path) -> None:
    assert len((repo / "CONTRIBUTING.md").read_text().splitlines()) <= 80


def test_the_tests_have_a_cache_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert tmp_path_factory.getbasetemp() in cache_folder().parents
