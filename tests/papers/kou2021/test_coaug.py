"""Co-supervised augmentation: distances and loss against a double loop, gradients, batches that lack pairs."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from wsolnb.models.backbones import backbone
from wsolnb.papers.kou2021.coaug import CoAug, Pairs, Parts, coaug_loss, distances
from wsolnb.papers.kou2021.network import embedder


def parts(batch: int, size: int = 6, dtype: torch.dtype = torch.float32) -> Parts:
    return Parts(*(torch.randn(batch, size, dtype=dtype) for _ in range(3)))


def by_loops(found: Parts, labels: Tensor, gamma: float, delta: float, pairs: Pairs) -> float:
    """Eq. 12 as it stands, over pairs m < n, in Python's floats."""
    fore, back, sure = (each.double().tolist() for each in found)
    length = lambda a, b: sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5  # noqa: E731
    cam = [length(f, b) for f, b in zip(fore, back, strict=True)]
    away = [length(b, s) for b, s in zip(back, sure, strict=True)]
    total, count = 0.0, 0
    for m in range(len(labels)):
        for n in range(m + 1, len(labels)):
            count += 1
            between, contrast, ground = length(fore[m], fore[n]), (cam[m] + cam[n]) / 2, gamma * (away[m] + away[n])
            different = bool(labels[m] != labels[n])
            if different == (pairs == "printed"):
                total += ground / (delta * between + contrast)
            else:
                total += (ground + between) / contrast
    return total / max(count, 1)


@pytest.mark.parametrize("pairs", ["printed", "swapped"])
@pytest.mark.parametrize(("gamma", "delta"), [(1.0, 1.0), (0.3, 2.5), (0.0, 0.0)])
def test_agrees_with_a_double_loop(pairs: Pairs, gamma: float, delta: float) -> None:
    found, labels = parts(48, 16), torch.arange(48) % 12
    loss = coaug_loss(found, labels, gamma=gamma, delta=delta, pairs=pairs)
    assert float(loss) == pytest.approx(by_loops(found, labels, gamma, delta, pairs), abs=1e-5, rel=1e-5)


def test_distances_by_hand() -> None:
    found = distances(
        Parts(
            torch.tensor([[3.0, 4.0], [0.0, 0.0]]),
            torch.tensor([[0.0, 0.0], [5.0, 12.0]]),
            torch.tensor([[0.0, 1.0], [5.0, 12.0]]),
        )
    )
    assert found.cam.tolist() == [5, 13]
    assert found.back.tolist() == [1, 0]
    assert found.pairs.tolist() == [[0, 5], [5, 0]]


def test_order_of_the_batch_does_not_matter() -> None:
    found, labels = parts(9), torch.tensor([0, 0, 1, 2, 2, 2, 3, 1, 0])
    order = torch.randperm(9)
    mixed = Parts(*(each[order] for each in found))
    torch.testing.assert_close(coaug_loss(found, labels), coaug_loss(mixed, labels[order]))


def test_what_lowers_the_loss() -> None:
    """Near within a class, far between classes, object far from its background: the text's wishes, as printed."""
    labels = torch.tensor([0, 0, 1, 1])
    ground, sure = torch.zeros(4, 3), torch.full((4, 3), 0.5)
    far = torch.tensor([[9.0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 9, 0]])
    mixed = far[[0, 2, 1, 3]]
    good, bad = Parts(far, ground, sure), Parts(mixed, ground, sure)
    assert coaug_loss(good, labels) < coaug_loss(bad, labels)
    assert coaug_loss(good, labels, pairs="swapped") > coaug_loss(bad, labels, pairs="swapped")
    assert coaug_loss(Parts(2 * far, ground, sure), labels) < coaug_loss(good, labels)
    assert coaug_loss(Parts(far, ground, ground), labels) < coaug_loss(good, labels)


@pytest.mark.parametrize("pairs", ["printed", "swapped"])
def test_gradient(pairs: Pairs) -> None:
    labels = torch.tensor([0, 1, 0, 2, 1])
    found = parts(5, 4, torch.double)
    leaves = [each.requires_grad_() for each in found]
    assert torch.autograd.gradcheck(lambda *each: coaug_loss(Parts(*each), labels, pairs=pairs), leaves)


def test_without_two_samples_of_a_class_only_the_other_sum_is_left() -> None:
    found, labels = parts(4), torch.arange(4)
    with pytest.warns(UserWarning, match="no class has two samples in this batch of 4: .*ClassBalanced"):
        loss = coaug_loss(found, labels)
    assert float(loss) == pytest.approx(by_loops(found, labels, 1, 1, "printed"), abs=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = coaug_loss(found, torch.zeros(4))
        alone = coaug_loss(parts(1), torch.zeros(1))
    assert float(one) == pytest.approx(by_loops(found, torch.zeros(4), 1, 1, "printed"), abs=1e-5)
    assert float(alone) == 0


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e6])
def test_equal_embeddings_stay_finite(scale: float) -> None:
    leaf = (scale * torch.ones(4, 3)).requires_grad_()
    for labels in (torch.tensor([0, 0, 1, 1]), torch.zeros(4)):
        for pairs in ("printed", "swapped"):
            loss = coaug_loss(Parts(leaf, leaf * 1, leaf * 1), labels, pairs=pairs)  # type: ignore[arg-type]
            (gradient,) = torch.autograd.grad(loss, leaf)
            assert torch.isfinite(loss)
            assert torch.isfinite(gradient).all()


def test_parts_of_an_image_by_hand() -> None:
    """A map of three sure cells on one side: object, background and the sure part of the background are its shares."""
    maps = torch.tensor([[[0.0, 0.0, 1.0, 4.0]]])  # mean 1.25, distances 1.25 1.25 .25 2.75, their mean 1.375
    images = torch.full((1, 3, 1, 4), 0.8)
    loss = CoAug(nn.Flatten())
    shown = loss.masked(maps, images)
    torch.testing.assert_close(shown[0][0, 0], torch.tensor([[0.0, 0.0, 0.2, 0.8]]))
    torch.testing.assert_close(shown[1][0, 0], torch.tensor([[0.8, 0.8, 0.6, 0.0]]))
    torch.testing.assert_close(shown[2][0, 0], torch.tensor([[0.0, 0.0, 0.0, 0.0]]))  # only the peak is sure
    wide = CoAug(nn.Flatten(), squash="sigmoid", size=2).masked(torch.zeros(1, 2, 3), images)
    torch.testing.assert_close(wide[0], torch.full((1, 3, 2, 2), 0.4))
    torch.testing.assert_close(torch.cat(loss.parts(maps, images)), torch.cat(shown).flatten(1))


def test_gradient_reaches_the_maps_and_not_the_embedding() -> None:
    embed = embedder(backbone("tiny"))
    loss = CoAug(embed, size=16)
    maps = torch.randn(4, 3, 5, requires_grad=True)
    loss(maps, torch.rand(4, 3, 24, 40), torch.tensor([0, 0, 1, 1])).backward()
    assert maps.grad is not None
    assert maps.grad.abs().sum() > 0
    assert all(p.grad is None for p in embed.parameters())


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="pairs must be 'printed' or 'swapped', not 'both'"):
        coaug_loss(parts(2), torch.zeros(2), pairs="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(B, D\) each and labels \(B,\), got .*\(3,\)"):
        coaug_loss(parts(2), torch.zeros(3))
    with pytest.raises(ValueError, match="squash must be 'stretch' or 'sigmoid', not 'softmax'"):
        CoAug(nn.Flatten(), squash="softmax")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gamma=-1: must not be negative"):
        CoAug(nn.Flatten(), gamma=-1)
