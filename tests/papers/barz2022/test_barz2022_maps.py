"""Maps against values worked out by hand and against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from wsolnb.models.cam import class_activation_maps
from wsolnb.papers.barz2022.maps import (
    assigned_classes,
    class_scores,
    dense_class_embeddings,
    dense_class_map,
    similarity_maps,
)


def test_mean_of_the_class_activation_map_is_the_output() -> None:
    features, head = torch.randn(3, 5, 4, 7), torch.nn.Linear(5, 6)
    maps = class_activation_maps(features, head.weight, head.bias)
    assert maps.shape == (3, 6, 4, 7)
    torch.testing.assert_close(maps.mean(dim=(2, 3)), head(features.mean(dim=(2, 3))))


def test_class_activation_map_by_numpy() -> None:
    features, weight, bias = torch.randn(2, 5, 3, 4), torch.randn(6, 5), torch.randn(6)
    expected = np.einsum("cd,bdhw->bchw", weight, features) + bias.numpy()[None, :, None, None]
    np.testing.assert_allclose(class_activation_maps(features, weight, bias), expected, rtol=1e-4, atol=1e-5)


def test_dense_class_embeddings_have_length_one_in_every_cell() -> None:
    dce = dense_class_embeddings(torch.randn(2, 5, 3, 4), torch.randn(6, 5), torch.randn(6))
    torch.testing.assert_close(dce.norm(dim=1), torch.ones(2, 3, 4))


def test_one_hot_similarity_is_the_embedding_itself() -> None:
    dce = dense_class_embeddings(torch.randn(2, 5, 3, 4), torch.randn(6, 5))
    torch.testing.assert_close(similarity_maps(dce, torch.eye(6)), dce)


def test_class_map_keeps_what_is_present_and_similar() -> None:
    # 3 classes on 1 x 4 cells: class 0 wins cells 0 and 1, class 1 wins cell 2, class 2 wins cell 3
    sim = torch.tensor([[[[0.9, 0.5, 0.1, 0.0]], [[0.8, 0.1, 0.7, 0.1]], [[0.0, 0.2, 0.6, 0.3]]]])
    assert assigned_classes(sim).tolist() == [[[0, 0, 1, 2]]]
    torch.testing.assert_close(class_scores(sim), torch.tensor([[0.9, 0.7, 0.3]]))
    assert dense_class_map(sim, 0.0, 0.0).tolist() == [[[1, 1, 2, 3]]]
    assert dense_class_map(sim, 0.3, 0.0).tolist() == [[[1, 1, 2, 0]]]  # a score of 0.3 is not above 0.3
    assert dense_class_map(sim, 0.0, 0.5).tolist() == [[[1, 0, 2, 0]]]  # nor is a similarity of 0.5 above 0.5


def test_half_precision_is_compared_with_thresholds_as_they_are() -> None:
    sim = torch.full((1, 1, 1, 1), 0.69921875, dtype=torch.bfloat16)  # the bfloat16 that is nearest to 0.698 and to 0.7
    assert dense_class_map(sim, 0.698, 0.698).tolist() == [[[1]]]
    assert dense_class_map(sim, 0.7, 0.0).tolist() == [[[0]]]


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 5), st.integers(0, 10_000))
def test_class_scores_by_brute_force(b: int, c: int, h: int, w: int, seed: int) -> None:
    sim = torch.rand(b, c, h, w, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    winner = sim.argmax(dim=1)
    for image in range(b):
        for k in range(c):
            values = [float(sim[image, k, y, x]) * (winner[image, y, x] == k) for y in range(h) for x in range(w)]
            assert class_scores(sim)[image, k] == pytest.approx(float(max(values)))


def test_shapes_that_do_not_match_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(1, 5, 2, 2\) and weights \(C, D\) \(3, 4\)"):
        class_activation_maps(torch.zeros(1, 5, 2, 2), torch.zeros(3, 4))
