"""Data sets from a local server into their official layouts; nothing half-done is taken for done."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import layout_trees as trees
import pytest
import yaml
from filelock import FileLock
from flaky_server import Server, flaky_server
from typer.testing import CliRunner

from wsolnb.cli.app import app
from wsolnb.data.download.check import check
from wsolnb.data.download.fetch import get, missing_places, read_record
from wsolnb.data.download.sources import TABLE, Remote, Source, find, human, read_sources
from wsolnb.data.readers.layouts import TITLES
from wsolnb.data.readers.open import open_split


@pytest.fixture
def server() -> Iterator[Server]:
    with flaky_server() as running:
        yield running


def pack(path: Path, tree: Path, *tops: str) -> bytes:
    """An archive of some entries of a tree, as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as packed:
            for top in tops:
                for file in sorted((tree / top).rglob("*")) if (tree / top).is_dir() else [tree / top]:
                    packed.write(file, file.relative_to(tree))
    else:
        with tarfile.open(path, "w:gz" if path.suffix != ".tar" else "w") as tar:
            for top in tops:
                tar.add(tree / top, top)
    return path.read_bytes()


def remote(server: Server, tmp_path: Path, name: str, tree: Path, *tops: str, into: str = "", **how: object) -> Remote:
    content = pack(tmp_path / "packed" / name, tree, *tops)
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Remote(server.add(f"/{name}", content, **how), name, len(content), checksum, into)


def quiet(_: str) -> None:
    pass


def fetch(source: Source, root: Path) -> bool:
    return get(source, root, say=quiet, pause=0.0)


