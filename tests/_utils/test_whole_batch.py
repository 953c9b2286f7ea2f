"""Random numbers of a whole batch: the same for every share of it, beside a process's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wsolnb._utils.whole_batch import Draws, Share, counted, draw, draw_rows, gather
from wsolnb.train.shared_layers import share_layers


def test_shares_draw_the_rows_of_the_whole_batch_and_what_is_drawn_beside_goes_on() -> None:
    torch.manual_seed(3)
    draws, whole, once, following = Draws(), torch.rand(5, 2), torch.rand(()), torch.rand(5, 2)
    torch.manual_seed(4)
    own = torch.rand(4)
    torch.manual_seed(4)
    shares = [Share(torch.tensor(rows), 5, draws) for rows in ([0, 2, 4], [1, 3])]
    for share, beside in zip(shares, (own[:2], own[2:]), strict=True):
        with share.at_hand():
            assert draw_rows(len(share.rows), lambda n: torch.rand(n, 2)).equal(whole[share.rows])
            assert torch.rand(2).equal(beside)
            assert draw(lambda: torch.rand(())).equal(once)
    with Share(torch.tensor([4]), 5, draws).at_hand():
        assert draw_rows(1, lambda n: torch.rand(n, 2)).equal(following[4:])


def test_parts_of_a_share_draw_from_its_start_and_compare_their_own() -> None:
    draws = Draws()
    parts = [Share(torch.tensor(rows), 4, draws, entire=False) for rows in ([0, 1], [2, 3])]
    found = []
    for part in parts:
        with part.at_hand():
            found.append(draw_rows(2, torch.rand))
            assert gather(found[-1]) is found[-1]
    with Share(torch.arange(4), 4, draws).at_hand():
        following = draw_rows(4, torch.rand)
        assert gather(following).equal(following)
    assert not torch.cat(found).equal(following)
    assert len({float(value) for value in torch.cat(found)}) == 4


def test_an_image_that_stands_for_none_is_not_compared() -> None:
    value = torch.ones(1, 3, requires_grad=True)
    assert counted()
    with Share(torch.tensor([0]), 2, Draws(), counted=False).at_hand():
        assert not counted()
        whole = gather(value)
    assert counted()
    assert whole.tolist() == [[0.0] * 3] * 2
    whole.sum().backward()
    assert value.grad is not None
    assert not value.grad.any()


def test_shares_end_with_an_error() -> None:
    with pytest.raises(InterruptedError), Share(torch.tensor([1]), 2, Draws()).at_hand():
        draw(lambda: (_ for _ in ()).throw(InterruptedError()))
    assert draw_rows(3, torch.zeros).shape == (3,)


def test_shared_dropout_drops_what_dropout_does() -> None:
    own, values = nn.Sequential(nn.Dropout(0.4)), torch.rand(6, 8)
    shared = nn.Sequential(nn.Dropout(0.4))
    share_layers(shared, nn.Dropout)
    torch.manual_seed(1)
    whole = own(values)
    torch.manual_seed(1)
    with Share(torch.tensor([5, 2]), 6, Draws()).at_hand():
        assert shared(values[[5, 2]]).equal(whole[[5, 2]])
    assert shared.eval()(values) is values
    share_layers(shared)
    assert type(shared[0]) is nn.Dropout
