"""A search over a data set gives the trees' own heat maps, and comes from the cache only where nothing has changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import Subset

from wsolnb._utils.cache import cached
from wsolnb.data.critters import World
from wsolnb.losses import MultiLabelCrossEntropy
from wsolnb.papers.bency2016.cached_search import SearchResults, load_scenes, search_scenes
from wsolnb.papers.bency2016.network import GridClassifier, grid_classifier
from wsolnb.papers.bency2016.search import BeamSearch

LOSS = MultiLabelCrossEntropy()
SCENES = World(families=2, species=2, size=32, objects=(1, 2)).scenes(3, size=(48, 56))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def net() -> GridClassifier:
    return grid_classifier("tiny", 4, grid=4, hidden=(8,), adapt=8).eval()


def searched(net: GridClassifier, **changes: object) -> SearchResults:
    settings = {"search": BeamSearch(depth=3), "widths": [1, 2], "side": 48, "batch_size": 2} | changes
    return search_scenes(SCENES, net, LOSS, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("wanted", ["all", "present", 2])
def test_maps_are_those_of_each_width_alone(net: GridClassifier, wanted: int | str) -> None:
    found, loaded = searched(net, wanted=wanted), load_scenes(SCENES, 4, side=48)
    which = {"all": None, "present": loaded.present, 2: 2}[wanted]
    for width in (1, 2):
        tree = BeamSearch(width, 3)(net, loaded.images, LOSS.scores, which)
        for depth in (None, 2):
            maps = torch.stack(list(found.maps(width, depth, cells=8).maps))
            assert torch.allclose(maps, tree.heat(8, depth), atol=1e-4)
        cost = found.per_image()[f"M = {width}"]
        assert (cost["windows"], cost["crops"]) == pytest.approx((sum(tree.windows) / 3, sum(tree.crops) / 3))
        assert cost["milliseconds"] > 0
    assert torch.equal(found.pairs, tree.pairs)
    assert found.sizes.tolist() == [[48, 56]] * 3
    assert [t["image_id"] for t in found.targets] == [0, 1, 2]


def test_the_cache_answers_for_the_very_same_search_only(
    net: GridClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = searched(net)
    assert len(list((tmp_path / "searched").iterdir())) == 2  # batches of 2 and 1 image
    calls: list[int] = []
    search = BeamSearch.__call__
    monkeypatch.setattr(BeamSearch, "__call__", lambda self, *args: calls.append(self.width) or search(self, *args))
    again = searched(net)
    assert calls == []
    assert torch.equal(again.windows[2], first.windows[2])
    assert again.counts == first.counts
    searched(net, fresh=True)
    assert calls == [1, 2] * 2
    other = grid_classifier("tiny", 4, grid=4, hidden=(8,), adapt=8, seed=1).eval()
    for model, change in (
        (other, {}),
        (net, {"search": BeamSearch(depth=2)}),
        (net, {"side": 40}),
        (net, {"wanted": 1}),
    ):
        calls.clear()
        searched(model, **change)
        assert calls == [1, 2] * 2


def test_nothing_to_search(net: GridClassifier) -> None:
    with pytest.raises(ValueError, match="no image to search"):
        search_scenes(Subset(SCENES, []), net, LOSS, BeamSearch(), [1], side=48)
    with pytest.raises(ValueError, match="width=0"):
        searched(net, widths=[0])


def test_damaged_and_unwritable_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cached("sums", [2, 2], lambda: {"sum": torch.tensor(4)})["sum"] == 4
    (file,) = (tmp_path / "sums").iterdir()
    file.write_bytes(b"half")
    with pytest.raises(ValueError, match=r"damaged .* delete it"):
        cached("sums", [2, 2], lambda: {"sum": torch.tensor(4)})
    (tmp_path / "file").touch()
    monkeypatch.setenv("WSOLNB_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="not kept for the next run"):
        assert cached("sums", [2, 2], lambda: {"sum": torch.tensor(4)})["sum"] == 4
