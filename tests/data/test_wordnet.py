"""A class tree from WordNet, on a tiny database in WordNet's own format."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from wsolnb.data.wordnet import wordnet_taxonomy
from wsolnb.inference.fit import fit
from wsolnb.inference.model import load

ENTRIES = {
    "entity": "e", "animal": "a", "carnivore": "c", "dog": "d", "hound": "d", "cat": "t", "tabby cat": "y", "pet": "p",
    "tool": "o", "mouse": "mk", "computer mouse": "k",
}  # fmt: skip
HYPERNYMS = {"k": "o", "e": "", "a": "e", "c": "a", "d": "cp", "t": "c", "y": "t", "p": "a", "o": "e", "m": "a"}


def database(lexicon: str = "tiny") -> str:
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<!DOCTYPE LexicalResource SYSTEM "http://globalwordnet.github.io/schemas/WN-LMF-1.0.dtd">',
        '<LexicalResource xmlns:dc="http://purl.org/dc/elements/1.1/">',
        f'<Lexicon id="{lexicon}" label="tiny" language="en" email="a@b.c" license="none" version="1">',
    ]
    for word, senses in ENTRIES.items():
        key = f"{lexicon}-{word.replace(' ', '_')}"
        rows = "".join(f'<Sense id="{key}-{each}" synset="{lexicon}-{each}"/>' for each in senses)
        lines.append(f'<LexicalEntry id="{key}"><Lemma writtenForm="{word}" partOfSpeech="n"/>{rows}</LexicalEntry>')
    for key, above in HYPERNYMS.items():
        rows = "".join(f'<SynsetRelation relType="hypernym" target="{lexicon}-{each}"/>' for each in above)
        lines.append(f'<Synset id="{lexicon}-{key}" ili="" partOfSpeech="n">{rows}</Synset>')
    return "\n".join([*lines, "</Lexicon></LexicalResource>"])


@pytest.fixture
def wn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library with an empty database of its own."""
    wn = pytest.importorskip("wn")
    before = wn.config.data_directory
    (tmp_path / "data").mkdir()
    wn.config.data_directory = tmp_path / "data"
    yield wn
    wn.config.data_directory = before


@pytest.fixture
def tiny(wn: Any, tmp_path: Path) -> Any:
    (tmp_path / "tiny.xml").write_text(database())
    wn.add(tmp_path / "tiny.xml", progress_handler=None)
    return wn


@pytest.mark.usefixtures("tiny")
def test_the_tree_of_names_as_people_write_them() -> None:
    tree, unknown = wordnet_taxonomy(["Tabby_cat", "dogs", "mouse", "Mx-7", "cat", "computer-mouse"])
    assert unknown == ["Mx-7"]
    assert tree.parents == {
        "animal (tiny-a)": "entity (tiny-e)",
        "carnivore (tiny-c)": "animal (tiny-a)",
        "tool (tiny-o)": "entity (tiny-e)",
        "cat": "carnivore (tiny-c)",
        "Tabby_cat": "cat",  # a class that is above another one
        "dogs": "carnivore (tiny-c)",  # of two ways up, the one that the tree has
        "mouse": "animal (tiny-a)",  # the first sense
        "computer-mouse": "tool (tiny-o)",
        "Mx-7": "entity (tiny-e)",
    }


@pytest.mark.usefixtures("tiny")
def test_two_names_of_one_entry_are_two_classes() -> None:
    tree, unknown = wordnet_taxonomy(["dog", "hound", "cat"])
    assert unknown == []
    assert tree.lowest_common_subsumer("dog", "hound") == "dog (tiny-d)"
    assert tree.similarity(["dog", "hound", "cat"]).tolist()[0] == [1.0, 0.75, 0.5]


@pytest.mark.usefixtures("tiny")
def test_fit_says_which_names_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("dog", "Mx-7", "cat", "blob"):
        (tmp_path / "p" / name).mkdir(parents=True)
        for index in range(4):
            Image.effect_noise((40, 30), 80).convert("RGB").save(tmp_path / "p" / name / f"{index}.png")
    small: dict[str, Any] = {"backbone": "tiny", "weights": None, "image_size": 32, "epochs": 1, "device": "cpu"}
    model = fit(tmp_path / "p", "dcm-semantic", **small)
    said = "not in WordNet, and so directly below the root of the class tree: Mx-7, blob\n"
    assert said in capsys.readouterr().out
    assert model.taxonomy is not None
    assert model.taxonomy.parents["blob"] == model.taxonomy.root
    again = load(model.save(tmp_path / "model"))
    assert again.taxonomy is not None
    assert again.taxonomy.parents == model.taxonomy.parents
    images = torch.rand(1, 3, 40, 50)
    assert torch.equal(again.localize(images)[0]["maps"], model.localize(images)[0]["maps"])


@pytest.mark.usefixtures("tiny")
def test_no_name_is_there() -> None:
    message = r"WordNet \(tiny:1\) has none of the classes \['ace', 'king'\]: rename them, or give a file"
    with pytest.raises(ValueError, match=message):
        wordnet_taxonomy(["ace", "king"])


@pytest.mark.usefixtures("wn")
def test_no_database() -> None:
    with pytest.raises(ValueError, match="no English WordNet: fetch one with `python -m wn download oewn:2024`, or"):
        wordnet_taxonomy(["cat", "dog"])


def test_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wn", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'wsolnb\[wordnet\]', or give a file"):
        wordnet_taxonomy(["cat", "dog"])
