"""`wsolnb eval`: what it writes, and whose scores and validation maps are whose."""

from __future__ import annotations

import json
import re
import shutil

import pandas as pd
import pytest
import typer
from saved_splits import evaluated, values, write_boxed, write_masked, write_two_splits
from typer.testing import CliRunner

from wsolnb.cli.evaluate import Protocol, by_method, eval_command
from wsolnb.localization.evaluate import PROTOCOLS

app = typer.Typer()
app.command()(eval_command)


def test_the_command_offers_all_protocols():
    assert tuple(Protocol) == PROTOCOLS


def test_the_command_writes_json_and_csv(tmp_path, monkeypatch):
    folder, _, _ = write_boxed(tmp_path)
    arguments = [str(folder / "maps"), "--metadata", str(folder / "split"), "--protocol", "maxboxaccv2"]
    result = CliRunner().invoke(
        app, [*arguments, "--thresholds", "20", "--threshold", "0.25", "--out", str(folder / "o")]
    )
    assert result.exit_code == 0, result.output
    written = json.loads((folder / "o" / "eval.json").read_text())
    expected, _ = evaluated(folder / "maps", folder / "split", thresholds=20, threshold=0.25)
    assert values(written) == values(expected)
    assert f"{100 * values(written)['MaxBoxAccV2', 'fixed']:.2f} " in result.output
    table = pd.read_csv(folder / "o" / "eval.csv")
    assert list(table) == ["method", "threshold", "MaxBoxAccV2@0.3", "MaxBoxAccV2@0.5", "MaxBoxAccV2@0.7"]
    assert len(table) == 20
    monkeypatch.chdir(folder)
    assert CliRunner().invoke(app, [*arguments, "--thresholds", "5"]).exit_code == 0
    assert (folder / "runs" / "eval" / "maps" / "eval.json").is_file()