def files_in(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def placed(root: Path) -> dict[str, bytes]:
    return {name: content for name, content in files_in(root).items() if not name.startswith(".wsolnb")}


@pytest.fixture
def cub(server: Server, tmp_path: Path) -> Source:
    tree = trees.cub(tmp_path / "tree")
    (tree / "attributes.txt").write_bytes(random.Random(1).randbytes(400_000))  # does not shrink when packed
    return Source(
        "cub", "CUB-200-2011", "https://example.org", "for research",
        (
            remote(server, tmp_path, "CUB_200_2011.tgz", tree, "CUB_200_2011", "attributes.txt"),
            remote(server, tmp_path, "segmentations.tgz", tree, "segmentations"),
        ),
        reader="cub", classes=2, splits={"train": 4, "test": 4},
    )  # fmt: skip


def test_two_archives_arrive_in_place(cub: Source, server: Server, tmp_path: Path) -> None:
    root = tmp_path / "data"
    server.files["/CUB_200_2011.tgz"].cut_after = [30_000, 20_000]
    assert fetch(cub, root)
    assert placed(root) == files_in(tmp_path / "tree")
    assert {path.name for path in (root / ".wsolnb").iterdir()} <= {"cub.json", "cub.lock"}
    assert all(finding.good for finding in check(cub, root, deep=True))
    asked = len(server.log)
    assert asked == 4
    assert not fetch(cub, root)  # again: nothing to do, nothing asked
    assert len(server.log) == asked
    record = read_record(cub, root)
    assert record is not None
    assert record["files"]["segmentations.tgz"] == cub.files[1].checksum
    assert record["places"]["CUB_200_2011/images"] == 8


@pytest.mark.parametrize("content", ["{", "[1]", '{"title": "CUB"}'])
def test_a_damaged_record_is_named_with_what_to_do(cub: Source, tmp_path: Path, content: str) -> None:
    root = tmp_path / "data"
    fetch(cub, root)
    path = root / ".wsolnb" / "cub.json"
    path.write_text(content)
    for ask in (fetch, missing_places):
        with pytest.raises(ValueError, match=r"cub\.json is damaged.*: delete it, and `wsolnb data get` gets"):
            ask(cub, root)
    path.unlink()
    assert fetch(cub, root)
    assert placed(root) == files_in(tmp_path / "tree")


def test_what_was_prepared_is_placed_though_the_list_of_it_is_damaged(
    cub: Source, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    with monkeypatch.context() as patched:
        patched.setattr("wsolnb.data.download.fetch._place", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fetch(cub, root)
    (root / ".wsolnb" / "cub" / "ready.json").write_text("{")
    asked = len(server.log)
    assert fetch(cub, root)
    assert len(server.log) == asked
    record = read_record(cub, root)
    assert record is not None
    assert record["files"]["segmentations.tgz"] == cub.files[1].checksum


def test_lost_files_are_noticed_and_fetched_again(cub: Source, tmp_path: Path) -> None:
    root = tmp_path / "data"
    fetch(cub, root)
    shutil.rmtree(root / "segmentations" / "002.Laysan_Albatross")
    assert missing_places(cub, root) == ["segmentations", "segmentations/002.Laysan_Albatross"]
    assert any("has lost files" in finding.text for finding in check(cub, root) if not finding.good)
    assert fetch(cub, root)
    assert placed(root) == files_in(tmp_path / "tree")


def test_voc2007_of_two_archives_is_never_seen_by_halves(server: Server, tmp_path: Path) -> None:
    tree = trees.voc(tmp_path / "tree", "2007")
    base = "VOCdevkit/VOC2007"
    sets = [
        f"{base}/ImageSets/{kind}/{name}.txt" for kind in ("Main", "Segmentation") for name in ("train", "trainval")
    ]
    first = [
        f"{base}/{part}/{k:06d}.{end}"
        for part, end in (("Annotations", "xml"), ("JPEGImages", "jpg"))
        for k in range(1, 6)
    ]
    rest = [str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()]
    rest = [name for name in rest if name not in sets + first]
    source = Source(
        "voc2007", "VOC", "", "",
        (
            remote(server, tmp_path, "trainval.tar", tree, *sets, *first),
            remote(server, tmp_path, "test.tar", tree, *rest, statuses=[404]),
        ),
        reader="voc2007", splits={"trainval": 5, "test": 1},
    )  # fmt: skip
    root = tmp_path / "data"
    with pytest.raises(OSError, match="404"):
        fetch(source, root)
    assert not (root / "VOCdevkit").exists()
    assert next(finding.text for finding in check(source, root)).startswith(
        "a run of `wsolnb data get voc2007` was stop"
    )
    assert fetch(source, root)
    assert placed(root) == files_in(tree)
    assert [path for path, *_ in server.log] == ["/trainval.tar", "/test.tar", "/test.tar"]
    assert all(finding.good for finding in check(source, root))


def test_what_is_there_already_is_kept_and_never_overwritten(cub: Source, tmp_path: Path) -> None:
    root = tmp_path / "data"
    trees.cub(root, segmentations=False)
    (root / "CUB_200_2011" / "notes.txt").write_text("mine")
    (root / "CUB_200_2011" / "classes.txt").write_text("changed by somebody")
    with pytest.raises(FileExistsError, match=r"classes\.txt is there already and differs .*nothing was overwritten"):
        fetch(cub, root)
    assert (root / "CUB_200_2011" / "classes.txt").read_text() == "changed by somebody"
    assert not (root / "segmentations").exists()
    (root / "CUB_200_2011" / "classes.txt").unlink()
    assert fetch(cub, root)
    assert placed(root) == {**files_in(tmp_path / "tree"), "CUB_200_2011/notes.txt": b"mine"}


def test_corrupt_archives_and_links_out_leave_nothing_in_place(server: Server, tmp_path: Path) -> None:
    root, bad = tmp_path / "data", tmp_path / "bad.tar"
    with tarfile.open(bad, "w") as tar:
        member = tarfile.TarInfo("a/link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(member)
    content = bad.read_bytes()
    for name, body, message in (
        ("bad.tar", content, "refused the link"),
        ("cut.tar.gz", b"\x1f\x8b", "damaged or cut"),
    ):
        source = Source("cub", "CUB", "", "", (Remote(server.add(f"/{name}", body), name),))
        with pytest.raises(ValueError, match=message):
            fetch(source, root)
    wrong = Source("cub", "CUB", "", "", (Remote(server.add("/w.tar", content), "w.tar", None, "sha256:" + "0" * 64),))
    with pytest.raises(ValueError, match="expected sha256:0000"):
        fetch(wrong, root)
    assert not placed(root)


def test_a_first_download_without_checksum_is_pinned(server: Server, tmp_path: Path) -> None:
    source = Source(
        "wsol-metadata", "m", "", "", (Remote(server.add("/a/ids.txt", b"1"), "ids.txt", into="CUB/train"),)
    )
    said: list[str] = []
    assert get(source, tmp_path / "data", say=said.append)
    assert "nobody published a checksum of ids.txt; it is kept: sha256:6b86b273" in " ".join(said)
    assert (tmp_path / "data/CUB/train/ids.txt").read_bytes() == b"1"
    assert all(finding.good for finding in check(source, tmp_path / "data"))
    (tmp_path / "data/CUB/train/ids.txt").unlink()
    server.add("/a/ids.txt", b"2")
    with pytest.raises(ValueError, match=r"has sha256:d4735e3a\w+, but the first download had sha256:6b86b273"):
        fetch(source, tmp_path / "data")


def test_a_second_run_in_the_same_folder_refuses(cub: Source, tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / ".wsolnb").mkdir(parents=True)
    with FileLock(root / ".wsolnb" / "cub.lock"), pytest.raises(OSError, match="another run is getting cub into"):
        fetch(cub, root)


def test_a_disk_that_is_too_small_is_told_before_the_download(server: Server, tmp_path: Path) -> None:
    file = Remote(server.add("/a.tar", b"1"), "a.tar", size=10**18)
    with pytest.raises(OSError, match=r"needs 2000000000\.0 GB to download and extract, .* are free"):
        fetch(Source("cub", "CUB", "", "", (file,)), tmp_path)
    assert not server.log


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from wsolnb.data.download.fetch import get
from wsolnb.data.download.sources import read_sources
get(read_sources(sys.argv[2])["cub"], sys.argv[3], pause=0.0)
"""


def table(source: Source, path: Path) -> Path:
    rows = [
        {"url": f.url, "name": f.name, "size": f.size, "checksum": f.checksum, "into": f.into, "nested": f.nested}
        for f in source.files
    ]
    entry = {"title": source.title, "homepage": source.homepage, "licence": source.licence, "files": rows}
    entry |= {"reader": source.reader, "classes": source.classes, "splits": source.splits, "by_hand": source.by_hand}
    path.write_text(yaml.safe_dump({source.key: entry}))
    return path


def test_killed_at_any_moment_it_goes_on(cub: Source, server: Server, tmp_path: Path, repo: Path) -> None:
    """SIGKILL while files come, are extracted or move; whatever is in place is then whole, and the end is the same."""
    root, sources, rng = tmp_path / "data", table(cub, tmp_path / "sources.yaml"), random.Random(0)
    for served in server.files.values():
        served.pause = 0.01
    expected, kept = files_in(tmp_path / "tree"), 0
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(repo), str(sources), str(root)],
            env={**os.environ, "WSOLNB_HEADLESS": "1"}, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        asked = len(server.log)
        while len(server.log) == asked and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.4)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = max([kept, *(path.stat().st_size for path in (root / ".wsolnb" / "cub").glob("*.part"))])
        for top in ("CUB_200_2011", "segmentations"):
            if (root / top).exists():
                assert {n for n in placed(root) if n.startswith(top)} == {n for n in expected if n.startswith(top)}
    fetch(cub, root)
    assert placed(root) == expected
    assert kept > 0
    assert any(span for _, span, _ in server.log)  # what had come was not asked for again
    assert not fetch(cub, root)


def test_killed_between_moves_it_goes_on(cub: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rename in turn is the last thing that happens."""
    expected = files_in(tmp_path / "tree")
    rename = os.rename
    for last in range(8):
        root, left = tmp_path / f"data{last}", [last]

        def limited(source: Path, target: Path, left: list[int] = left) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            rename(source, target)

        monkeypatch.setattr(os, "rename", limited)
        try:
            fetch(cub, root)
        except KeyboardInterrupt:
            assert read_record(cub, root) is None
            monkeypatch.setattr(os, "rename", rename)
            assert fetch(cub, root)
        assert placed(root) == expected
        monkeypatch.setattr(os, "rename", rename)
    assert left[0] > 0  # the last run had renames to spare: all of them were tried


@pytest.fixture
def imagenet(tmp_path: Path) -> Source:
    tree = trees.imagenet(tmp_path / "tree")
    marks, root = tree / "Annotations" / "CLS-LOC", tmp_path / "data"
    for synset in trees.SYNSETS:
        names = [path.name for path in sorted((tree / "train" / synset).iterdir())]
        pack(tmp_path / "inner" / f"{synset}.tar", tree / "train" / synset, *names)
    contents = {
        "ILSVRC2012_img_train.tar": (tmp_path / "inner", [f"{synset}.tar" for synset in trees.SYNSETS], "train", True),
        "ILSVRC2012_img_val.tar": (tree / "val", [path.name for path in (tree / "val").iterdir()], "val", False),
        "ILSVRC2012_devkit_t12.tar.gz": (tree, ["ILSVRC2012_devkit_t12"], "", False),
        "ILSVRC2012_bbox_train_v2.tar.gz": (marks / "train", list(trees.SYNSETS), "Annotations/CLS-LOC/train", False),
        "ILSVRC2012_bbox_val_v3.tgz": (marks, ["val"], "Annotations/CLS-LOC", False),
    }
    files = []
    for name, (base, tops, into, nested) in contents.items():
        content = pack(root / name, base, *tops)
        checksum = "" if "bbox" in name else f"md5:{hashlib.md5(content).hexdigest()}"
        files.append(Remote(f"https://image-net.org/{name}", name, len(content), checksum, into, nested))
    return Source(
        "imagenet", "ImageNet-1k", "https://image-net.org", "non-commercial", tuple(files), by_hand="Sign up.",
        reader="imagenet", classes=3, splits={"train": 9, "val": 6},
    )  # fmt: skip


def test_imagenet_is_explained_verified_and_extracted(imagenet: Source, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as told:
        fetch(imagenet, tmp_path / "empty")
    for words in (
        "cannot be downloaded by a program. Sign up.",
        "ILSVRC2012_img_train.tar",
        "md5:",
        "data check imagenet",
    ):
        assert words in str(told.value)
    assert not (tmp_path / "empty").exists()
    root = tmp_path / "data"
    archives = set(files_in(root))
    assert fetch(imagenet, root)
    assert {name: content for name, content in placed(root).items() if name not in archives} == files_in(
        tmp_path / "tree"
    )
    assert archives <= set(placed(root))  # what a person brought stays
    assert all(finding.good for finding in check(imagenet, root, deep=True))
    assert open_split("imagenet", root, "train")[0][1]["boxes"].tolist() == [[4, 6, 34, 23]]
    assert not fetch(imagenet, root)


def test_imagenet_with_a_damaged_archive(imagenet: Source, tmp_path: Path) -> None:
    path = tmp_path / "data" / "ILSVRC2012_img_val.tar"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"img_val\.tar has .* bytes, expected .*: download it again"):
        fetch(imagenet, tmp_path / "data")
    path.write_bytes(content[:-1] + b"?")
    with pytest.raises(ValueError, match=r"img_val\.tar has md5:\w+, expected md5:\w+: download it again"):
        fetch(imagenet, tmp_path / "data")
    wrong = [finding.text for finding in check(imagenet, tmp_path / "data", deep=True) if not finding.good]
    assert any("has md5:" in text for text in wrong)


def test_check_names_what_is_wrong(cub: Source, tmp_path: Path) -> None:
    def wrong(source: Source, root: Path, deep: bool = False) -> list[str]:
        return [finding.text for finding in check(source, root, deep=deep) if not finding.good]

    trees.voc(tmp_path / "voc")
    assert wrong(cub, tmp_path / "voc") == [f"{tmp_path / 'voc'} is not CUB-200-2011: it looks like VOC2012"]
    trees.cub(tmp_path / "cub", per_class=3)
    assert wrong(cub, tmp_path / "cub") == [
        "train: 3 images of 2 classes, expected 4 images of 2 classes",
        "test: 3 images of 2 classes, expected 4 images of 2 classes",
    ]
    root = trees.cub(tmp_path / "own")
    assert wrong(cub, root, deep=True) == []
    photo = next((root / "CUB_200_2011/images").rglob("*_0001_1.jpg"))
    photo.write_bytes(photo.read_bytes()[:-200])
    told = wrong(cub, root, deep=True)
    assert len(told) == 2
    assert photo.name in told[0]
    assert told[1] == "test: 3 of 4 images decode"
    photo.unlink()
    assert "lacks 1 of the 4 images" in wrong(cub, root)[0]


def test_the_table_of_sources() -> None:
    sources = read_sources()
    assert set(sources) == {*TITLES, "wsol-metadata"} - {"protocol"}
    for source in sources.values():
        assert source.licence
        assert source.homepage.startswith("http")
        assert not source.reader or (source.reader in TITLES and source.splits and source.classes)
        for file in source.files:
            assert file.url.startswith("http")
            kind, _, value = file.checksum.partition(":")
            assert not file.checksum or len(bytes.fromhex(value)) == {"sha256": 32, "md5": 16}[kind]
            assert file.size is None or file.size > 0
    downloaded = [file for source in sources.values() if not source.by_hand for file in source.files]
    assert all(file.size and file.checksum for file in downloaded)
    assert human(sources["coco2017"].size) == "20.4 GB"
    with pytest.raises(ValueError, match=r"unknown data set 'coco-2017' \(did you mean 'coco2017'\?\); known: cub"):
        find("coco-2017", sources)


def test_the_metadata_in_the_table_are_the_real_ones(shared_data: Path) -> None:
    for file in read_sources()["wsol-metadata"].files:
        content = (shared_data / "wsol_metadata" / file.into / file.name).read_bytes()
        assert len(content) == file.size
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == file.checksum


@pytest.mark.parametrize(
    ("text", "message"),
    [("cub: {title: a}", "no table of sources: KeyError 'files'"), ("[", "no table"), ("3", "no table of sources")],
)
def test_bad_tables(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_sources(tmp_path / "t.yaml")
    with pytest.raises(FileNotFoundError, match="no table of sources"):
        read_sources(tmp_path / "none.yaml")


def test_command_line(cub: Source, server: Server, tmp_path: Path) -> None:
    sources, root, run = table(cub, tmp_path / "sources.yaml"), tmp_path / "data", CliRunner()
    where = ["cub", "--root", str(root), "--sources", str(sources)]
    first = run.invoke(app, ["data", "get", *where])
    assert first.exit_code == 0, first.output
    shown = first.output.index("licence   for research")
    assert shown < first.output.index("size      ") < first.output.index("downloading CUB_200_2011.tgz")
    assert f"ready in {root}" in first.output
    again = run.invoke(app, ["data", "get", *where])
    assert f"complete in {root}" in again.output
    assert len(server.log) == 2
    good = run.invoke(app, ["data", "check", *where, "--deep"])
    assert good.exit_code == 0
    assert "train: 4 of 4 images decode" in good.output
    assert run.invoke(app, ["data", "check", *where[1:]]).output == run.invoke(app, ["data", "check", *where]).output
    lost = run.invoke(app, ["data", "check", "--root", str(tmp_path / "tree" / "segmentations")])
    assert "looks like none of the data sets" in lost.output
    shutil.rmtree(root / "segmentations")
    bad = run.invoke(app, ["data", "check", *where])
    assert bad.exit_code == 1
    assert "PROBLEM" in bad.output
    unknown = run.invoke(app, ["data", "get", "birds", "--root", str(root)])
    assert unknown.exit_code == 2
    assert "unknown data set 'birds'; known: cub, voc2007" in unknown.output
    by_hand = run.invoke(app, ["data", "get", "imagenet", "--root", str(tmp_path / "imagenet")])
    assert by_hand.exit_code == 2
    assert "agree to the terms of access" in by_hand.output


def test_a_data_set_that_somebody_else_placed_is_not_fetched(cub: Source, server: Server, tmp_path: Path) -> None:
    root = trees.cub(tmp_path / "data")
    where = ["cub", "--root", str(root), "--sources", str(table(cub, tmp_path / "sources.yaml"))]
    told = CliRunner().invoke(app, ["data", "get", *where])
    assert told.exit_code == 0
    assert f"complete in {root}" in told.output
    assert not server.log


def test_ctrl_c_says_how_to_go_on(cub: Source, server: Server, tmp_path: Path) -> None:
    for served in server.files.values():
        served.pause = 0.2
    where = ["cub", "--root", str(tmp_path / "data"), "--sources", str(table(cub, tmp_path / "sources.yaml"))]
    process = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
         "from wsolnb.cli.app import app; app()", "data", "get", *where],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while not list((tmp_path / "data").glob(".wsolnb/cub/*.part")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "what has come is kept: give the same command again to go on" in output
    for served in server.files.values():
        served.pause = 0.0
    assert fetch(cub, tmp_path / "data")


def test_the_command_line_does_not_load_torch() -> None:
    code = "import sys, wsolnb.cli.app; print(json.dumps('torch' in sys.modules))"
    assert json.loads(subprocess.check_output([sys.executable, "-c", f"import json; {code}"])) is False
    assert TABLE.is_file()
