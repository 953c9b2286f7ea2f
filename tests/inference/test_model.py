"""A model folder: what is saved is found again to the last digit, by every method that `fit` trains."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from wsolnb.boxes import BoxRule
from wsolnb.data.critters import World
from wsolnb.data.taxonomy import Taxonomy
from wsolnb.inference.fit import METHOD_NAMES, fit
from wsolnb.inference.model import ABOUT, CARD, WEIGHTS, LocalizationModel, keep_models, load, store_rule

TREE = Taxonomy({"ant": "insect", "bee": "insect", "insect": "animal", "cat": "animal"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve drawn animals in three class folders."""
    root, drawn = tmp_path_factory.mktemp("photos"), World(families=3, species=1, size=48, objects=(1, 1)).singles(12)
    for index in range(12):
        image, target = drawn[index]
        place = root / ("ant", "bee", "cat")[int(target["labels"][0])]
        place.mkdir(exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / f"{index}.png")
    return root


def small(folder: Path, method: str) -> LocalizationModel:
    options = {"backbone": "tiny", "weights": None, "image_size": 32, "epochs": 1, "batch_size": 6}
    return fit(folder, method, taxonomy=TREE, device="cpu", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_loaded_elsewhere_it_finds_the_same_boxes(method: str, folder: Path, tmp_path: Path) -> None:
    model = small(folder, method)
    saved = model.save(tmp_path / "model")
    saved.rename(tmp_path / "moved")
    again = load(tmp_path / "moved")
    images = torch.randint(0, 256, (2, 3, 40, 60), dtype=torch.uint8)
    for before, after in zip(model.localize(images, "all"), again.localize(images, "all"), strict=True):
        assert before.keys() == after.keys() == {"boxes", "scores", "labels", "maps"}
        assert all(torch.equal(before[name].nan_to_num(-1), after[name].nan_to_num(-1)) for name in before)
    assert again.classes == ("ant", "bee", "cat")
    assert again.rule == model.rule
    assert again.trained == model.trained
    assert (again.trained["photos"], again.trained["held out"]) == (6, 6)


def test_a_damaged_model_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    saved = small(folder, "cam").save(tmp_path / "model")
    with pytest.raises(FileExistsError, match="model exists"):
        load(saved).save(saved)
    data = bytearray((saved / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (saved / WEIGHTS).write_bytes(data)
    with pytest.raises(ValueError, match=WEIGHTS):
        load(saved)
    about = json.loads((saved / ABOUT).read_text())
    (saved / ABOUT).write_text(json.dumps(about | {"method": "grad"}))
    with pytest.raises(ValueError, match=r"model\.json cannot be read as a model: KeyError\('grad'\)"):
        load(saved)


def test_a_rule_is_stored_in_a_folder(folder: Path, tmp_path: Path) -> None:
    saved = small(folder, "tap+nwc+pas").save(tmp_path / "model")
    weights, card = (saved / WEIGHTS).stat().st_mtime_ns, (saved / CARD).read_text()
    assert "- by: Otsu's criterion over maps of held-out photos" in card
    assert "never compared with drawn ones" in card
    rule = BoxRule(0.42, component="extent", empty=(0.0, 0.0, 1.0, 1.0))
    store_rule(saved, rule, {"by": "cross-validation", "boxes": 10, "IoU": [0.5, 0.7]})
    again = load(saved)
    assert again.rule == rule
    assert again.chosen == {"by": "cross-validation", "boxes": 10, "IoU": [0.5, 0.7]}
    card = (saved / CARD).read_text()
    assert "- threshold: 0.42 of a map's maximum\n- by: cross-validation\n- boxes: 10\n- IoU: [0.5, 0.7]" in card
    assert "never compared" not in card
    assert (saved / WEIGHTS).stat().st_mtime_ns == weights
    assert {path.name for path in saved.iterdir()} == {ABOUT, CARD, WEIGHTS}
    with pytest.raises(ValueError, match="Out of range float"):
        store_rule(saved, rule, {"by": "hand", "IoU": float("nan")})
    (saved / ABOUT).write_text("{}")
    with pytest.raises(ValueError, match=r"model\.json cannot be read as a model: it has no 'method'"):
        store_rule(saved, rule, {"by": "hand"})


def test_beam_search_searches_only_what_is_asked_for_and_finds_the_same(folder: Path) -> None:
    model, images = small(folder, "beam"), torch.rand(2, 3, 40, 60)
    every = model.localize(images, "all")
    passes: list[int] = []
    network = model.fitted.networks["grid"].network
    first = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    hook = first.register_forward_hook(lambda module, given, result: passes.append(len(result)))
    best = [row["scores"].argmax() for row in every]
    for classes in (1, [[int(k)] for k in best]):
        passes.clear()
        for one, row, k in zip(model.localize(images, classes), every, best, strict=True):
            assert one["labels"].tolist() == [int(k)]
            torch.testing.assert_close(one["maps"][0], row["maps"][k])
            torch.testing.assert_close(one["boxes"][0], row["boxes"][k], equal_nan=True)
        few = sum(passes)
    passes.clear()
    model.localize(images, "all")
    assert 0 < few < 0.7 * sum(passes)
    hook.remove()
    for wrong in ([3], [[0], [5]]):
        with pytest.raises(ValueError, match=r"class \d is not one of the model's 3 classes"):
            model.localize(images, wrong)
    with pytest.raises(ValueError, match="the model has 3 classes"):
        model.localize(images, 4)


def test_a_run_that_goes_on_replaces_its_own_models(folder: Path, tmp_path: Path) -> None:
    model = small(folder, "cam")
    keep_models("", {"cam": model})
    for threshold in (0.3, 0.4):
        keep_models(tmp_path, {"cam": replace(model, rule=BoxRule(threshold))})
    assert load(tmp_path / "models" / "cam").rule.threshold == 0.4
    (tmp_path / "models" / "mine").mkdir()
    (tmp_path / "models" / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="mine exists"):
        keep_models(tmp_path, {"mine": model})
