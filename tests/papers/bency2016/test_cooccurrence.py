"""Co-occurrence: Eqs. 2 to 4 by hand, what is refused, and that the drawn world's knob gives it something to find."""

from __future__ import annotations

import pytest
import torch

from wsolnb.data.critters import World
from wsolnb.papers.bency2016.cooccurrence import cooccurrence, rescore, tune_alpha

PRESENT = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]])


def test_shares_by_hand() -> None:
    pair = cooccurrence(PRESENT)
    assert pair.dtype == torch.float64
    # |b0|, |b1|, |b2| = 3, 2, 1; together 0 and 1: 2, 0 and 2: 1, 1 and 2: 1
    assert pair.flatten().tolist() == pytest.approx([0, 1, 1, 2 / 3, 0, 1, 1 / 3, 1 / 2, 0])


def test_a_class_without_an_image_and_one_that_is_not_known() -> None:
    present = PRESENT.float()
    present[:, 2] = 0
    present[1, 1] = torch.nan
    pair = cooccurrence(present)
    assert pair[:, 2].tolist() == [0, 0, 0]
    assert pair[2].tolist() == [0, 0, 0]
    assert pair[1, 0] == pytest.approx(2 / 3)


def test_new_scores_by_hand() -> None:
    scores = torch.tensor([[0.6, 0.3, 0.1], [0.0, 0.0, 1.0]])
    found = rescore(scores, cooccurrence(PRESENT), alpha=0.5)
    assert found.dtype == torch.float32
    wanted = [0.6 + 0.5 * 0.4, 0.3 + 0.5 * (0.4 + 0.1), 0.1 + 0.5 * (0.2 + 0.15), 0.5, 0.5, 1.0]
    assert found.flatten().tolist() == pytest.approx(wanted)
    assert torch.equal(rescore(scores, cooccurrence(PRESENT), alpha=0.0), scores)


def test_the_weight_is_tried_in_order_and_zero_can_win() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.0]])
    pair = cooccurrence(PRESENT)
    spread = tune_alpha(scores, pair, [0.0, 0.5, 1.0], lambda s: -float(s[0, 1:].sum()))
    assert list(spread) == [0.0, 0.5, 1.0]
    assert max(spread, key=lambda a: spread[a]) == 0.0


def test_partners_of_the_drawn_world_are_found() -> None:
    shares = {}
    for knob in (0.0, 1.0):
        world = World(families=2, species=3, size=32, objects=(2, 2), cooccurrence=knob)
        present = torch.zeros(120, 6)
        scenes = world.scenes(120, size=(64, 80))
        for row in range(120):
            present[row, torch.from_numpy(scenes.stage(row).labels)] = 1
        pair = cooccurrence(present)
        shares[knob] = float(pair[world.partners, torch.arange(6)].mean())
    assert shares[0.0] < 0.35
    assert shares[1.0] > 0.45  # an animal is there as the first of its pair, or as the partner of another


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"matrix \(images, classes\), got \(3,\)"):
        cooccurrence(torch.ones(3))
    with pytest.raises(ValueError, match="0, 1 or NaN"):
        cooccurrence(torch.full((2, 2), 2))
    with pytest.raises(ValueError, match=r"scores \(2, 3\) and pairs \(2, 2\)"):
        rescore(torch.ones(2, 3), torch.ones(2, 2), 1.0)
    with pytest.raises(ValueError, match="alpha=-1"):
        rescore(torch.ones(2, 3), torch.ones(3, 3), -1)
