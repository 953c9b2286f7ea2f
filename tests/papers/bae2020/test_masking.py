"""Hide-and-Seek and attention-based dropout: values by hand, borders, both modes, gradients, positions."""

from __future__ import annotations

import pytest
import torch

from wsolnb.models.backbones import BACKBONES, backbone
from wsolnb.models.cam import Classifier
from wsolnb.papers.bae2020.masking import ADL_POSITIONS, AttentionDropout, HideAndSeek, attention_dropout, hide_and_seek


def test_patches_follow_the_grid_to_the_cut_border(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = torch.tensor([[[[0.9, 0.1, 0.9], [0.5, 0.9, 0.2]]]])  # 3 x 5 pixels in patches of 2: 2 rows, 3 columns
    shapes = []
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: shapes.append(shape) or draws)
    hidden = HideAndSeek(2, rate=0.5)(torch.ones(1, 2, 3, 5))
    assert shapes == [(1, 1, 2, 3)]
    expected = torch.tensor([[1, 1, 0, 0, 1], [1, 1, 0, 0, 1], [1, 1, 1, 1, 0]]).float()
    assert torch.equal(hidden[0, 0], expected)
    assert torch.equal(hidden[0, 1], expected)


def test_every_image_hides_its_own_patches_and_none_is_changed_in_place() -> None:
    images = torch.rand(8, 3, 24, 40) + 0.1
    before = images.clone()
    hidden = HideAndSeek(8)(images)
    assert torch.equal(images, before)
    gone = hidden[:, 0] == 0
    assert len({tuple(g.flatten().tolist()) for g in gone}) == 8
    assert 0.3 < gone.float().mean() < 0.7
    assert torch.equal(hidden[~gone[:, None].expand_as(hidden)], images[~gone[:, None].expand_as(images)])


def test_hidden_pixels_are_the_mean_colour() -> None:
    net = hide_and_seek(backbone("tiny"), patch=16, rate=1.0)
    mean = net.mean.expand(2, 3, 32, 48)
    first = net.stages["block1"][:2].eval()
    hidden = net.stages["block1"][0].train()(net.normalise(torch.rand(2, 3, 32, 48)))
    torch.testing.assert_close(first[1](hidden), first[1](net.normalise(mean)), atol=1e-5, rtol=0)


def test_nothing_is_hidden_in_evaluation_mode() -> None:
    images = torch.rand(2, 3, 17, 33)
    assert HideAndSeek(16).eval()(images) is images
    net = backbone("tiny").eval()
    assert torch.equal(hide_and_seek(net, 16)(images), net(images))


def test_impossible_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="patches of 32 pixels do not fit into images of 48 x 24 pixels"):
        HideAndSeek(32)(torch.rand(1, 3, 24, 48))
    with pytest.raises(ValueError, match="at least one pixel, got 0"):
        HideAndSeek(0)
    with pytest.raises(ValueError, match=r"rate must lie between 0 and 1, got 1\.5"):
        HideAndSeek(8, 1.5)


def test_drop_mask_by_hand() -> None:
    features = torch.tensor([[[[1.0, 8.0, 6.4]], [[1.0, 0.0, 0.0]]], [[[2.0, 1.0, 0.0]], [[2.0, 1.0, 3.0]]]])
    found = AttentionDropout(drop_rate=1.0, threshold=0.8)(features)
    # attention: (1, 4, 3.2), largest 4, limit 3.2: cell 2 is not below it; (2, 1, 1.5), limit 1.6
    kept = torch.tensor([[[[1.0, 0.0, 0.0]]], [[[0.0, 1.0, 1.0]]]])
    assert torch.equal(found, features * kept)


def test_importance_map_by_hand() -> None:
    features = torch.tensor([[[[2.0, 0.0]], [[-2.0, 4.0]]]])
    weights = torch.tensor([0.5, 1 / (1 + torch.exp(torch.tensor(-2.0)))])
    torch.testing.assert_close(AttentionDropout(drop_rate=0.0)(features), features * weights)


def test_one_draw_decides_for_the_whole_batch() -> None:
    layer, features = AttentionDropout(drop_rate=0.75), torch.rand(6, 4, 3, 5) + 0.5
    dropped = []
    for _ in range(400):
        gone = (layer(features) == 0).flatten(1).any(dim=1)
        assert gone.all() or not gone.any()
        dropped.append(bool(gone[0]))
    assert 0.68 < sum(dropped) / len(dropped) < 0.82


def test_gradients_flow_through_the_importance_map_and_not_through_the_drop_mask() -> None:
    features = torch.rand(2, 3, 3, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(AttentionDropout(drop_rate=0.0), (features,))
    found = AttentionDropout(drop_rate=1.0, threshold=0.7)(features)
    found.sum().backward()
    assert torch.equal(features.grad, (found != 0).double())  # type: ignore[arg-type]


def test_dropout_does_nothing_in_evaluation_mode() -> None:
    features = torch.rand(2, 3, 4, 5)
    assert AttentionDropout().eval()(features) is features


@pytest.mark.parametrize("name", [n for n in BACKBONES if n in ADL_POSITIONS])
def test_published_positions_exist_and_keep_evaluation_as_it_was(name: str) -> None:
    net = backbone(name).eval()
    masked = attention_dropout(net)
    count = sum(isinstance(m, AttentionDropout) for m in masked.modules())
    assert count == len(ADL_POSITIONS[name])
    assert not any(isinstance(m, AttentionDropout) for m in net.modules())
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(masked(images), net(images))


def test_positions_in_one_stage_stay_behind_their_blocks() -> None:
    net = backbone("resnet18")
    stage = attention_dropout(net, ["layer4.0", "layer4", "layer3.1"]).stages["layer4"]
    assert [type(m).__name__ for m in stage] == ["BasicBlock", "AttentionDropout", "BasicBlock", "AttentionDropout"]


def test_unknown_positions_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"tiny has no position 'layer4'; its positions are block1, block1\.0, "):
        attention_dropout(backbone("tiny"), ["layer4"])
    with pytest.raises(ValueError, match="no positions for squeezenet1_0: choose some of block1"):
        attention_dropout(backbone("squeezenet1_0"))
    with pytest.raises(ValueError, match="threshold must lie between 0 and 1"):
        attention_dropout(backbone("tiny"), threshold=2.0)


def test_a_classifier_carries_both_at_once() -> None:
    net = Classifier(hide_and_seek(attention_dropout(backbone("tiny")), 16), 4)
    images = torch.rand(3, 3, 32, 48)
    net.train()
    net(images).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.eval()
    with torch.no_grad():
        assert torch.equal(net(images), net(images))