def test_every_evaluation_has_a_folder_of_its_own(tmp_path, monkeypatch):
    folder, _, _ = write_boxed(tmp_path)
    monkeypatch.chdir(folder)
    for name in ("A/cam.v1", "B/cam.v2", "B/cam.v1"):
        shutil.copytree(folder / "maps", folder / name)

    def evaluate(maps, *options):
        return CliRunner().invoke(app, [maps, "--metadata", "split", "--thresholds", "5", *options])

    for maps, protocol in (("A/cam.v1", "maxboxacc"), ("B/cam.v2", "maxboxacc"), ("B/cam.v1", "maxboxaccv2")):
        assert evaluate(maps, "--protocol", protocol).exit_code == 0
    found = {path.parent.name: json.loads(path.read_text()) for path in (folder / "runs").rglob("eval.json")}
    written = {
        name: (result["methods"][name.removesuffix("-2")]["maps"], *result["protocols"])
        for name, result in found.items()
    }
    assert written == {
        "cam.v1": ("A/cam.v1", "maxboxacc"),
        "cam.v2": ("B/cam.v2", "maxboxacc"),
        "cam.v1-2": ("B/cam.v1", "maxboxaccv2"),
    }
    (folder / "new").mkdir()
    assert evaluate("maps", "--out", "new").exit_code == 0
    before = (folder / "new" / "eval.json").read_bytes()
    again = evaluate("maps", "--out", "new")
    assert isinstance(again.exception, FileExistsError)
    assert "new exists and is no empty folder: nothing is overwritten" in str(again.exception)
    assert (folder / "new" / "eval.json").read_bytes() == before
    assert not list(folder.rglob("*.partial"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two splits with maps and scores of two methods; evaluated together in all formats."""
    folder = write_two_splits(tmp_path_factory.mktemp("two"))
    arguments = [f"cam_50%={folder / 'test-a'}", f"[has]={folder / 'test-b'}", "--metadata", str(folder / "test")]
    arguments += ["--scores", f"[has]={folder / 'b.npy'}", "--tune", f"{folder / 'val'}:{folder / 'val-a'}"]
    arguments += ["--tune", f"{folder / 'val'}:{folder / 'val-b'}", "--thresholds", "20"]
    for kind in ("md", "tex", "csv"):
        result = CliRunner().invoke(app, [*arguments, "--format", kind, "--out", str(folder / kind)])
        assert result.exit_code == 0, (result.output, result.exception)
        assert sorted(path.name for path in (folder / kind).iterdir()) == ["eval.csv", "eval.json", f"table.{kind}"]
    return folder


def expected_cells(folder):
    """Cells of the table by method, kind of threshold and number, from the numbers in eval.json."""
    result = json.loads((folder / "md" / "eval.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    cells = {}
    for row in [*result["numbers"], *result["differences"]]:
        sign = "+" if "minus" in row else ""
        value, low, high = (f"{100 * row[key]:{sign}.2f}" for key in ("value", "low", "high"))
        name = f"{row['method']} - {row['minus']}" if "minus" in row else row["method"]
        heading = row["name"].replace("MaxBoxAccV2@", "V2@")
        heading = "GT-known (MaxBoxAcc)" if heading == "MaxBoxAcc" else heading
        cells[name, row["kind"], heading] = f"{value} [{low}, {high}]"
    return cells


def cells_of(table):
    return {
        (row["method"], row["threshold"], column): row[column]
        for _, row in table.iterrows()
        for column in table.columns[2:]
        if row[column]
    }


COLUMNS = ["GT-known (MaxBoxAcc)", "Top-1", "Top-5", "MaxBoxAccV2", "V2@0.3", "V2@0.5", "V2@0.7", "PxAP", "pixel IoU"]


def test_the_markdown_table_reads_back(folder):
    lines, notes = (folder / "md" / "table.md").read_text().split("\n\n")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines.splitlines()]
    table = pd.DataFrame(rows[2:], columns=rows[0])
    assert list(table.columns) == ["method", "threshold", *COLUMNS]
    assert list(table.method) == ["cam_50%", "[has]", "[has] - cam_50%"] * 2
    assert list(table.threshold) == ["oracle"] * 3 + ["fixed"] * 3
    assert cells_of(table) == expected_cells(folder)
    assert "- No Top-1, Top-5 of cam_50%: no scores of it were given (--scores)." in notes.splitlines()
    assert re.search(r"\n- No PxAP, pixel IoU: pxap needs masks, but localization.txt in \S+ has none\.\n", notes)
    assert "(paired)" in notes
    result = json.loads((folder / "md" / "eval.json").read_text())
    at = {row["name"]: row["threshold"] for row in result["numbers"]
          if (row["method"], row["kind"]) == ("[has]", "fixed")}  # fmt: skip
    v2 = ", ".join(f"V2@{iou} {at[f'MaxBoxAccV2@{iou}']:.4g}" for iou in (0.3, 0.5, 0.7))
    (line,) = (line for line in notes.splitlines() if line.startswith("- Thresholds of [has], fixed, chosen on "))
    assert v2 in line


def test_the_latex_table_reads_back(folder):
    text = (folder / "tex" / "table.tex").read_text()
    body, notes = text.split("\\end{tabular}")
    rows = [re.sub(r"^\{\}| \\\\$", "", line) for line in body.splitlines() if line.endswith("\\\\")]
    plain = [row.replace("$-$", "-").replace("\\_", "_").replace("\\%", "%") for row in rows]
    table = pd.DataFrame([row.split(" & ") for row in plain[1:]], columns=plain[0].split(" & "))
    assert cells_of(table) == expected_cells(folder)
    assert body.count(r"\midrule") == 2
    assert "\n{}[has] & oracle & " in body  # not an option of the line before
    for special in "_%":
        assert re.findall(rf"(?<!\\){special}", body.split("\n", 1)[1] + notes) == []


def test_the_csv_table_reads_back(folder):
    table = pd.read_csv(folder / "csv" / "table.csv")
    result = json.loads((folder / "md" / "eval.json").read_text())
    assert len(table) == len(result["numbers"]) + len(result["differences"])
    alone = table[table.minus.isna()]
    assert list(alone.value) == pytest.approx([row["value"] for row in result["numbers"]])
    assert list(alone.threshold.dropna()) == [row["threshold"] for row in result["numbers"] if row["threshold"]]
    assert set(table[table.minus.notna()].minus) == {"cam_50%"}


def test_masks_make_a_table_of_pixels(tmp_path):
    folder, _ = write_masked(tmp_path)
    arguments = [str(folder / "maps"), "--metadata", str(folder / "split"), "--masks", str(folder)]
    result = CliRunner().invoke(app, [*arguments, "--out", str(folder / "o")])
    assert result.exit_code == 0, result.output
    header, _, row, *_ = (folder / "o" / "table.md").read_text().splitlines()
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert cells["GT-known (MaxBoxAcc)"] == cells["MaxBoxAccV2"] == ""
    assert re.fullmatch(r"\d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\]", cells["PxAP"])
    assert "No GT-known (MaxBoxAcc), Top-1, Top-5: maxboxacc needs boxes" in result.output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a.npy"], r"2 methods but 1 --scores: say whose each is \(--scores cam=...\)"),
        (["tap=a.npy"], "--scores tap=a.npy: no method 'tap' among cam, has"),
        (["cam=a.npy", "b.npy"], "--scores b.npy: no method '' among cam, has"),
        (["cam=a.npy", "cam=b.npy"], "--scores cam=b.npy: 'cam' is given twice"),
    ],
)
def test_what_belongs_to_no_method(given, message):
    with pytest.raises(ValueError, match=message):
        by_method(given, ["cam", "has"], "--scores")


def test_paths_may_have_an_equals_sign_behind_a_slash(tmp_path):
    folder, _, _ = write_boxed(tmp_path)
    (folder / "lr=1").mkdir()
    shutil.move(folder / "maps", folder / "lr=1" / "maps")
    common = ["--metadata", str(folder / "split"), "--thresholds", "5"]
    result = CliRunner().invoke(app, [f"{folder}/lr=1/maps", *common, "--out", str(folder / "o")])
    assert result.exit_code == 0, result.output
    assert list(json.loads((folder / "o" / "eval.json").read_text())["methods"]) == ["maps"]
    twice = CliRunner().invoke(app, [*[f"{folder}/lr=1/maps"] * 2, *common])
    assert "two methods are named 'maps': give NAME=MAPS" in str(twice.exception)
    badly = CliRunner().invoke(app, [f"{folder}/lr=1/maps", *common, "--tune", "val"])
    assert "--tune val: give the metadata of another split and its maps, as VAL:MAPS" in str(badly.exception)
